"""Several processes on this machine that train together."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers import free_port

ROOT = Path(__file__).parents[2]


class Group:
    """Several processes of `tests/parallel/process.py`; leaving the block ends them.

    Args:
      folder: for their results.
      count: how many there are.
      devices: of each process.
      task: what they do.
    """

    def __init__(self, folder, count, devices, task):
        self.folder, port = folder, free_port()
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        self.processes = {
            i: subprocess.Popen(
                [
                    *(sys.executable, "-W", "error", "-m", "tests.parallel.process", str(folder)),
                    *(str(i), str(count), str(port), str(devices), task),
                ],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(count)
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in self.processes.values():
            each.kill()
            each.communicate()

    def wait_for(self, pattern, count, seconds=120):
        """Waits until `count` files are in the folder."""
        end = time.monotonic() + seconds
        while len(list(self.folder.glob(pattern))) < count:
            assert time.monotonic() < end, self.ends(1)
            assert all(each.poll() is None for each in self.processes.values()), self.ends(1)
            time.sleep(0.05)

    def ends(self, seconds, but=()):
        """Returns exit status and last line on stderr of each, which must end within `seconds`."""
        end, found = time.monotonic() + seconds, {}
        for i, each in self.processes.items():
            if i not in but:
                _, stderr = each.communicate(timeout=max(0.1, end - time.monotonic()))
                found[i] = each.returncode, stderr.rstrip().rpartition("\n")[2]
        return found


def ends_of(code, counts=(2, 2), seconds=60):
    """Runs a program in several processes at once; returns each one's exit status and stderr.

    Args:
      code: of the program, with ADDRESS for that of process 0, and
        COUNT for their number and the id.
      counts: for each process, how many there are.
      seconds: within which all must end.
    """
    address, environment = f"127.0.0.1:{free_port()}", {**os.environ, "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-c"),
                code.replace("ADDRESS", address).replace("COUNT", f"{count}, {i}"),
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, count in enumerate(counts)
    ]
    end = time.monotonic() + seconds
    try:
        stderr = [
            each.communicate(timeout=max(0.1, end - time.monotonic()))[1] for each in processes
        ]
    finally:
        for each in processes:
            each.kill()
            each.communicate()
    return [(each.returncode, text) for each, text in zip(processes, stderr, strict=True)]
