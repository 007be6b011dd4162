import re
import shlex
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tests.helpers import command_app
from tests.mistakes import check_message, commands, listing


@pytest.fixture
def somewhere(tmp_path, tmp_path_factory, monkeypatch):
    """A folder with the files that the commands name, the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVJAX_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    # The cache is a setting of the process, which other tests share.
    monkeypatch.setattr("convjax.terminal.compilation_cache.use_compilation_cache", lambda: None)
    monkeypatch.delenv("CONVJAX_DATA_DIR", raising=False)
    commands.make_files(tmp_path)
    return tmp_path


@pytest.mark.parametrize("mistake", commands.ROWS, ids=lambda mistake: mistake.what)
def test_commands_report_mistakes_in_one_line(mistake, somewhere):
    before = listing(somewhere)
    words = shlex.split(mistake.what)
    _, app = command_app(words[0] if words else "")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    check_message(result.stderr, mistake)
    assert listing(somewhere) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "what", ["bench --only foo", "table none.json", "explore --run out --out new/x.html"]
)
def test_program_reports_mistakes_in_one_line(what, somewhere, request):
    before = listing(somewhere)
    words = shlex.split(what)
    module = command_app(words[0])[0].rpartition(" ")[2]
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(request.config.rootpath), "JAX_PLATFORMS": "cpu"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: [^\n]*\n", done.stderr)
    assert listing(somewhere) == before
