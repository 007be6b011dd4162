"""Options of a command, declared once as the fields of frozen dataclasses.

A field is an option if its type is annotated with a `typer.Option` or with a text, the option's
help: `epochs: Annotated[int, "Number of epochs."] = 1`. A field that holds another dataclass stands
for the options of that dataclass, and the text beside its type is their heading in `--help`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer
from typer.models import OptionInfo

T = TypeVar("T")


class CommandLine:
    """The parsed options of a command.

    Args:
      context: of the running command.
    """

    def __init__(self, context: typer.Context):
        self._context = context

    def given(self, cls: type) -> dict[str, Any]:
        """Returns the values of a dataclass's options that are on the command line, by field."""
        names = [name for name in option_names(cls) if self._is_given(name)]
        return {name: self._context.params[name] for name in names}

    def build(self, cls: type[T]) -> T:
        """Returns a dataclass with the values of its options, given or default."""
        return cls(**{name: self._context.params[name] for name in option_names(cls)})

    def _is_given(self, name: str) -> bool:
        source = self._context.get_parameter_source(name)
        return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


def options_from(
    *classes: type,
) -> Callable[[Callable[[CommandLine], None]], Callable[..., None]]:
    """Returns a decorator that gives a command the options that dataclasses declare.

    The decorated function takes a `CommandLine`; Typer sees a function of all the options.
    """

    def decorate(function: Callable[[CommandLine], None]) -> Callable[..., None]:
        @wraps(function)
        def command(context: typer.Context, **options: Any) -> None:
            function(CommandLine(context))

        parameters = [
            inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
            *(parameter for cls in classes for parameter in _parameters(cls)),
        ]
        # Typer reads the options from the signature.
        vars(command)["__signature__"] = inspect.Signature(parameters)
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return decorate


def option_names(cls: type) -> list[str]:
    """Returns the names of the fields of a dataclass that are options, nested ones included."""
    return [parameter.name for parameter in _parameters(cls)]


def option_words(values: Mapping[str, Any]) -> list[str]:
    """Returns options as words of a command line, such as ["--keep", "3", "--stream"]."""
    words = []
    for name, value in values.items():
        words += [option_name(name)] if value is True else [option_name(name), str(value)]
    return words


def option_name(field: str) -> str:
    """Returns the option of a field: "--batch-size" for "batch_size"."""
    return f"--{field.replace('_', '-')}"


def _parameters(cls: type, panel: str | None = None) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        hint = hints[field.name]
        if not hasattr(hint, "__metadata__"):
            continue
        kind, note = get_args(hint)
        if isinstance(kind, type) and is_dataclass(kind):
            yield from _parameters(kind, panel=note)
            continue
        option: OptionInfo = copy(note) if isinstance(note, OptionInfo) else typer.Option(help=note)
        if panel is not None:
            option.rich_help_panel = panel
        # A flag alone: without this, Typer adds --no-NAME.
        if kind is bool and option.default is ...:
            option.param_decls = (option_name(field.name),)
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[kind, option],
        )
