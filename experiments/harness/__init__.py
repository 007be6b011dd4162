"""Claims, rules, settings and trainings of the experiments, and the runner of claims."""
