"""The public names: reachable, documented, with examples, unique, and light to import."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import convjax

ROOT = Path(__file__).parents[1]
MODULES = [name for _, name, _ in pkgutil.walk_packages(convjax.__path__, "convjax.")]
SOURCES = sorted(
    path for room in ("convjax", "experiments") for path in (ROOT / room).rglob("*.py")
)


@pytest.mark.parametrize("name", ["convjax", *MODULES])
def test_modules_document_everything_public(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for attribute, value in vars(module).items():
        own = getattr(value, "__module__", None) == name
        if own and not attribute.startswith("_") and callable(value) and hasattr(value, "__name__"):
            assert value.__doc__, f"{name}.{attribute}"
            if inspect.isclass(value):
                for method, function in vars(value).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        assert function.__doc__, f"{name}.{attribute}.{method}"


def test_all_lists_names_that_exist():
    assert all(hasattr(convjax, name) for name in convjax.__all__)
    assert list(convjax.__all__) == sorted(convjax.__all__)


@pytest.mark.parametrize(
    "name", [name for name in convjax.__all__ if callable(getattr(convjax, name))]
)
def test_all_has_an_example_of_each_name(name):
    doc = inspect.getdoc(getattr(convjax, name))
    assert "Examples:" in doc
    assert ">>> " in doc.partition("Examples:")[2]


@pytest.mark.parametrize(
    "name", [name for name in convjax.__all__ if inspect.ismodule(getattr(convjax, name))]
)
def test_rooms_are_no_functions(name):
    # A module and a function of one name hide each other: `import convjax.x` gives either.
    module = getattr(convjax, name)
    public = [n for n, value in vars(module).items() if inspect.ismodule(value) and n[0] != "_"]
    functions = [n for n, value in vars(module).items() if inspect.isfunction(value)]
    assert not set(public) & set(functions)
    for _, inner, _ in pkgutil.iter_modules(getattr(module, "__path__", [])):
        assert inner not in functions, f"{module.__name__}.{inner} is a module and a function"


def test_public_types_have_one_place_each():
    places = defaultdict(list)
    # The networks of reported faults are those of the reports: each loop has its own.
    for path in (p for p in SOURCES if p.parent.name != "reported"):
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", 0)]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            names += [node.name] if isinstance(node, ast.ClassDef) else []
            for name in names:
                if name[0].isupper() and not name.isupper():  # a class, or another name of a type
                    places[name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_rooms_of_the_experiments_import_no_claim():
    for path in (ROOT / "experiments").glob("*/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.module if isinstance(node, ast.ImportFrom) else None
            claim = ROOT / f"{name.replace('.', '/')}.py" if name else path
            assert claim.parent != ROOT / "experiments" or not claim.exists(), path


@pytest.mark.parametrize("path", [ROOT / "README.md", *SOURCES], ids=lambda path: path.name)
def test_documented_paths_resolve(path):
    """Every `convjax.x.y` in prose is what `import convjax` reaches, or a module's full name."""
    text = path.read_text()
    for name in set(re.findall(r"`(convjax(?:\.\w+)+)", text)):
        assert _resolves(name), f"{path}: {name}"


def _resolves(name):
    parts = name.split(".")
    value = convjax
    for i, part in enumerate(parts[1:], 2):
        try:
            value = getattr(value, part)
        except AttributeError:
            try:
                value = importlib.import_module(".".join(parts[:i]))
            except ImportError:
                # An attribute that instances have: named in the docstring of the class.
                return inspect.isclass(value) and part in (inspect.getdoc(value) or "")
    return True


def test_import_loads_no_room():
    heavy = ["jax", "flax", "numpy", "orbax", "matplotlib", "tensorflow", "pandas", "mlxtend"]
    code = f"import sys, convjax; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_import_of_every_room_stays_light():
    heavy = ["tensorflow", "tensorflow_datasets", "pandas", "matplotlib", "mlxtend", "typer"]
    code = (
        "import sys, convjax; [getattr(convjax, name) for name in convjax.__all__]; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_names_load_in_several_threads_at_once():
    code = (
        "import convjax; from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "with Pool(8) as pool:\n"
        "    print(len(list(pool.map(lambda name: getattr(convjax, name), convjax.__all__))))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) == len(convjax.__all__)
