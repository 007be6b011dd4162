"""`python -m experiments` as a process: signals during its imports, and outputs that end."""

import os
import signal
import subprocess
import sys
import time

import pytest

COMMAND = [sys.executable, "-m", "experiments"]


def shell(line):
    """Runs a line of bash in which $run is the command; returns (status, stdout, stderr)."""
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        env={**os.environ, "run": " ".join(COMMAND)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "status", "errors"),
    [
        ("$run list | true", 141, ""),
        ("$run train --help | true", 141, ""),
        ("$run list | head -1 > /dev/null", {0, 141}, ""),  # may have been written as a whole
        ("$run list >&-", 0, ""),
        ("$run list > /dev/full", 2, "error: the output cannot be written: No space left on .*"),
    ],
)
def test_program_ends_quietly_without_a_reader(line, status, errors):
    ended, _, said = shell(line)
    assert ended in (status if isinstance(status, set) else {status})
    assert said.count("\n") == bool(errors)
    assert said.startswith(errors.removesuffix(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.5, 2.5, 4])
def test_program_interrupted_during_its_imports(seconds):
    """Python installs its own handler first; 0.3 s is after it, and before the imports' end."""
    process = subprocess.Popen(
        [*COMMAND, "train", "--dry-run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(seconds)
    running = process.poll() is None
    if running:
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if running else 0), errors
    assert errors in ("", "stopped; nothing was written.\n")
