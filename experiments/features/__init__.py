"""Features and encodings of images that experiments compare."""
