"""`python -m convjax`, and the command `convjax`: see `convjax.cli.app`."""

import signal
import sys


def main() -> None:
    """Runs the command line."""
    try:
        from convjax.terminal.early_interrupt import exit_at_interrupts

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            exit_at_interrupts()  # before the other imports
        from convjax.cli.app import app
    except ModuleNotFoundError as error:
        if error.name != "typer":  # which needs rich itself
            raise
        sys.exit('error: the command line needs typer: pip install "convjax[cli]"')
    app(prog_name="convjax")


if __name__ == "__main__":
    main()
