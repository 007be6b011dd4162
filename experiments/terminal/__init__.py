"""Parts shared by all commands: options, tables, one-line errors, and the console."""
