"""`python -m experiments`: see `experiments.cli.app`."""

import signal

from convjax.terminal.early_interrupt import exit_at_interrupts

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    exit_at_interrupts()  # before the other imports

from experiments.cli.app import app

app(prog_name="python -m experiments")
