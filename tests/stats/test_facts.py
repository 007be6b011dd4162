"""Facts of batches against NumPy in float64, and their merging."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.stats.facts import batch_facts, join_facts, merge_facts, merge_members

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (12, 5)).astype(np.float32)
CLASSES = RNG.integers(0, 5, 12)

# A sum of a dozen float32 numbers is off by a few units in their last place.
ROUNDING = 1e-5


_compiled = jax.jit(batch_facts)


def facts(output, labels=None, of=_compiled):
    """The facts of arrays of NumPy as numbers, taken in a compiled step as in a training."""
    return {name: float(value) for name, value in of(output, labels).items()}


def softmax(x):
    e = np.exp(np.asarray(x, np.float64) - np.max(x, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def entropy(counts):
    """With the correction of Miller and Madow: (number of classes − 1) / (2 · number of labels)."""
    counts = np.asarray([count for count in counts if count > 0], np.float64)
    shares = counts / counts.sum()
    return -(shares * np.log(shares)).sum() + (len(counts) - 1) / (2 * counts.sum())


def expected_of_output(x):
    x = np.asarray(x, np.float64)
    finite = x[np.isfinite(x)]
    found = {
        "outputs": x.shape[-1] if x.ndim > 1 else 1,
        "examples": x.shape[0],
        "output low": finite.min(initial=np.inf),
        "output high": finite.max(initial=-np.inf),
        "output not finite": 1 - finite.size / x.size,
    }
    if x.ndim > 1 and x.shape[-1] > 1:
        found |= {"output sum low": x.sum(-1).min(), "output sum high": x.sum(-1).max()}
    return found


# --- outputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        LOGITS[:, :1],
        LOGITS[:, 0],
        RNG.normal(size=(2, 3, 4, 5)).astype(np.float32),
        np.array([[3, -7], [2, 11]], np.int32),
        np.array([[0.5, 2.0], [-1.25, 0.0]], np.float16),
        np.array([[255, 254]], np.uint8),  # whose sum does not fit the type
    ],
    ids=["classes", "one output", "no axis", "dense", "integers", "half", "bytes"],
)
def test_batch_facts_of_outputs_are_those_of_numpy(output):
    found, wanted = facts(output), expected_of_output(output)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=ROUNDING, atol=ROUNDING, err_msg=name)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_batch_facts_of_outputs_that_are_not_finite(bad):
    output = np.array([[1.0, 2.0], [bad, -3.0]], np.float32)
    found = facts(output)
    assert (found["output low"], found["output high"], found["output not finite"]) == (-3, 2, 0.25)
    assert not np.isfinite(found["output sum low"]) or not np.isfinite(found["output sum high"])
    nothing = facts(np.full((2, 2), bad, np.float32))
    assert nothing["output not finite"] == 1
    # No number is below these, so that they change no minimum or maximum that they are merged with.
    assert (nothing["output low"], nothing["output high"]) == (np.inf, -np.inf)


def test_batch_facts_without_labels_or_output():
    assert facts(LOGITS).keys() == expected_of_output(LOGITS).keys()
    assert facts(None, CLASSES).keys() == {
        "label low",
        "label high",
        "label not whole",
        "label size",
        "label entropy",
        "label classes",
    }
    assert batch_facts(None, None) == {}


@pytest.mark.parametrize(
    "x",
    [
        jnp.ones((2, 2), bool),
        jnp.ones((2, 2), jnp.complex64),
        jnp.float32(1.0),
        jnp.ones((2, 0)),
        jnp.ones((0, 2)),
        "labels",
        {"a": jnp.ones(2)},
    ],
    ids=["boolean", "complex", "scalar", "empty last axis", "no example", "text", "tree"],
)
def test_batch_facts_leaves_out_what_has_none(x):
    assert batch_facts(x, None) == batch_facts(None, x) == {}
    assert batch_facts(LOGITS, x).keys() == batch_facts(LOGITS, None).keys()
    assert batch_facts(x, CLASSES).keys() == batch_facts(None, CLASSES).keys()


def test_batch_facts_of_numpy_of_jax_and_inside_jit_are_the_same():
    compiled = _compiled(LOGITS, CLASSES)
    plain = facts(LOGITS, CLASSES, batch_facts)
    assert plain == facts(jnp.asarray(LOGITS), jnp.asarray(CLASSES), batch_facts)
    assert compiled.keys() == plain.keys()
    for name, value in compiled.items():
        assert (value.shape, value.dtype) == ((), jnp.float32)
        np.testing.assert_allclose(value, plain[name], rtol=ROUNDING, err_msg=name)


# --- labels --------------------------------------------------------------------------------------


def test_batch_facts_of_labels_by_hand():
    found = facts(np.zeros((4, 3), np.float32), np.array([0, 0, 2, 2]))
    assert (found["label low"], found["label high"]) == (0, 2)
    assert (found["label classes"], found["label size"], found["label not whole"]) == (2, 1, 0)
    # Two classes of equal share have ln 2; the correction is (2 − 1) / (2 · 4).
    assert found["label entropy"] == pytest.approx(math.log(2) + 1 / 8, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=12, max_size=12), st.randoms())
def test_batch_facts_count_classes(labels, random):
    found = facts(LOGITS, np.array(labels))
    assert found["label entropy"] == pytest.approx(entropy(np.bincount(labels)), abs=1e-5)
    assert found["label classes"] == len(set(labels))
    random.shuffle(labels)
    assert facts(LOGITS, np.array(labels))["label entropy"] == pytest.approx(
        found["label entropy"], abs=1e-6
    )


def test_batch_facts_of_dense_labels():
    labels = RNG.integers(0, 3, (2, 4, 5))
    found = facts(np.zeros((2, 4, 5, 3), np.float32), labels)
    assert (found["label size"], found["examples"], found["outputs"]) == (20, 2, 3)
    assert found["label entropy"] == pytest.approx(entropy(np.bincount(labels.ravel())), rel=1e-5)


@pytest.mark.parametrize("examples", [200, 50_000], ids=["compared", "added"])
def test_batch_facts_count_more_than_64_classes(examples):
    labels = RNG.integers(0, 100, examples)
    found = facts(np.zeros((examples, 100), np.float32), labels)
    assert found["label classes"] == len(np.unique(labels))
    assert found["label entropy"] == pytest.approx(entropy(np.bincount(labels)), rel=1e-4)
    if examples == 200:  # where outputs do not tell the number of classes
        assert facts(None, labels)["label classes"] == len(np.unique(np.minimum(labels, 63)))


def test_batch_facts_of_labels_outside_of_the_classes():
    found = facts(LOGITS, np.array([-1] * 6 + [7] * 6))
    assert (found["label low"], found["label high"], found["label classes"]) == (-1, 7, 2)
    assert found["label entropy"] == pytest.approx(entropy([6, 6]), rel=1e-5)
    assert np.isnan(found["loss of logits"])  # not 0, the best possible loss
    assert np.isnan(found["loss of probabilities"])


def test_batch_facts_of_labels_that_are_not_whole():
    found = facts(LOGITS[:4, :1], np.array([0.9, 0.1, 0.9, 0.9], np.float32))
    assert found["label not whole"] == 1
    # Smoothed labels are of the class that they are next to.
    assert found["label classes"] == 2
    assert found["label entropy"] == pytest.approx(entropy([1, 3]), rel=1e-5)
    missing = facts(LOGITS[:4], np.array([0, 1, np.nan, 2], np.float32))
    assert missing["label not whole"] == 0.25
    assert np.isnan(missing["label low"])
    assert np.isnan(missing["label high"])


@pytest.mark.parametrize("labels", ["one-hot", "smoothed", "mixed"])
def test_batch_facts_of_rows_of_probabilities(labels):
    one_hot = np.eye(5)[CLASSES]
    rows = {
        "one-hot": one_hot,
        "smoothed": 0.9 * one_hot + 0.02,
        "mixed": 0.7 * one_hot + 0.3 * one_hot[::-1],
    }[labels]
    found = facts(LOGITS, rows.astype(np.float32))
    logs = np.log(np.where(rows > 0, rows, 1))
    wanted = {
        "label size": 5,
        "label sum low": 1,
        "label sum high": 1,
        "label mixture": -(rows * logs).sum(-1).mean(),
        "label entropy": entropy(rows.sum(0)),
        "label classes": (rows.sum(0) > 0).sum(),
        "loss of logits": -(rows * np.log(softmax(LOGITS))).sum(-1).mean(),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    shares = softmax(LOGITS)
    of_shares = facts(shares.astype(np.float32), rows.astype(np.float32))["loss of probabilities"]
    assert of_shares == pytest.approx(wanted["loss of logits"], rel=1e-4)


# --- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_batch_facts_cross_entropy_of_classes(shape, dtype):
    logits, labels = LOGITS.reshape(*shape, 5), CLASSES.reshape(shape).astype(dtype)
    shares = softmax(logits)
    wanted = -np.log(np.take_along_axis(shares, CLASSES.reshape(*shape, 1), -1)).mean()
    assert facts(logits, labels)["loss of logits"] == pytest.approx(wanted, rel=1e-5)
    found = facts(shares.astype(np.float32), labels)
    assert found["loss of probabilities"] == pytest.approx(wanted, rel=1e-4)
    assert "squared error" not in found


def test_batch_facts_cross_entropy_leaves_out_labels_of_no_class():
    labels = np.where(np.arange(12) % 3, CLASSES, -100)
    labels[1] = 5
    kept = (labels >= 0) & (labels < 5)
    wanted = facts(LOGITS[kept], labels[kept])
    found = facts(LOGITS, labels)
    for name in ("loss of logits", "loss of probabilities"):
        assert found[name] == pytest.approx(wanted[name], rel=1e-5)


def test_batch_facts_cross_entropy_of_a_share_of_zero_is_finite():
    found = facts(np.eye(2, dtype=np.float32), np.array([1, 0]))
    assert found["loss of probabilities"] == pytest.approx(-math.log(1e-30), rel=1e-5)


BINARY = [((12, 1), (12, 1)), ((12, 1), (12,)), ((12,), (12,)), ((12,), (12, 1)), ((4, 3), (4, 3))]


@pytest.mark.parametrize(("of_output", "of_labels"), BINARY)
def test_batch_facts_binary_cross_entropy_and_errors(of_output, of_labels):
    logits = LOGITS[:, 0].astype(np.float64)
    labels = np.arange(12) // 3 % 2 * 1.0  # rows of three ones or zeros, which sum to 3 or 0
    shares = 1 / (1 + np.exp(-logits))
    wanted = -(labels * np.log(shares) + (1 - labels) * np.log(1 - shares)).mean()
    of_logits = facts(LOGITS[:, 0].reshape(of_output), labels.reshape(of_labels).astype(np.int32))
    assert of_logits["loss of logits"] == pytest.approx(wanted, rel=1e-5)
    assert of_logits["squared error"] == pytest.approx(((logits - labels) ** 2).mean(), rel=1e-5)
    assert of_logits["absolute error"] == pytest.approx(np.abs(logits - labels).mean(), rel=1e-5)
    as_shares = facts(shares.astype(np.float32).reshape(of_output), labels.reshape(of_labels))
    assert as_shares["loss of probabilities"] == pytest.approx(wanted, rel=1e-4)


def test_batch_facts_errors_of_pairs_are_those_of_shapes_that_broadcast():
    output, targets = RNG.normal(size=(9, 1)).astype(np.float32), RNG.normal(3, 2, 9)
    apart = output - targets  # (9, 9)
    for found in (facts(output, targets), facts(output[:, 0], targets[:, None])):
        assert found["squared error of pairs"] == pytest.approx((apart**2).mean(), rel=1e-5)
        assert found["absolute error of pairs"] == pytest.approx(np.abs(apart).mean(), rel=1e-5)
        # By the laws of means: larger than the error of those that belong together, if they agree.
        assert found["squared error of pairs"] != pytest.approx(found["squared error"], rel=0.01)
    maps, masks = RNG.normal(size=(4, 1, 3, 2)), RNG.integers(0, 2, (4, 3, 2))
    found = facts(maps.astype(np.float32), masks)
    assert found["squared error of pairs"] == pytest.approx(((maps - masks) ** 2).mean(), rel=1e-5)
    binary = (np.logaddexp(0, maps) - maps * masks).mean()  # over (4, 4, 3, 2)
    assert found["loss of pairs"] == pytest.approx(binary, rel=1e-5)
    shapes = (
        ((9, 1), (9, 1)),
        ((9,), (9,)),
        ((1, 1), (1,)),
        ((4096, 1), (4096,)),
        ((4, 6), (4, 2, 3)),
    )
    for output, targets in shapes:
        assert "squared error of pairs" not in facts(np.ones(output), np.ones(targets))


def test_batch_facts_of_shapes_that_do_not_match_have_no_losses():
    for labels in (np.zeros((12, 1)), np.zeros((12, 3)), np.zeros(7), np.zeros((12, 5, 2))):
        found = facts(LOGITS, labels)
        assert not [name for name in found if "loss" in name or "error" in name]


@settings(max_examples=20, deadline=None)
@given(st.floats(-50, 50, width=32), st.integers(0, 4))
def test_batch_facts_loss_of_logits_ignores_what_is_added_to_all(shift, roll):
    """Softmax is invariant to a constant; the mean of examples to their order."""
    wanted = facts(LOGITS, CLASSES)["loss of logits"]
    moved = facts(np.roll(LOGITS, roll, 0) + np.float32(shift), np.roll(CLASSES, roll))
    assert moved["loss of logits"] == pytest.approx(wanted, abs=1e-4)


# --- merging -------------------------------------------------------------------------------------

NAN = np.nan
COLUMNS = {
    "output low": np.float32([3, 1, NAN, NAN, 2]),
    "output high": np.float32([3, 1, NAN, NAN, 2]),
    "label entropy": np.float32([3, 1, NAN, NAN, 2]),
}


def test_merge_facts_by_hand():
    found = merge_facts(COLUMNS, np.array([1, 3, 2, 1, 5]), np.array([0, 2, 4]))
    np.testing.assert_array_equal(found["output low"], [1, NAN, 2])
    np.testing.assert_array_equal(found["output high"], [3, NAN, 2])
    np.testing.assert_array_equal(found["label entropy"], [(3 + 3 * 1) / 4, NAN, 2])
    with_nan = merge_facts(COLUMNS, np.array([1, 3, 2, 1, 5]), np.array([0]))
    # Rows without a fact have no part in its mean.
    assert with_nan["label entropy"].tolist() == [np.float32((3 + 3 * 1 + 5 * 2) / 9)]
    assert (with_nan["output low"].item(), with_nan["output high"].item()) == (1, 3)
    assert merge_facts({}, np.array([1]), np.array([0])) == {}


floats = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_merge_facts_in_two_ways_gives_one_result(data):
    rows = data.draw(st.integers(1, 12))
    column = np.float32(data.draw(st.lists(floats, min_size=rows, max_size=rows)))
    weights = np.array(data.draw(st.lists(st.integers(1, 9), min_size=rows, max_size=rows)))
    starts = sorted({0, *data.draw(st.lists(st.integers(0, rows - 1)))})
    given_facts = {"output low": column, "output high": column, "label size": column}
    whole = merge_facts(given_facts, weights, np.array([0]))
    parts = merge_facts(given_facts, weights, np.array(starts))
    again = merge_facts(parts, np.add.reduceat(weights, starts), np.array([0]))
    assert again["output low"] == whole["output low"] == column.min()
    assert again["output high"] == whole["output high"] == column.max()
    oracle = np.average(column.astype(np.float64), weights=weights)
    scale = np.abs(column).max()
    np.testing.assert_allclose(whole["label size"], oracle, rtol=0, atol=1e-6 * scale + 1e-30)
    np.testing.assert_allclose(again["label size"], oracle, rtol=0, atol=1e-6 * scale + 1e-30)


def test_merge_members_by_hand():
    members = {
        "output low": [[1, 2], [0, NAN]],
        "output high": [[1, 2], [0, NAN]],
        "squared error": [[1, 2], [0, NAN]],
        "loss of logits": [[NAN, NAN], [NAN, NAN]],
        "examples": np.array([8, 4]),  # without a further axis
    }
    found = merge_members(members)
    np.testing.assert_array_equal(found["output low"], [0, 2])
    np.testing.assert_array_equal(found["output high"], [1, 2])
    np.testing.assert_array_equal(found["squared error"], [0.5, 2])
    np.testing.assert_array_equal(found["loss of logits"], [NAN, NAN])
    assert found["examples"] == 6
    assert all(column.dtype == np.float32 for column in found.values())


@pytest.mark.filterwarnings("error")
def test_merge_members_merges_as_merge_facts_does():
    column = np.float32([[3, NAN, 1, np.inf], [NAN, NAN, 5, -np.inf], [2, NAN, 4, 0]])
    for name in ("label low", "label high", "absolute error"):
        found = merge_members({name: column})[name]
        rows = [merge_facts({name: c}, np.ones(3, int), np.array([0]))[name] for c in column.T]
        np.testing.assert_allclose(found, np.concatenate(rows), rtol=1e-6)


def test_join_facts_has_nan_where_a_part_lacks_one():
    first, second = {"a": [1, 2], "b": [3, 4]}, {"b": [5], "c": [6]}
    found = join_facts([(first, 2), ({}, 1), (second, 1)])
    assert list(found) == ["a", "b", "c"]
    np.testing.assert_array_equal(found["a"], np.float32([1, 2, NAN, NAN]), strict=True)
    np.testing.assert_array_equal(found["b"], np.float32([3, 4, NAN, 5]), strict=True)
    np.testing.assert_array_equal(found["c"], np.float32([NAN, NAN, NAN, 6]), strict=True)
    assert join_facts([]) == join_facts([({}, 3)]) == {}


@settings(max_examples=20, deadline=None)
@given(st.lists(floats, min_size=1, max_size=8), st.data())
def test_join_facts_undoes_a_cut(column, data):
    cut = data.draw(st.integers(0, len(column)))
    parts = [({"x": part}, len(part)) for part in (column[:cut], column[cut:])]
    np.testing.assert_array_equal(join_facts(parts)["x"], np.float32(column), strict=True)
