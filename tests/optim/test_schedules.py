import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.optim.schedules import constant, exponential, group_rates, one_cycle
from tests.helpers import GOLDEN

# Every property uses the same number of points, so that its programs compile once.
POINTS = np.arange(64)


def fastai(steps, values, pct_start):
    """Returns fastai's combined_cos in NumPy: combine_scheds over two SchedCos, at t/steps.

    Position and boundaries are float32 tensors in fastai; a schedule receives a Python float.
    """
    bounds = np.array([0, pct_start, 1], np.float32)
    found = []
    for t in range(steps):
        position = np.float32(t / steps)
        phase = np.flatnonzero(position >= bounds).max()
        share = float((position - bounds[phase]) / (bounds[phase + 1] - bounds[phase]))
        start, end = values[phase : phase + 2]
        found.append(start + (1 + math.cos(math.pi * (1 - share))) * (end - start) / 2)
    return np.array(found)


# --- one cycle by hand -------------------------------------------------------------------------

# Eight steps: the rate rises from 1/4 to 1 in two, falls to 1/100 in six, the momentum the other
# way round. Halfway the cosine is a half, after one and two thirds of the way a quarter and three.
HAND = {
    "cos": {
        "learning_rate": {0: 0.25, 1: 0.625, 2: 1, 4: 0.7525, 5: 0.505, 6: 0.2575, 8: 0.01},
        "momentum": {0: 0.9, 1: 0.85, 2: 0.8, 4: 0.8375, 5: 0.875, 6: 0.9125, 8: 0.95},
    },
    "linear": {
        "learning_rate": {0: 0.25, 1: 0.625, 2: 1, 4: 0.67, 5: 0.505, 6: 0.34, 8: 0.01},
        "momentum": {0: 0.9, 1: 0.85, 2: 0.8, 4: 0.85, 5: 0.875, 6: 0.9, 8: 0.95},
    },
}


@pytest.mark.parametrize("anneal", ["cos", "linear"])
def test_one_cycle_values(anneal):
    cycle = one_cycle(
        8, 1.0, div=4, div_final=100, pct_start=0.25, momentum=(0.9, 0.8, 0.95), anneal=anneal
    )
    for name, expected in HAND[anneal].items():
        schedule = jax.jit(getattr(cycle, name))
        for step, value in expected.items():
            # The share of a phase is rounded to float32.
            assert float(schedule(step)) == pytest.approx(value, rel=1e-6), (name, step)
        # After the end the value is constant.
        assert [float(schedule(step)) for step in (9, 1000)] == [float(schedule(8))] * 2


def test_one_cycle_defaults_are_those_of_fastai():
    cycle = one_cycle(100, 0.5)
    for step, rate, momentum in ((0, 0.02, 0.95), (25, 0.5, 0.85), (100, 5e-6, 0.95)):
        # The last rate too, 1e5 times smaller than the first, is good to float32.
        assert float(cycle.learning_rate(step)) == pytest.approx(rate, rel=1e-6)
        assert float(cycle.momentum(step)) == pytest.approx(momentum, rel=1e-6)


@pytest.mark.parametrize("anneal", ["cos", "linear"])
def test_one_cycle_with_one_phase(anneal):
    only_falls = one_cycle(4, 1.0, div=10, div_final=100, pct_start=0, anneal=anneal).table(5)
    assert float(only_falls["learning_rate"][0]) == 1
    assert (np.diff(only_falls["learning_rate"]) < 0).all()
    assert float(only_falls["learning_rate"][-1]) == pytest.approx(0.01, rel=1e-6)
    only_rises = one_cycle(4, 1.0, div=10, div_final=100, pct_start=1, anneal=anneal).table(4)
    assert float(only_rises["learning_rate"][0]) == pytest.approx(0.1, rel=1e-6)
    assert (np.diff(only_rises["learning_rate"]) > 0).all()
    assert float(only_rises["learning_rate"][-1]) < 1
    for table in (only_falls, only_rises):
        assert all(np.isfinite(column).all() for column in table.values())


def test_one_cycle_of_one_and_two_steps():
    # One step is at position 0, two at 0 and 1/2: a third of the way down, with pct_start 1/4.
    one = one_cycle(1, 1.0).table(1)
    assert float(one["learning_rate"][0]) == pytest.approx(1 / 25, rel=1e-6)
    assert float(one["momentum"][0]) == pytest.approx(0.95, rel=1e-6)
    two = one_cycle(2, 1.0).table(2)
    np.testing.assert_allclose(two["learning_rate"], [1 / 25, 0.75 + 0.25e-5], rtol=1e-6)
    np.testing.assert_allclose(two["momentum"], [0.95, 0.85 + 0.1 / 4], rtol=1e-6)


# --- against fastai ----------------------------------------------------------------------------


def test_one_cycle_equals_the_recorded_training(x64):
    with np.load(GOLDEN / "mnist5k_onecycle_batchnorm.npz") as golden:
        steps = int(golden["steps"]) * int(golden["epochs"])
        table = one_cycle(steps, float(golden["lr_max"])).table(steps)
        assert table["learning_rate"].shape == golden["lr"].shape == (60,)
        # The same float64 operations in another order, which loses digits where the rate is 1e5
        # times smaller than the numbers it is the difference of.
        np.testing.assert_allclose(table["learning_rate"], golden["lr"], rtol=1e-12)
        np.testing.assert_allclose(table["momentum"], golden["mom"], rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 64),
    st.one_of(
        st.sampled_from([0.1, 0.3, 0.6, 0.7, 0.9]),
        st.integers(0, 16).map(lambda sixteenths: sixteenths / 16),
    ),
    st.floats(1e-4, 10),
    st.floats(1, 100),
    st.tuples(*[st.floats(0, 0.99)] * 3),
)
def test_one_cycle_equals_fastai(steps, pct_start, lr_max, div, momentum):
    with jax.enable_x64(True):
        cycle = one_cycle(steps, lr_max, div=div, pct_start=pct_start, momentum=momentum)
        rates = fastai(steps, (lr_max / div, lr_max, lr_max / 1e5), pct_start)
        # float64: rounding of the largest term.
        np.testing.assert_allclose(
            cycle.learning_rate(POINTS)[:steps], rates, rtol=0, atol=1e-12 * lr_max
        )
        np.testing.assert_allclose(
            cycle.momentum(POINTS)[:steps], fastai(steps, momentum, pct_start), rtol=0, atol=1e-12
        )


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 64),
    st.floats(0, 1),
    st.floats(1, 100),
    st.floats(1, 1e6),
    st.sampled_from(["cos", "linear"]),
)
def test_one_cycle_rises_then_falls_with_the_momentum_mirrored(
    steps, pct_start, div, div_final, anneal
):
    cycle = one_cycle(
        steps, 1.0, div=div, div_final=div_final, pct_start=pct_start, anneal=anneal,
        momentum=(0.9, 0.8, 0.95),
    )  # fmt: skip
    rates, momenta = (np.asarray(schedule(POINTS), np.float64) for schedule in cycle)
    rising = pct_start * steps > POINTS
    slack = 1e-6  # float32 of numbers up to 1
    for values, sign in ((rates, 1), (momenta, -1)):
        assert (sign * np.diff(values[rising]) >= -slack).all()
        assert (sign * np.diff(values[~rising]) <= slack).all()
    assert rates.max() <= 1 + slack
    assert rates.min() >= min(1 / div, 1 / div_final) - slack
    # Rate and momentum cover the same share of their ranges at every step.
    sides = (
        (rising, (1 / div, 1), (0.9, 0.8)),
        (~rising, (1, 1 / div_final), (0.8, 0.95)),
    )
    for part, (low, high), (first, last) in sides:
        along = rates[part] - low
        np.testing.assert_allclose(
            along * (last - first), (momenta[part] - first) * (high - low), rtol=0, atol=1e-6
        )


# --- as Optax schedules ------------------------------------------------------------------------


def test_one_cycle_inside_optax():
    cycle = one_cycle(5, 0.1)
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=cycle.learning_rate)
    params = {"w": jnp.float32(0)}
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    table = cycle.table(5)["learning_rate"]
    for rate in table:
        updates, state = update({"w": jnp.float32(2)}, state, params)
        # Another program may round the cosine differently.
        assert float(state.hyperparams["learning_rate"]) == pytest.approx(float(rate), rel=1e-6)
        assert float(updates["w"]) == pytest.approx(-2 * float(rate), rel=1e-6)


def test_table_of_constant_and_one_cycle():
    flat = constant(0.5, 0.25)
    table = flat.table(3)
    assert {name: column.tolist() for name, column in table.items()} == {
        "learning_rate": [0.5] * 3,
        "momentum": [0.25] * 3,
    }
    assert float(constant(0.5).momentum(0)) == 0.9
    cycle = one_cycle(3, 1.0)
    for name, column in cycle.table(3).items():
        one_by_one = [float(getattr(cycle, name)(step)) for step in range(3)]
        np.testing.assert_allclose(column, one_by_one, rtol=1e-6)  # float32


# --- layer groups ------------------------------------------------------------------------------


def test_group_rates_equal_fastai_lr_maker():
    assert group_rates(0.1, 3) == (0.1, 0.1, 0.1)
    assert group_rates([1e-3, 1e-2], 2) == (1e-3, 1e-2)
    # A few roundings of float64.
    assert group_rates(slice(1e-5, 1e-3), 3) == pytest.approx((1e-5, 1e-4, 1e-3), rel=1e-12)
    assert group_rates(slice(1e-5, 1e-3), 1) == (1e-3,)
    assert group_rates(slice(1e-3), 3) == pytest.approx((1e-4, 1e-4, 1e-3), rel=1e-12)
    assert group_rates(slice(1e-3), 1) == (1e-3,)


@given(st.floats(1e-8, 10), st.floats(1e-8, 10), st.integers(2, 9))
def test_group_rates_of_a_slice_equal_geomspace(first, last, groups):
    found = group_rates(slice(first, last), groups)
    np.testing.assert_allclose(found, np.geomspace(first, last, groups), rtol=1e-12)
    assert found[-1] == last


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"lr_max": 0.0}, r"lr_max must be positive and finite, got 0\.0"),
        ({"lr_max": math.inf}, "lr_max must be positive and finite, got inf"),
        ({"lr_max": math.nan}, "lr_max must be positive and finite, got nan"),
        ({"div": 0}, "div must be positive, got 0"),
        ({"div_final": -1.0}, r"div_final must be positive, got -1\.0"),
        ({"pct_start": 1.5}, r"pct_start must be a share from 0 to 1, got 1\.5"),
        ({"pct_start": 25}, "pct_start must be a share from 0 to 1, got 25"),
        ({"pct_start": math.nan}, "pct_start must be a share from 0 to 1, got nan"),
        ({"momentum": (0.9, 0.8)}, r"momentum must be three numbers .*got \(0\.9, 0\.8\)"),
        ({"momentum": (0.9, 1, 0.9)}, "momentum must be at least 0 and below 1, got 1"),
        ({"anneal": "exp"}, 'anneal must be "cos" or "linear", got \'exp\''),
    ],
)
def test_one_cycle_rejects_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        one_cycle(**({"steps": 10, "lr_max": 0.1} | arguments))


def test_constant_rejects_invalid_arguments():
    with pytest.raises(ValueError, match=r"learning_rate must be positive and finite, got -0\.1"):
        constant(-0.1)
    with pytest.raises(ValueError, match=r"momentum must be at least 0 and below 1, got 1\.0"):
        constant(0.1, 1.0)


@pytest.mark.parametrize(
    ("lr_max", "groups", "message"),
    [
        (0.1, 0, "groups must be at least 1, got 0"),
        (0.0, 2, r"lr_max must be positive and finite, got 0\.0"),
        ([0.1, -0.1], 2, r"lr_max must be positive and finite, got -0\.1"),
        ([0.1], 2, r"one rate per layer group \(2\), got 1: \[0\.1\]"),
        (slice(1e-5, 1e-3, 2), 2, r"must be slice\(last\) or slice\(first, last\), got slice"),
        (slice(1e-5, None), 2, r"must be slice\(last\) or slice\(first, last\), got slice"),
        (slice(0.0, 1e-3), 2, r"lr_max must be positive and finite, got 0\.0"),
        (slice(-1e-3), 2, r"lr_max must be positive and finite, got -0\.001"),
    ],
)
def test_group_rates_reject_invalid_arguments(lr_max, groups, message):
    with pytest.raises(ValueError, match=message):
        group_rates(lr_max, groups)


def test_exponential_values():
    table = exponential(4, 0.01, 100.0).table(4)
    np.testing.assert_allclose(table["learning_rate"], [0.01, 0.1, 1, 10], rtol=1e-6)
    np.testing.assert_array_equal(table["momentum"], np.float32(0.9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 1, 2), "steps must be"), ((5, 0, 2), "start must be"), ((5, 1, -2), "end must be")],
)
def test_exponential_rejects_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        exponential(*arguments)
