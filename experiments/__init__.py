"""The chapter's claims, each put to the test by measurement: `python -m experiments list`."""
