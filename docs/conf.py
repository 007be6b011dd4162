"""The site: `sphinx-build -W docs site` writes it; open site/index.html.

Sphinx with MyST-NB, as JAX, Flax and Optax use: it imports the names that it documents, so that
lazy and decorated ones are found, and executes the notebooks. (Material for MkDocs ends in 2027.)
Furo has light and dark, narrow and wide pages. The built pages need no network.
"""

import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from typer.cli import get_docs_for_click

import convjax
from convjax.cli.app import app as of_library

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # the experiments are not installed

from experiments.cli.app import app as of_experiments  # noqa: E402

project = "convjax"
author = "The convjax authors"
release = "0.1.0"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["README.md"]
html_theme = "furo"
html_title = "convjax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_show_copyright = False
default_role = "code"  # `name` in a docstring is code, as in Markdown
nitpicky = False

napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
copybutton_exclude = ".linenos, .gp, .go"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE.parent / "build/notebooks")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

# Modules that users import from a room, beside the rooms.
MODULES = ("nn.weights", "ops.reference", "parallel.distributed", "plots.chapter")


def rooms() -> dict[str, ModuleType]:
    """Returns the public modules by their name without `convjax.`."""
    found = {name: getattr(convjax, name) for name in convjax.__all__}
    own = {n: m for n, m in found.items() if inspect.ismodule(m) and m.__name__ == f"convjax.{n}"}
    return own | {name: importlib.import_module(f"convjax.{name}") for name in MODULES}


def public_names(module: ModuleType) -> dict[str, Any]:
    """Returns the public names of a module that are no modules."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if name[0] != "_" and getattr(value, "__module__", None) == module.__name__
    ]
    found = {name: getattr(module, name) for name in sorted(names)}
    return {name: value for name, value in found.items() if not inspect.ismodule(value)}


def undocumented() -> list[str]:
    """Returns the public functions and classes without a docstring."""
    return [
        f"convjax.{room}.{name}"
        for room, module in rooms().items()
        for name, value in public_names(module).items()
        if (inspect.isclass(value) or inspect.isroutine(value)) and not inspect.getdoc(value)
    ]


def room_page(room: str, module: ModuleType) -> str:
    """Returns the page of a room in Markdown."""
    lines = [f"# convjax.{room}", "", inspect.getdoc(module) or "", "", "```{eval-rst}"]
    for name, value in public_names(module).items():
        path = f"{module.__name__}.{name}"
        if inspect.isclass(value):
            lines += [f".. autoclass:: {path}", "   :members:", ""]
        elif inspect.isroutine(value):
            lines += [f".. autofunction:: {path}", ""]
        else:
            lines += [f".. autodata:: {path}", ""]
    return "\n".join([*lines, "```", ""])


def overview() -> str:
    """Returns the page of the names that `import convjax` gives."""
    found = rooms()
    places = {
        id(value): f"convjax.{room}.{name}"
        for room, module in found.items()
        for name, value in public_names(module).items()
    }
    lines = ["# Reference", "", "The names that `import convjax` gives.", ""]
    lines += ["| name | what it is |", "|---|---|"]
    for name in convjax.__all__:
        value = getattr(convjax, name)
        first = (inspect.getdoc(value) or "").partition("\n")[0].replace("|", "\\|")
        if inspect.ismodule(value):
            link = f"[`convjax.{name}`]({value.__name__.removeprefix('convjax.')}.md)"
        else:
            link = f"{{any}}`convjax.{name} <{places[id(value)]}>`"
        lines.append(f"| {link} | {first} |")
    pages = "\n".join([*sorted(found), "convjax", "experiments"])
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", pages, "```", ""])


def command_page(name: str, app: typer.Typer) -> str:
    """Returns the page of a program: its commands and their options, from their help."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name=name)
    return get_docs_for_click(obj=command, ctx=context, name=name)


def write_reference() -> None:
    """Writes the pages of the reference, which git ignores."""
    if missing := undocumented():
        raise ValueError(f"public names must have a docstring, {', '.join(missing)} have none.")
    folder = HERE / "reference"
    folder.mkdir(exist_ok=True)
    pages = {room: room_page(room, module) for room, module in rooms().items()}
    pages["convjax"] = command_page("convjax", of_library)
    pages["experiments"] = command_page("python -m experiments", of_experiments)
    for name, text in {**pages, "index": overview()}.items():
        file = folder / f"{name}.md"
        if not file.exists() or file.read_text() != text:  # unchanged pages are not built again
            file.write_text(text)


write_reference()
