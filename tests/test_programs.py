"""`convjax` and `python -m experiments`: signals during their imports, and outputs that end."""

import os
import signal
import subprocess
import sys
import time

import pytest

CONVJAX, EXPERIMENTS = ([sys.executable, "-m", name] for name in ("convjax", "experiments"))


def shell(line):
    """Runs a line of bash with $convjax and $experiments; returns (status, stdout, stderr)."""
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        env={
            **os.environ,
            "convjax": " ".join(CONVJAX),
            "experiments": " ".join(EXPERIMENTS),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return ended.returncode, ended.stdout, ended.stderr


FULL = "error: the output cannot be written: No space left on .*"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "status", "errors"),
    [
        ("$experiments list | true", 141, ""),
        ("$convjax train --help | true", 141, ""),
        (
            "$experiments list | head -1 > /dev/null",
            {0, 141},
            "",
        ),  # may have been written as a whole
        ("$experiments list >&-", 0, ""),
        ("$convjax --help | true", 141, ""),
        (
            "$convjax doctor > /dev/full",
            2,
            FULL,
        ),
        (
            "$experiments list > /dev/full",
            2,
            FULL,
        ),
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
        [*CONVJAX, "train", "--dry-run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(seconds)
    running = process.poll() is None
    if running:
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if running else 0), errors
    assert errors in ("", "stopped; nothing was written.\n")
