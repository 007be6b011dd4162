"""Random and mutated files: only documented errors, no warning, and bounded memory."""
