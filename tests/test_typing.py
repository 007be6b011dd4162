"""A user's script passes a strict type checker, which finds wrong calls of convjax in it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = (Path(__file__).parent / "typed_script.py").read_text()

# Optax and Matplotlib's optional parts have no types of their own.
CONFIG = "[mypy]\nstrict = true\n[mypy-optax.*]\nignore_missing_imports = true\n"

# Lines that do not fit the types, and what a checker calls the mistake.
MISTAKES = {
    "train_step(model, optimizer)": "call-arg",
    "train_step(optimizer, model, images, train.labels)": "arg-type",
    "rarely(loss, 1)": "call-arg",
    "scanned(loss).mean()": "attr-defined",
    'convjax.one_cycle("8", 0.06)': "arg-type",
    'convjax.Trainer(model, convjax.adam(), watch="everything")': "arg-type",
    "convjax.fit(trainer, model, *on_device, plan, writer=print)": "arg-type",
    "convjax.diagnose(record).finding": "attr-defined",
    "convjax.scalars(recorder)": "arg-type",
    "convjax.no_such_name": "attr-defined",
}


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Checks a text as a file of one's own, outside of this project, and returns what is said."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("typed")
    (folder / "mypy.ini").write_text(CONFIG)

    def of(text):
        (folder / "script.py").write_text(text)
        words = [sys.executable, "-m", "mypy", "--no-error-summary", "script.py"]
        return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)

    return of


def test_a_users_script_passes_mypy_strict(check):
    done = check(SCRIPT)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_mypy_finds_wrong_calls_in_a_users_script(check):
    done = check("\n".join([SCRIPT.rstrip(), *MISTAKES]))
    first = SCRIPT.rstrip().count("\n") + 2
    found = re.findall(r"^script.py:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE)
    wanted = {first + i: kind for i, kind in enumerate(MISTAKES.values())}
    assert {int(line): kind for line, kind in found} == wanted, done.stdout
