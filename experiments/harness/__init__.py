"""What experiments are made of: claims, rules, settings, trainings, and the runner."""
