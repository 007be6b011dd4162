"""The command line: `convjax`."""
