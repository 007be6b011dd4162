"""The terminal: the console, options, and mistakes as one line."""
