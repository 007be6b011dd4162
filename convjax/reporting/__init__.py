"""What the pages of `convjax.report` are made of: saved runs, tables, charts and their numbers."""
