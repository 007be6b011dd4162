"""Published receptive fields compared with formula and measurement."""
