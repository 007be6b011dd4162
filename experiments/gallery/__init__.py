"""The gallery: the chapter's pictures in its order, in one HTML file."""
