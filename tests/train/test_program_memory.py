import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from convjax.nn.models import LinearNet
from convjax.optim.optimizers import adam
from convjax.train import program_memory
from convjax.train.program_memory import RUNS_ON_CPU, bytes_per_run, runs_at_once
from convjax.train.trainer import Trainer
from tests.trainings import BATCH, CLASSES, split


@pytest.fixture(scope="module")
def run():
    """The step, state and data of a run."""
    model = LinearNet((32, CLASSES), rngs=nnx.Rngs(0))
    trainer = Trainer(model, adam(), watch=None)
    return trainer.step, trainer.start(model), split()


class Gpu:
    """A device that reports this memory."""

    platform = "gpu"

    def __init__(self, reported):
        self.memory_stats = lambda: reported


def test_bytes_per_run_counts_state_batch_and_every_value(run):
    step, state, data = run
    one = bytes_per_run(step, state, data, BATCH)
    # At least twice the state, and the uint8 batch as float32.
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert one > 2 * state_bytes + 4 * BATCH * 32
    assert bytes_per_run(step, state, data, 2 * BATCH) > one


def test_bytes_per_run_counts_every_branch():
    def branches(x):
        return jax.lax.cond(x[0] > 0, lambda x: jnp.exp(x) + 1, lambda x: jnp.sin(x), x)

    kinds = list(program_memory._values(jax.make_jaxpr(branches)(jnp.ones(1000)).jaxpr))
    # exp, +1 and sin, and the result of the conditional.
    assert sum(kind.size == 1000 for kind in kinds) == 4


def test_runs_at_once_is_one_on_cpu(run):
    assert runs_at_once(*run, BATCH) == RUNS_ON_CPU == 1


@pytest.mark.parametrize(
    ("reported", "wanted"),
    [
        ({"bytes_limit": 8003, "bytes_in_use": 3}, 4),
        ({"bytes_limit": 1000}, 1),
        (None, (2 << 30) // 1000),
    ],
)
def test_runs_at_once_fit_into_half_of_the_free_memory(reported, wanted, run, monkeypatch):
    step, _, data = run
    leaf = type("Leaf", (), {"devices": lambda self: {Gpu(reported)}})
    monkeypatch.setattr(program_memory, "bytes_per_run", lambda *args: 1000)
    assert runs_at_once(step, [leaf()], data, BATCH) == wanted
