"""The accuracy of `convjax.diagnose`, measured on trainings with injected faults."""
