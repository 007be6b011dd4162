"""How good `convjax.diagnose` is, measured on trainings with planted faults."""
