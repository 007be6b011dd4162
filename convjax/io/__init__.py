"""Files: replaced atomically, read without executing anything and in bounded memory, locked."""
