"""Image features and colour encodings that experiments compare."""
