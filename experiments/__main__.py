"""`python -m experiments`: see `experiments.cli`."""

from experiments.cli import app

app(prog_name="python -m experiments")
