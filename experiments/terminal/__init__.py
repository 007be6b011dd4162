"""What every command has in common: options, messages of one line, and what a person sees."""
