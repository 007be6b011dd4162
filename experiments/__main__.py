"""`python -m experiments`: see `experiments.cli.app`."""

import sys

try:
    from experiments.cli.app import app

    app(prog_name="python -m experiments")
except KeyboardInterrupt:  # during the imports, or outside `mistakes_reported`
    sys.exit(130)
