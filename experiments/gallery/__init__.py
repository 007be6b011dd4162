"""The chapter's pictures in its order, as one HTML file."""
