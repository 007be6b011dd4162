"""Files: atomic writes, locks, and readers that execute nothing and use bounded memory."""
