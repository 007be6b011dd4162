import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from convjax.nn.models import LinearNet
from convjax.optim.optimizers import sgd
from convjax.optim.schedules import exponential
from convjax.train.lr_finder import DIVERGED, RULES, LRFind, lr_find, minimum, slide, steep, valley
from convjax.train.trainer import Trainer
from tests.trainings import CLASSES, EXAMPLES, batches, split

# A typical curve, and the suggestions of fastai 2.8.12 on PyTorch 2.13 for it.
STEP = np.arange(85)
RATES = 1e-7 * 1e8 ** ((STEP + 10) / 100)
LOSSES = 2.3 - 1.5 / (1 + np.exp(-(STEP - 45) / 4)) + np.exp((STEP - 80) / 3) + 0.02 * np.sin(STEP)
BY_FASTAI = {
    "valley": 0.0030199517204020187,
    "slide": 1.9054607179632473e-06,
    "minimum": 0.01445439770745928,
    "steep": 0.0030199517204020187,
}


def test_suggestions_equal_fastai():
    assert {name: rule(RATES, LOSSES) for name, rule in RULES.items()} == pytest.approx(
        BY_FASTAI, rel=1e-12
    )


def test_valley_equals_values_by_hand():
    # The longest fall is 5, 4, 3, 2 at 1, 2, 4, 5: four steps, so from 5 − 4 = 1; a third is 4/3.
    losses = np.array([3.0, 5, 4, 6, 3, 2, 7, 8])
    assert valley(np.arange(8.0), losses) == 1 + 1 + 0
    assert valley(np.arange(3.0), np.array([1.0, 1, 1])) == 0
    # One fall, at the beginning: not the last step, to which fastai's index of −1 points.
    assert valley(np.arange(4.0), np.array([2.0, 1, 3, 4])) == 0


@given(st.lists(st.integers(0, 9), min_size=17, max_size=60))
def test_valley_equals_a_search_of_all_falls(losses):
    """Compares with a search through pairs, as the rule is defined."""
    lengths = []
    for i, loss in enumerate(losses):
        before = [lengths[j] for j in range(i) if losses[j] > loss]
        lengths.append(1 + max(before, default=0))
    end = lengths.index(max(lengths))
    start = max(end - lengths[end], 0)
    third = (end - start) / 3
    wanted = list(range(len(losses)))[start + int(third) + int(third / 2)]
    assert valley(np.arange(len(losses)), np.array(losses, float)) == wanted


def test_slide_equals_values_by_hand():
    # The slope is −1 until step 20 and 0 after it: slopes 15 steps apart are equal from there on.
    losses = np.concatenate([np.arange(20, 0, -1.0), np.zeros(20)])
    assert slide(np.arange(40.0), losses) == 24
    # If the last two slopes are equal, the search does not move.
    assert slide(np.arange(40.0), np.zeros(40)) == 24
    steps = np.arange(40.0)
    assert slide(steps, steps**2) == 0


def test_minimum_and_steep_equal_values_by_hand():
    rates, losses = np.array([1.0, 10, 100, 1000]), np.array([5.0, 4, 1, 3])
    assert minimum(rates, losses) == 10
    assert steep(rates, losses) == 10


def found(losses, steps=100):
    losses = np.asarray(losses, float)
    return LRFind(steps, RATES_OF_ALL[: len(losses)], losses, losses)


RATES_OF_ALL = 1e-7 * 1e8 ** (np.arange(100) / 100)


def test_used_excludes_the_first_tenth_and_the_last_five():
    sweep = found(np.concatenate([np.full(10, -1.0), LOSSES, np.full(5, -2.0)]))
    assert sweep.used == slice(10, 95)
    assert sweep.suggestions() == pytest.approx(BY_FASTAI, rel=1e-12)


def test_used_ends_before_a_nan():
    losses = np.concatenate([np.full(10, np.nan), LOSSES, np.full(5, 9.0)])
    losses[60:] = np.nan
    assert found(losses).used == slice(10, 60)


@pytest.mark.parametrize("losses", [LOSSES[:30], [np.nan] * 100, [1.0]])
def test_suggestions_reject_too_few_steps(losses):
    with pytest.raises(ValueError, match=r"finite for more than 15 steps, .*Start at a lower rate"):
        found(losses).suggestions()


MODEL = LinearNet((32, CLASSES), rngs=nnx.Rngs(0))
TRAINER = Trainer(MODEL, sgd(), watch=None)


def sweep(end, steps=60):
    return lr_find(TRAINER, MODEL, split(EXAMPLES), batches(steps), start=1e-3, end=end)


def test_lr_find_rate_grows_by_the_same_factor():
    gentle = sweep(end=0.1)
    assert len(gentle.loss) == gentle.steps == 60
    np.testing.assert_allclose(gentle.learning_rate, 1e-3 * 100 ** (np.arange(60) / 60), rtol=1e-5)


def test_lr_find_rejects_a_rate_that_does_not_grow():
    with pytest.raises(ValueError, match=r"start must be below end, got 0\.001 and 0\.001"):
        sweep(end=1e-3)
    with pytest.raises(ValueError, match="order must hold at least one batch"):
        sweep(end=1.0, steps=0)


def test_lr_find_ends_where_the_loss_diverges():
    before = nnx.state(MODEL)
    wild = sweep(end=1e6)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(MODEL), before)
    table = exponential(60, 1e-3, 1e6).table(60)
    _, whole = TRAINER.run(TRAINER.start(MODEL), split(EXAMPLES), batches(60), table)
    assert len(wild.loss) < 60
    above = wild.smoothed > DIVERGED * np.minimum.accumulate(wild.smoothed)
    assert above[-1]
    assert not above[:-1].any()
    np.testing.assert_array_equal(wild.loss, whole.loss[: len(wild.loss)])
