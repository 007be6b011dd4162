"""`python -m experiments`: see `experiments.cli.app`."""

import sys

try:
    from experiments.cli.app import app

    app(prog_name="python -m experiments")
except KeyboardInterrupt:  # while it was still importing, or outside what a command looks after
    sys.exit(130)
