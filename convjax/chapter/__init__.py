"""Trainings of the chapter: settings, data, networks, plans; for `convjax` and experiments."""
