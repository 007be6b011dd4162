"""The agreement of processes on values: their texts, and the messages where values differ."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.parallel import distributed
from convjax.parallel.agreement import describe
from tests.parallel.group import Group, ends_of


def test_describe_tells_values_apart():
    zeros, tree = np.zeros((20, 30), np.float32), {"a": np.arange(9), "b": [1, "x"]}
    changed = zeros.copy()
    changed[3, 4] = 1e-30
    assert describe(zeros) == describe(jnp.asarray(zeros))
    assert describe(zeros) != describe(changed)
    assert describe(zeros) != describe(zeros.astype(np.float16))
    assert describe(zeros) != describe(zeros.T)
    assert describe(tree) == describe({"b": [1, "x"], "a": np.arange(9)})
    assert describe(tree) != describe({**tree, "b": [1, "y"]})
    assert describe(np.float32(-0.0)) == "float32[] -0.0"
    assert describe(jax.random.key(0)) != describe(jax.random.key(1))
    assert describe(np.zeros((0, 3))) == "float64[0,3] []"
    assert describe(jnp.ones(6, jnp.bfloat16)) == describe(jnp.ones(6, jnp.bfloat16))


def test_describe_has_no_addresses():
    code = (
        "from convjax.parallel.agreement import describe as d; print(d([d, object(), lambda: 0]))"
    )
    found = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
        for _ in range(2)
    }
    assert len(found) == 1
    assert describe(partial(len)) == "functools.partial(<built-in function len>)"


def test_agree_with_one_process_reads_nothing():
    class Unreadable:
        def __repr__(self):
            raise AssertionError

    distributed.agree({"value": Unreadable()})


@pytest.mark.slow
def test_processes_compare_what_they_are_given(tmp_path):
    with Group(tmp_path, 2, 1, "compare") as group:
        ends = group.ends(60)
    assert {i: status for i, (status, _) in ends.items()} == {0: 0, 1: 0}, ends
    texts = [(tmp_path / f"{i}.txt").read_text() for i in range(2)]
    found = [dict(line.split("\t") for line in text.splitlines()) for text in texts]
    assert found[0] == found[1]
    wanted = {
        "agree": "epochs must be the same in every process, got 1 in process 0 and 2 in process 1. "
        "So must name. Pass the same in every process.",
        "broadcast": "structure, shapes and dtypes of the tree must be the same",
        "mean": "mean must be the same in every process, got float64[] 0.0 in process 0 and "
        "float64[] 0.5 in process 1.",
        "loss": "loss must be the same in every process, got cross_entropy in process 0 and "
        "squared_error",
        "watch": "watch must be the same in every process, got None in process 0 and Watch(",
        "augment": "augment must be the same in every process, got None in process 0 and [Cutout(",
        "model": "model must be the same in every process, got",
        "x64": "jax_enable_x64 must be the same in every process, got True in process 0 and False",
        "images": "images must be the same in every process, got uint8[8,4,4,2] from 0 to",
        "stream": "data must be the same in every process, got",
        "order": "order must be the same in every process, got int32[3,2] from 0 to",
        "table": "table must be the same in every process, got",
        "state": "state must be the same in every process, got",
        "batch_size": "batch_size must be the same in every process, got 4 in process 0 and 2",
        "piece": "plan.piece must be the same in every process, got 512 in process 0 and 2 in",
        "epochs": "plan.steps must be the same in every process, got 3 in process 0 and 9 in "
        "process 1. So must plan.epochs, plan.rates.",
        "program": "program must be the same in every process, got",
    }
    assert found[0].keys() == wanted.keys()
    for name, text in wanted.items():
        assert found[0][name].startswith(text), name


@pytest.mark.slow
def test_process_that_stays_in_a_callback_ends_all(tmp_path):
    with Group(tmp_path, 2, 1, "hang") as group:
        group.wait_for("*.ready", 2)
        ends = group.ends(60)
    reason = "process 1 (of 0 to 1) did not come to the program of ChunkPrograms.take within 2 s"
    assert {i: status for i, (status, _) in ends.items()} == {0: 4, 1: 4}, ends
    assert ends[0][1].startswith(f"error: {reason}"), ends
    assert ends[1][1].startswith(f"error: process 0 (of 0 to 1) stopped: {reason}"), ends


# Without Flax and a device, so that the processes begin at once.
CONNECT = (
    "import time; from convjax.parallel import distributed as d; process = (COUNT)[1];"
    "d.initialize('ADDRESS', COUNT, timeout=30, heartbeat=5, wait=3);"
)
MEET = "d.any_process(False)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "last"),
    [
        ("pass", "the end of monitor_peers"),
        ("d.agree({})", "agree"),
    ],
)
def test_processes_that_make_other_calls_end(other, last):
    code = f"{CONNECT}\nwith d.monitor_peers():\n  if process: {other}\n  else: {MEET}"
    text = (
        f"ProcessError: processes must make the same calls in the same order, got any_process in "
        f"process 0 and {last} in process 1. Let every process take the same path through the "
        "program, and stop at the same step."
    )
    for status, stderr in ends_of(code):
        assert (status, stderr.rstrip().endswith(text)) == (2, True), stderr


@pytest.mark.slow
def test_process_that_leaves_early_without_monitor_peers_ends_all():
    ends = ends_of(f"{CONNECT}\nif not process: {MEET}")
    text = "got any_process in process 0 and the end of the program in process 1."
    assert all(text in stderr for _, stderr in ends), ends
    assert [status for status, _ in ends] == [2, 4], ends


@pytest.mark.slow
def test_process_that_does_not_come_ends_all():
    code = f"{CONNECT}\nwith d.monitor_peers('Resume.'):\n  process and time.sleep(100)\n  {MEET}"
    reason = (
        "process 1 (of 0 to 1) did not come to any_process within 3 s; it last came to "
        "distributed.initialize. If it needs longer, as to compile, raise --wait (wait= of "
        "convjax.distributed.initialize); else let all processes make the same calls"
    )
    # One line each: none of JAX.
    assert ends_of(code) == [
        (4, f"error: {reason}. Resume.\n"),
        (4, f"error: process 0 (of 0 to 1) stopped: {reason}. Resume.\n"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "counts", "text"),
    [
        (CONNECT, (2, 3), "processes must be the same in every process, got 2 in process 0 and 3"),
        (
            CONNECT.replace("heartbeat=5", "heartbeat=5 + process"),
            (2, 2),
            "heartbeat must be the same in every process, got 5 in process 0 and 6 in process 1.",
        ),
        (
            "import convjax.parallel.distributed as module\n"
            f"if (COUNT)[1]: module.versions = lambda: {{'jax': '0.1'}}\n{CONNECT}",
            (2, 2),
            "in process 0 and None in process 1. So must jax,",
        ),
    ],
)
def test_initialize_compares(code, counts, text):
    for status, stderr in ends_of(code, counts):
        assert status == 1, stderr
        assert text in stderr.rstrip().rpartition("\n")[2], stderr
