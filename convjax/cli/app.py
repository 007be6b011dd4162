"""The commands of `convjax`.

A command's module is imported when the command runs, so that help appears at once: most modules
need JAX.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from convjax.terminal.one_line_errors import OneLineGroup

# By name: the module in `convjax.cli`, its function, and what it does.
COMMANDS = {
    "demo": ("demo", "run_demo", "Trains twice, once in vain, and says why."),
    "train": ("train", "run_train", "Trains a network and saves everything about it."),
    "report": ("report", "run_report", "Writes a page about one or several trainings."),
    "events": ("events", "run_events", "Writes event files of trainings, for TensorBoard."),
    "explore": ("explore", "run_explore", "Writes a page that traces cells back to the image."),
    "layouts": ("layouts", "run_layouts", "Compares NCHW, NHWC and CHWN on a chip."),
    "doctor": ("doctor", "run_doctor", "Says what JAX sees, what is missing and what is slow."),
}


class _LazyGroup(OneLineGroup):
    """A group that imports a command when it is run or completed, and not for its own help."""

    _own_help = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if self._own_help or cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, function, _ = COMMANDS[cmd_name]
        found = import_module(f"convjax.cli.{module}")
        alone = typer.Typer(add_completion=False)
        alone.command(cmd_name, epilog=getattr(found, "EXAMPLES", None))(getattr(found, function))
        return typer.main.get_command(alone)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._own_help = True
        super().format_help(ctx, formatter)
        self._own_help = False


app = typer.Typer(cls=_LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False)
for _name, (_, _, _summary) in COMMANDS.items():
    app.command(_name, help=_summary)(lambda: None)  # its name and help; see `get_command`


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        typer.echo(f"convjax {version('convjax')}")
    except PackageNotFoundError:  # a source tree that is not installed
        typer.echo("convjax, not installed")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """See why a convolutional network trains or fails to train, in JAX and Flax."""
