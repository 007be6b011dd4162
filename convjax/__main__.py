"""`python -m convjax`, and the command `convjax`: see `convjax.cli.app`."""

import sys


def main() -> None:
    """Runs the command line."""
    try:
        from convjax.cli.app import app
    except ModuleNotFoundError as error:
        if error.name != "typer":  # which needs rich itself
            raise
        sys.exit('error: the command line needs typer: pip install "convjax[cli]"')
    app(prog_name="convjax")


if __name__ == "__main__":
    main()
