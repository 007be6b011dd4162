import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import convjax

MODULES = [name for _, name, _ in pkgutil.walk_packages(convjax.__path__, "convjax.")]


@pytest.mark.parametrize("name", ["convjax", *MODULES])
def test_everything_public_has_a_docstring(name):
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


def test_all_lists_what_there_is():
    assert all(hasattr(convjax, name) for name in convjax.__all__)
    assert list(convjax.__all__) == sorted(convjax.__all__)


def test_the_library_imports_light():
    heavy = ["tensorflow", "tensorflow_datasets", "pandas", "matplotlib", "mlxtend", "typer"]
    code = (
        "import sys, convjax, convjax.data; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
