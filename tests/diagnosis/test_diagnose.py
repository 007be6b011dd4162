"""Each symptom on a record made by hand: that of a healthy training with one change."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from convjax.diagnosis._diagnose import Diagnosis, diagnose, quantities
from convjax.diagnosis.symptoms import SYMPTOMS
from convjax.diagnosis.thresholds import PATIENCE
from convjax.stats.activations import activation_stats
from convjax.stats.bins import Bins, as_bins
from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.record_builder import from_steps
from tests.helpers import without_histograms, without_layers

STEPS, CHANNELS = 200, 8
NAMES = ("input", "labels", "conv1", "conv2", "head")
KERNELS = ("conv1.kernel", "conv2.kernel", "head.kernel")


def healthy():
    """The record of a training of ten classes whose loss falls from ln 10 to 0.2."""
    rng = np.random.default_rng(0)
    loss = 0.2 + (np.log(10) - 0.2) * np.exp(-np.arange(STEPS) / 40)
    return from_steps(
        NAMES,
        [1000] * 5,
        loss.astype(np.float32),
        np.full(STEPS, 0.01),
        np.full(STEPS, 0.9),
        np.arange(STEPS),
        [layer(i, rng) for i in range(5)],
        parameters=parameters(),
        eval_loss=loss.astype(np.float32) + 0.01,
    )


def layer(i, rng):
    channels = [1, 1, CHANNELS, CHANNELS, 10][i]
    x = rng.normal(size=(STEPS, 1000 // channels, channels)).astype(np.float32)
    return jax.vmap(lambda x: activation_stats(x, channel_axis=-1))(x)


def parameters():
    ones = np.ones((STEPS, 3), np.float32)
    hist = np.zeros((STEPS, 3, 42), np.int32)
    return ParameterRecord(
        names=KERNELS,
        sizes=np.full(3, 100),
        ndims=np.full(3, 4),
        watched=np.arange(STEPS),
        watched_count=np.ones(STEPS, int),
        weight_norm=ones + np.arange(STEPS, dtype=np.float32)[:, None] / 1e4,
        grad_norm=ones / 10,
        update_norm=ones / 100,
        grad_hist=hist,
        update_hist=hist,
    )


HEALTHY = healthy()


def changed(column, **fields):
    """The healthy record with fields of one layer multiplied by numbers or arrays of rows."""
    values = {}
    for name, factor in fields.items():
        values[name] = getattr(HEALTHY, name).copy()
        values[name][:, column] = values[name][:, column] * factor
    return replace(HEALTHY, **values)


def with_parameters(row=slice(None), column=slice(None), **factors):
    values = {}
    for name, factor in factors.items():
        values[name] = getattr(HEALTHY.parameters, name).copy()
        values[name][row, column] *= factor
    return replace(HEALTHY, parameters=replace(HEALTHY.parameters, **values))


def stuck(**factors):
    """A record whose loss stays at that of guessing."""
    loss = np.full(STEPS, np.log(10), np.float32)
    return replace(with_parameters(**factors), loss=loss, eval_loss=loss)


def sleeping():
    """A record whose second layer has no active channel from step 60 on."""
    bits = np.unpackbits(HEALTHY.active, axis=1)
    first = int(HEALTHY.channels[:3].sum())
    bits[60:, first : first + CHANNELS] = 0
    return replace(HEALTHY, active=np.packbits(bits, axis=1))


def crashing():
    """A record whose first layer's activations rise and crash three times."""
    hist = HEALTHY.hist.copy()
    active = 100 + 300 * (np.arange(STEPS) % 50) / 50
    hist[:, 2] = 0
    hist[:, 2, 0], hist[:, 2, 8] = 500 - active, active
    # The loss comes down to half of that of guessing and goes up again.
    loss = np.where(np.arange(STEPS) % 50 < 30, 1.0, 3.0).astype(np.float32)
    return replace(HEALTHY, hist=hist, loss=loss)


def spiky(row, size):
    """A record whose loss and gradient are `size` times larger in one step."""
    record, loss = with_parameters(row, grad_norm=size), HEALTHY.loss.copy()
    loss[row] *= size
    return replace(record, loss=loss)


def late(loss, step):
    """The healthy losses with `loss` added from a step on."""
    found = HEALTHY.loss.copy()
    found[step:] += loss
    return found


def begun_late(last=0.4):
    """Losses that stay at that of guessing for a third of the steps."""
    return np.interp(np.arange(STEPS), [70, 120], [np.log(10), last]).astype(np.float32)


CASES = {
    "inputs not normalised": (changed(0, mean=1, std=50), "input", 0),
    "labels constant": (changed(1, mean=0, std=0), "labels", 0),
    "zero weights": (with_parameters(0, 1, weight_norm=0, grad_norm=0), "conv2.kernel", 0),
    "exploding activations": (changed(3, std=100), "conv2", 0),
    "batch-norm statistics": (
        replace(
            HEALTHY,
            layers=("input", "labels", "conv1", "norm1", "head"),
            eval_loss=HEALTHY.eval_loss + 2,
        ),
        "",
        0,
    ),
    "exploding gradients": (spiky(70, 100), "", 70),
    "loss not finite": (replace(HEALTHY, loss=late(np.nan, 30)), "", 30),
    "update too large": (with_parameters(column=1, update_norm=500), "conv2.kernel", 0),
    "update too small": (with_parameters(column=1, update_norm=1e-5), "conv2.kernel", 0),
    "vanishing gradients": (
        replace(with_parameters(column=0, grad_norm=1e-3), loss=begun_late()),
        "conv1.kernel",
        0,
    ),
    "learning rate too high": (stuck(update_norm=100), "", 0),
    "learning rate too low": (stuck(update_norm=1e-4), "", 0),
    "collapse": (crashing(), "conv1", 50),
    "dead layer": (sleeping(), "conv2", 60),
    "inputs and labels do not match": (stuck(), "", 0),
}


# By hand, of the factors above: √(1 + 50²) times the input's std, the loss's gap, and so on.
FIGURES = {
    "inputs not normalised": 50,
    "labels constant": 0,
    "zero weights": 0,
    "exploding activations": 100,
    "batch-norm statistics": 2.01,
    "exploding gradients": 100,
    "loss not finite": STEPS - 30,
    "update too large": 500,
    "update too small": 1e-5,
    "vanishing gradients": 1e-3,
    "learning rate too high": 1,
    "learning rate too low": 1e-6,
    "collapse": 2 / np.log(10) * 0.875,  # of the way from 1 to 3, by the average over ten rows
    "dead layer": 1,
    "inputs and labels do not match": 0,
}


def test_diagnose_finds_nothing_in_a_healthy_training():
    found = diagnose(HEALTHY)
    assert found == Diagnosis((), (), {})
    assert str(found) == "nothing found"


@pytest.mark.parametrize("name", CASES)
def test_diagnose_finds_each_symptom_alone(name):
    record, where, step = CASES[name]
    (finding,) = diagnose(record).findings
    assert (finding.symptom, finding.where) == (name, where)
    assert finding.step == step
    limits = [(s.low, s.high) for s in SYMPTOMS if s.name == name]
    assert any(finding.threshold in pair for pair in limits)
    assert finding.figure == pytest.approx(FIGURES[name], rel=0.05, abs=1e-7)
    assert finding.change
    assert "https://" in finding.reference


def test_diagnose_finds_saturation_with_tanh():
    hist = HEALTHY.hist.copy()
    hist[:, 2] = 0
    hist[:, 2, 20] = 500  # at 5, where tanh is flat
    record = replace(HEALTHY, hist=hist)
    (finding,) = diagnose(record, nonlinearity="tanh").findings
    assert (finding.symptom, finding.where, finding.figure) == ("saturation", "conv1", 1)
    assert not diagnose(record).findings


@pytest.mark.parametrize("nonlinearity", ["relu", "tanh", "sigmoid"])
def test_diagnose_does_not_check_what_the_bins_cannot_answer(nonlinearity):
    level = {"tanh": 2.5, "sigmoid": 5}.get(nonlinearity)
    saturation = {} if level is None else {"saturation": (f"a bin edge at {level:g}",)}
    # Symmetric bins have all edges, and so has any range with the levels: nothing is unchecked.
    symmetric = replace(HEALTHY, hist_edges=as_bins("symmetric").edges)
    assert diagnose(symmetric, nonlinearity=nonlinearity).unchecked == {}
    # Edges at multiples of 0.3 have 0 only.
    thirds = replace(HEALTHY, hist_edges=Bins(-3.0, 9.0, 40).edges)
    found = diagnose(thirds, nonlinearity=nonlinearity)
    assert found.unchecked == {"collapse": ("a bin edge at 0.25",), **saturation}
    assert not found.findings
    # Without histograms their edges do not matter.
    bare = diagnose(without_histograms(thirds), nonlinearity=nonlinearity).unchecked
    bare.pop("batches of one class")
    assert bare == {"collapse": ("histogram",), "saturation": ("histogram",)}


def test_diagnose_uses_the_edges_of_the_record():
    # The same crashes, counted in bins from -2: active values lie in another bin.
    shifted = replace(crashing(), hist_edges=Bins(-2.0, 8.0, 40).edges)
    hist = np.roll(shifted.hist, 8, axis=-1)
    (finding,) = diagnose(replace(shifted, hist=hist)).findings
    assert (finding.symptom, finding.where, finding.step) == ("collapse", "conv1", 50)


def test_diagnose_blames_the_rate_for_a_spike_after_a_large_update():
    record = spiky(70, 100)
    norms = record.parameters.update_norm.copy()
    for row, symptom in ((71, "exploding gradients"), (69, "learning rate too high")):
        changed = norms.copy()
        changed[row] = 0.7
        found = diagnose(
            replace(record, parameters=replace(record.parameters, update_norm=changed))
        )
        assert [finding.symptom for finding in found.findings] == [symptom]


def test_diagnose_accepts_large_updates_if_the_loss_falls():
    assert not diagnose(with_parameters(update_norm=100)).findings


def test_diagnose_accepts_an_update_that_is_large_because_the_gradient_is():
    large = {"update_norm": 100.0, "column": 1}
    assert diagnose(with_parameters(**large)).findings[0].symptom == "update too large"
    # SGD: the same rate for all kernels.
    assert not diagnose(with_parameters(**large, grad_norm=100.0)).findings


def test_diagnose_accepts_frozen_kernels_if_dropout_keeps_the_loss_high():
    slow = (HEALTHY.loss + 1.7) / 1.7  # from 2.4 to 1.1, not half of the way
    frozen = replace(with_parameters(column=1, update_norm=0.0), loss=slow, eval_loss=slow)
    assert "parameters frozen" in [f.symptom for f in diagnose(frozen).findings]
    noise = {"dropout noise": np.ones(STEPS, np.float32)}
    assert not diagnose(replace(frozen, facts=frozen.facts | noise)).findings


def test_diagnose_accepts_crashes_if_the_loss_falls():
    assert not diagnose(replace(crashing(), loss=HEALTHY.loss)).findings


def test_diagnose_separates_consequences_from_causes():
    record = replace(changed(0, mean=1, std=50), loss=late(np.nan, 30))
    found = diagnose(record)
    assert [finding.symptom for finding in found.findings] == ["loss not finite"]
    assert [finding.symptom for finding in found.consequences] == ["inputs not normalised"]
    assert "also seen, as may follow: inputs not normalised" in str(found)


def test_diagnosis_text():
    text = str(diagnose(CASES["dead layer"][0]))
    assert text.splitlines()[0] == "dead layer in conv2, from step 60"
    assert "ten watched: 1, above" in text
    assert "\n  try: lower the learning rate" in text
    assert "\n  see: Lu et al. 2019, https://arxiv.org" in text


def test_diagnose_does_not_check_what_the_record_lacks():
    found = diagnose(without_layers(HEALTHY), classes=10)
    assert {"dead layer", "batch-norm statistics", "exploding gradients"} <= set(found.unchecked)
    assert found.unchecked["dead layer"] == ("activations", "units")
    assert "not checked: 33, for lack of inputs, labels, histogram, gradients" in str(found)
    assert "non-finite" not in found.unchecked
    bare = replace(without_histograms(HEALTHY), parameters=None)
    assert quantities(bare) == {"activations", "units", "inputs", "labels", "evaluation"}


def test_diagnose_takes_classes_from_the_last_layer():
    record = replace(stuck(), active=HEALTHY.active[:0])
    found = diagnose(record)
    assert not found.findings
    assert found.unchecked["inputs and labels do not match"] == ("classes",)
    assert diagnose(record, classes=10).findings[0].symptom == "inputs and labels do not match"
    # A loss of 2.3 is far below that of guessing among 100,000.
    assert not diagnose(record, classes=100_000).findings


def test_diagnose_does_not_check_a_short_training_for_a_stuck_loss():
    short = stuck().between(0, PATIENCE - 1)
    found = diagnose(short)
    assert not found.findings
    assert found.unchecked["inputs and labels do not match"] == ("100 steps",)
    assert diagnose(stuck().between(0, PATIENCE)).findings


def test_diagnose_finds_the_same_in_merged_rows():
    # What shows at a single step is a part of a row then.
    for name in set(CASES) - {"exploding gradients", "zero weights"}:
        record, where, _ = CASES[name]
        (finding,) = diagnose(record.merged(100)).findings
        assert (finding.symptom, finding.where) == (name, where)


def test_diagnose_accepts_labels_sorted_by_class():
    mean = HEALTHY.mean.copy()
    mean[:, 1] = np.arange(STEPS) // 20
    std = HEALTHY.std.copy()
    std[:, 1] = 0
    assert not diagnose(replace(HEALTHY, mean=mean, std=std)).findings


def test_diagnose_accepts_a_kernel_of_zeros_that_learns():
    assert not diagnose(with_parameters(0, 2, weight_norm=0)).findings


def test_diagnose_accepts_a_large_initial_loss():
    record = with_parameters(3, update_norm=70)
    loss = HEALTHY.loss.copy()
    loss[:3] = 5.0
    assert not diagnose(replace(record, loss=loss)).findings


def test_diagnose_ignores_biases_by_any_name():
    parameters = HEALTHY.parameters
    named = replace(parameters, names=("w", "b", "v"), ndims=np.array([2, 1, 2]))
    weights = parameters.weight_norm.copy()
    weights[0, 1] = 0
    record = replace(HEALTHY, parameters=replace(named, weight_norm=weights))
    assert not diagnose(record).findings
    biases = replace(parameters, ndims=np.ones(3, int))
    assert not diagnose(replace(HEALTHY, parameters=biases)).findings


def test_diagnose_without_classes():
    assert diagnose(stuck()).findings
    found = diagnose(stuck(), classes=0)
    assert not found.findings
    assert found.unchecked["collapse"] == ("classes",)


def test_diagnose_accepts_labels_after_the_layers():
    order = [0, 2, 3, 4, 1]
    columns = ("mean", "std", "near_zero", "abs_near_zero", "hist", "under", "over")
    moved = {name: getattr(HEALTHY, name)[:, order] for name in columns}
    channels = HEALTHY.channels[order]
    layers = tuple(NAMES[i] for i in order)
    active = np.packbits(np.ones((STEPS, int(channels.sum())), bool), axis=1)
    record = replace(stuck(), **moved, layers=layers, channels=channels, active=active)
    assert [f.symptom for f in diagnose(record).findings] == ["inputs and labels do not match"]


def test_diagnose_of_records_with_few_quantities():
    empty = without_layers(HEALTHY)
    assert not diagnose(empty, classes=10).findings
    only = replace(empty, parameters=with_parameters(0, 1, weight_norm=0, grad_norm=0).parameters)
    assert [f.symptom for f in diagnose(only).findings] == ["zero weights"]
    nothing_watched = HEALTHY.between(1, 5)
    nothing_watched = replace(
        nothing_watched,
        **{
            name: getattr(nothing_watched, name)[:0]
            for name in ("watched", "watched_count", "mean", "std", "hist", "active", "eval_loss")
        },
    )
    assert "activations" not in quantities(nothing_watched)
    assert not diagnose(nothing_watched, classes=10).findings
    broken = np.full(STEPS, np.nan, np.float32)
    nans = with_parameters(grad_norm=np.nan, update_norm=np.nan, weight_norm=np.nan)
    found = diagnose(
        replace(nans, loss=broken, mean=HEALTHY.mean * np.nan, std=HEALTHY.std * np.nan)
    )
    assert [f.symptom for f in found.findings] == ["inputs not finite"]


def test_diagnose_with_few_watched_steps():
    def every(record, n):
        rows = slice(None, None, n)
        names = ("mean", "std", "near_zero", "abs_near_zero", "hist", "under", "over", "active")
        kept = {name: getattr(record, name)[rows] for name in names}
        kept |= {name: getattr(record, name)[rows] for name in ("watched", "watched_count")}
        parameters = {
            name: getattr(record.parameters, name)[rows]
            for name in ("watched", "watched_count", "weight_norm", "grad_norm", "update_norm")
        }
        return replace(
            record,
            **kept,
            eval_loss=record.eval_loss[rows],
            parameters=replace(record.parameters, **parameters),
        )

    for name in ("dead layer", "update too small", "batch-norm statistics", "collapse"):
        assert [f.symptom for f in diagnose(every(CASES[name][0], 5)).findings] == [name]
    assert not diagnose(every(HEALTHY, 60)).findings


def test_diagnose_of_evaluations_at_some_steps():
    record = CASES["batch-norm statistics"][0]
    eval_loss = np.full(STEPS, np.nan, np.float32)
    eval_loss[4::20] = record.eval_loss[4::20]
    found = diagnose(replace(record, eval_loss=eval_loss)).findings
    assert [(f.symptom, f.step) for f in found] == [("batch-norm statistics", 4)]
    assert found[0].figure == pytest.approx(2.01, abs=1e-5)
    # A gap that opens at step 100.
    gap = np.where(np.arange(STEPS) < 100, 0, 2)
    late_gap = np.where(np.isnan(eval_loss), np.nan, HEALTHY.eval_loss + gap).astype(np.float32)
    found = diagnose(replace(record, eval_loss=late_gap)).findings
    assert [(f.symptom, f.step) for f in found] == [("batch-norm statistics", 104)]
    for none in (np.full(STEPS, np.nan, np.float32), eval_loss - 2):
        assert not diagnose(replace(record, eval_loss=none)).findings


def accumulating(record):
    """The record of a training whose parameters change at every fourth step, from step 3 on."""
    of = record.parameters
    rows = slice(3, None, 4)
    fields = {name: getattr(of, name)[rows] for name in vars(of) if name in ROWS_OF_PARAMETERS}
    return replace(record, parameters=replace(of, **fields))


ROWS_OF_PARAMETERS = (
    "watched",
    "watched_count",
    "weight_norm",
    "grad_norm",
    "update_norm",
    "grad_hist",
    "update_hist",
)


@pytest.mark.parametrize(
    "name", ["update too large", "update too small", "vanishing gradients", "batch-norm statistics"]
)
def test_diagnose_of_accumulated_gradients(name):
    assert not diagnose(accumulating(HEALTHY)).findings
    record, where, _ = CASES[name]
    found = diagnose(accumulating(record)).findings
    assert [(f.symptom, f.where) for f in found] == [(name, where)]


def test_diagnose_of_a_spike_of_accumulated_gradients():
    found = diagnose(accumulating(spiky(71, 100))).findings
    assert [(f.symptom, f.step) for f in found] == [("exploding gradients", 71)]


def test_diagnose_rejects_mistakes():
    with pytest.raises(ValueError, match=r"nonlinearity must be one of 'relu', .*got 'gelu'"):
        diagnose(HEALTHY, nonlinearity="gelu")
    with pytest.raises(ValueError, match=r"classes must be at least 2, or 0 .* got 1"):
        diagnose(HEALTHY, classes=1)
