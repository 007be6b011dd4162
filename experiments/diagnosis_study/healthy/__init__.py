"""Healthy trainings of many architectures, tasks and optimisers."""
