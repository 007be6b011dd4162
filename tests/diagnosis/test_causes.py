"""Causes that show in the facts of batches, in updates and in what is not finite, by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convjax.diagnosis import diagnose
from convjax.diagnosis.symptoms import SYMPTOMS
from convjax.nn.outputs import LayerKind
from convjax.stats.recorder import Recorder
from tests.diagnosis.test_diagnose import (
    CHANNELS,
    HEALTHY,
    STEPS,
    begun_late,
    late,
    stuck,
    with_parameters,
)
from tests.helpers import without_layers

RISING = np.linspace(1, 30, STEPS, dtype=np.float32)[:, None]


def column(value):
    return np.broadcast_to(np.asarray(value, np.float32), STEPS).copy()


def facts(record, **changes):
    """A record of ten classes with the facts of its batches, some of them changed."""
    found = {
        "outputs": 10,
        "examples": 64,
        "output low": -3,
        "output high": 5,
        "output sum low": -4,
        "output sum high": 6,
        "output not finite": 0,
        "label low": 0,
        "label high": 9,
        "label not whole": 0,
        "label size": 1,
        "label classes": 10,
        "label entropy": np.log(10),
        "loss of logits": record.loss,
        "loss of probabilities": 3 * record.loss,
    }
    found |= {name.replace("_", " "): value for name, value in changes.items()}
    return replace(record, facts={n: column(v) for n, v in found.items() if v is not None})


def regression(record, **changes):
    """A record of a regression: one output per example, whose loss is the squared error."""
    changes = {
        "outputs": 1,
        "output_sum_low": None,
        "output_sum_high": None,
        "label_low": -2,
        "label_high": 2,
        "label_not_whole": 1,
        "loss_of_logits": 7 * record.loss,
        "squared_error": record.loss,
        "absolute_error": 5 * record.loss,
    } | changes
    return facts(record, **changes)


def layer_columns(record, name, factor, columns):
    values = getattr(record, name).copy()
    values[:, columns] *= factor
    return replace(record, **{name: values})


NAN = late(np.nan, 30)
PROBABILITIES = {"output_low": 0.01, "output_high": 0.9, "output_sum_low": 1, "output_sum_high": 1}
SLOW = replace(HEALTHY, loss=np.linspace(2.3, 1.8, STEPS, dtype=np.float32))
WEIGHTS = HEALTHY.parameters.weight_norm
DEAD_UPDATES = with_parameters(column=1, update_norm=0)

CASES = {
    "inputs not finite": replace(
        HEALTHY, mean=np.where(np.arange(5) == 0, np.nan, HEALTHY.mean).astype(np.float32), loss=NAN
    ),
    "labels out of range": facts(replace(HEALTHY, loss=column(np.nan)), label_low=1, label_high=10),
    "labels do not fit the loss": facts(HEALTHY, label_high=0.035, label_not_whole=0.9),
    "batches of one class": facts(HEALTHY, label_entropy=0.1, label_classes=2),
    "shapes of output and target differ": regression(
        HEALTHY, squared_error=HEALTHY.loss / 3, squared_error_of_pairs=HEALTHY.loss
    ),
    "softmax applied twice": facts(HEALTHY, **PROBABILITIES),
    "non-linearity at the output": facts(HEALTHY, output_low=0),
    "gradients not finite": replace(
        with_parameters(slice(29, None), 0, grad_norm=np.nan), loss=NAN
    ),
    "loss not finite": facts(replace(HEALTHY, loss=NAN), loss_of_logits=HEALTHY.loss),
    "target not scaled": regression(
        replace(layer_columns(SLOW, "std", 100, 1), loss=column(1e4)), squared_error=1e4
    ),
    "loss independent of the parameters": facts(
        replace(stuck(grad_norm=0, update_norm=0), parameters=stuck(grad_norm=0).parameters)
    ),
    "update not applied": facts(
        replace(
            stuck(), parameters=replace(HEALTHY.parameters, weight_norm=WEIGHTS[:1] + 0 * WEIGHTS)
        )
    ),
    "loss summed over the batch": facts(
        replace(stuck(), loss=stuck().loss * 64), loss_of_logits=stuck().loss
    ),
    "weight decay too strong": facts(
        replace(
            stuck(),
            parameters=replace(HEALTHY.parameters, weight_norm=WEIGHTS * 0.95 ** (RISING - 1)),
        )
    ),
    "gradients accumulate": facts(
        replace(
            SLOW,
            parameters=replace(
                HEALTHY.parameters, grad_norm=0.1 * (1 + np.arange(STEPS)[:, None] + 0 * WEIGHTS)
            ),
        )
    ),
    "parameters not finite": replace(
        with_parameters(slice(30, None), 1, weight_norm=np.nan), loss=NAN
    ),
    "parameters frozen": facts(replace(DEAD_UPDATES, loss=SLOW.loss)),
    "dropout too strong": facts(replace(SLOW, eval_loss=SLOW.loss - 0.7)),
    "evaluation of other parameters": facts(replace(HEALTHY, eval_loss=column(2.3))),
    "running statistics used in training": facts(
        replace(
            layer_columns(HEALTHY, "std", 3, [2]),
            kinds=(
                LayerKind(),
                LayerKind(),
                LayerKind("BatchNorm", "relu"),
                LayerKind("Conv", "relu"),
                LayerKind("Linear"),
            ),
        )
    ),
}


NORMED = replace(
    HEALTHY,
    kinds=(LayerKind(), LayerKind(), LayerKind("BatchNorm"), LayerKind("Conv"), LayerKind()),
    std=np.ones_like(HEALTHY.std),
)
LOST = np.interp(np.arange(STEPS), [0, 60, 120], [np.log(10), 0.3, np.log(10)]).astype(np.float32)
ONE_HOT = {
    "label_high": 1,
    "label_size": 10,
    "label_sum_low": 1,
    "label_sum_high": 1,
    "label_mixture": 0,
    "squared_error": 5.0,
}

# A cause that shows in another way, too.
FURTHER_SIGNS = {
    "small weights": ("vanishing gradients", layer_columns(SLOW, "std", 1e-4, 3)),
    "no training mode after validation": (
        "running statistics used in training",
        replace(NORMED, eval_loss=np.where(np.arange(STEPS) < 40, 3, HEALTHY.loss)),
    ),
    "one class per batch, one-hot": (
        "batches of one class",
        facts(HEALTHY, label_classes=1, label_entropy=0, **ONE_HOT),
    ),
    "labels that casting makes the same": ("labels constant", facts(HEALTHY, label_high=0)),
    "a hinge loss of 0 and 1": (
        "labels do not fit the loss",
        regression(HEALTHY, hinge_loss=HEALTHY.loss, label_low=0, label_high=1, squared_error=9),
    ),
    "logits and labels that broadcast": (
        "shapes of output and target differ",
        regression(HEALTHY, loss_of_pairs=HEALTHY.loss, squared_error=9, label_not_whole=0),
    ),
    "noise of dropout": ("dropout too strong", facts(stuck(), dropout_noise=9)),
    "a gradient for an update": (
        "update too large",
        replace(
            HEALTHY,
            parameters=replace(
                HEALTHY.parameters,
                update_norm=np.where(
                    np.arange(len(WEIGHTS[0])) == 1,
                    HEALTHY.parameters.grad_norm,
                    HEALTHY.parameters.update_norm,
                ),
            ),
        ),
    ),
    "NaN that a ReLU hides": (
        "gradients not finite",
        with_parameters(slice(3, None), 0, grad_norm=np.nan),
    ),
    "gradients of biases alone": (
        "dead layer",
        replace(
            stuck(),
            parameters=replace(
                HEALTHY.parameters,
                names=("head.bias", *HEALTHY.parameters.names[1:]),
                ndims=np.array([1, 4, 4]),
                grad_norm=HEALTHY.parameters.grad_norm * np.array([1, 0, 0], np.float32),
            ),
        ),
    ),
    "learned and lost": (
        "learning rate too high",
        facts(replace(HEALTHY, loss=LOST, eval_loss=LOST), loss_of_logits=LOST),
    ),
    "masks of 255": (
        "labels do not fit the loss",
        regression(
            stuck(),
            output_low=0.1,
            output_high=0.9,
            label_low=0,
            label_high=255,
            label_not_whole=0,
            label_classes=2,
            squared_error=1e4,
        ),
    ),
    "a ReLU that lets nothing through": (
        "non-linearity at the output",
        regression(stuck(), output_low=0, output_high=0),
    ),
    "several binary outputs": (
        "inputs and labels do not match",
        regression(
            replace(stuck(), loss=column(0.67)),
            outputs=4,
            label_low=0,
            label_high=1,
            label_not_whole=0,
            label_sum_low=0,
            label_sum_high=3,
            label_entropy_by_output=0.673,
            loss_of_logits=0.67,
            squared_error=9.0,
            absolute_error=9.0,
        ),
    ),
    "a loss that stops being finite": (
        "loss not finite",
        replace(without_layers(HEALTHY), loss=NAN, parameters=HEALTHY.parameters),
    ),
    "weights that are gone": (
        "weight decay too strong",
        facts(
            replace(
                stuck(),
                parameters=replace(
                    HEALTHY.parameters,
                    weight_norm=WEIGHTS[:1] * np.maximum(0.5**RISING, 1e-3 * (2 + np.sin(RISING))),
                ),
            )
        ),
    ),
}


@pytest.mark.parametrize("cause", CASES)
def test_diagnose_names_the_cause_first(cause):
    found = diagnose(CASES[cause])
    assert [finding.symptom for finding in found.findings] == [cause]


@pytest.mark.parametrize("name", FURTHER_SIGNS)
def test_diagnose_names_a_cause_by_each_of_its_signs(name):
    cause, record = FURTHER_SIGNS[name]
    assert [finding.symptom for finding in diagnose(record).findings] == [cause]


def test_a_finding_says_what_speaks_against_it_and_what_decides():
    (learned,) = diagnose(CASES["non-linearity at the output"]).findings
    # From ln 10 to 0.2, with a part left of what falls by 1 - 1/e in 40 steps.
    assert learned.against == ("the loss has come 90% of the way from guessing",)
    assert not learned.decides
    # An evaluation is wrong whether the network learns or not.
    (evaluation,) = diagnose(CASES["evaluation of other parameters"]).findings
    assert evaluation.against == ()
    noise = facts(stuck(), dropout_noise=3.1)
    (near,) = diagnose(noise).findings
    assert near.against == ("the figure is near its limit",)
    assert "without dropout" in near.decides
    assert f"against it: {near.against[0]}" in str(near)
    assert f"to be sure: {near.decides}" in str(near)
    (early,) = diagnose(CASES["inputs not finite"].between(0, 60)).findings
    assert "only 60 steps were recorded" in early.against
    (unknown,) = diagnose(replace(stuck(), facts={})).findings
    assert any("outputs are not known" in doubt for doubt in unknown.against)


def test_a_rate_that_falls_to_nothing_is_no_update_that_is_left_out():
    parameters = HEALTHY.parameters
    falling = np.where(np.arange(STEPS)[:, None] < 8, 1e-3 * WEIGHTS, 0).astype(np.float32)
    same = np.where(np.arange(STEPS)[:, None] < 8, WEIGHTS, WEIGHTS[:1] * 1.1).astype(np.float32)
    record = replace(stuck(), parameters=replace(parameters, weight_norm=same, update_norm=falling))
    found = diagnose(facts(record))
    assert found.findings[0].symptom == "learning rate too low"
    assert not {"update not applied", "parameters frozen"} & {f.symptom for f in found.findings}


def test_a_loss_by_hand_that_is_no_usual_one_is_not_compared_with_guessing():
    fixed = {"loss_by_hand": 1, "loss_of_logits": 0.7, "loss_of_probabilities": 9.0}
    assert not diagnose(facts(stuck(), **fixed)).findings
    usual = fixed | {"loss_of_logits": stuck().loss}
    (found,) = diagnose(facts(stuck(), **usual)).findings
    assert found.symptom == "inputs and labels do not match"


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(facts(HEALTHY), id="classes"),
        pytest.param(regression(HEALTHY), id="regression"),
        pytest.param(
            facts(HEALTHY, **PROBABILITIES, loss_of_logits=2.0, loss_of_probabilities=HEALTHY.loss),
            id="a loss of probabilities",
        ),
        pytest.param(facts(HEALTHY, label_low=-1), id="padding that the loss leaves out"),
        pytest.param(
            facts(replace(HEALTHY, loss=1.3 * HEALTHY.loss), loss_of_logits=HEALTHY.loss),
            id="a loss with something added",
        ),
        pytest.param(
            facts(replace(HEALTHY, loss=64 * HEALTHY.loss), loss_of_logits=HEALTHY.loss),
            id="a sum that learns",
        ),
        pytest.param(facts(DEAD_UPDATES), id="a frozen part under a network that learns"),
        pytest.param(
            facts(with_parameters(column=0, grad_norm=1e-3)), id="small gradients, but it learns"
        ),
        pytest.param(
            facts(replace(HEALTHY, loss=HEALTHY.loss + 0.9, eval_loss=HEALTHY.loss)),
            id="dropout whose noise is not there in evaluation",
        ),
        pytest.param(
            regression(
                replace(HEALTHY, loss=0.1 + 0.2 * HEALTHY.loss),
                label_low=0,
                label_high=1,
                label_entropy_by_output=0.56,
                label_entropy_of_each=0.1,
                loss_of_logits=0.1 + 0.2 * HEALTHY.loss,
                squared_error=40.0,
                absolute_error=6.0,
            ),
            id="cross entropy of fractions",
        ),
        pytest.param(
            facts(HEALTHY, loss_by_hand=1, loss_of_logits=9.0, label_low=0, label_high=0),
            id="weights that were taken for labels",
        ),
        pytest.param(
            replace(NORMED, eval_loss=np.where(np.arange(STEPS) < 100, 1.005, 1) * HEALTHY.loss),
            id="statistics that become those of the batch by and by",
        ),
    ],
)
def test_diagnose_finds_nothing_in_what_learns(record):
    assert not diagnose(record).findings


def test_readme_has_the_number_of_causes():
    names = {symptom.name for symptom in SYMPTOMS}
    text = (Path(__file__).parents[2] / "README.md").read_text()
    assert f"checks for {len(names)} causes" in text


def test_guess_is_the_entropy_of_the_labels():
    # 90 % of one class: a loss at 0.325 has learned nothing, and one at 0.03 nearly all.
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    rare = {"label_entropy": entropy, "label_classes": 2, "outputs": 2, "label_high": 1}
    hist = HEALTHY.hist.copy()
    hist[:, 1] = 0
    hist[:, 1, 0], hist[:, 1, 4] = 900, 100  # zeros and ones
    stays = replace(HEALTHY, loss=column(entropy), eval_loss=column(entropy), hist=hist)
    stays = replace(stays, over=HEALTHY.over * 0)
    found = diagnose(facts(stays, **rare)).findings
    assert [finding.symptom for finding in found] == ["inputs and labels do not match"]
    learned = replace(stays, loss=0.1 * HEALTHY.loss, eval_loss=0.1 * HEALTHY.loss)
    assert not diagnose(facts(learned, **rare)).findings


def test_the_first_steps_alone_are_no_verdict():
    short = with_parameters(column=0, grad_norm=1e-3).between(0, 5)
    assert not diagnose(short).findings
    late_start = replace(with_parameters(column=0, grad_norm=1e-3), loss=begun_late())
    assert diagnose(late_start).findings[0].symptom == "vanishing gradients"
    # More than nine tenths of the way to 0: what came late did no harm.
    assert not diagnose(replace(late_start, loss=begun_late(0.2))).findings


def test_the_nonlinearity_of_each_layer_counts():
    sleeping = np.unpackbits(HEALTHY.active, axis=1)
    first = int(HEALTHY.channels[:3].sum())
    sleeping[60:, first : first + CHANNELS] = 0
    record = replace(HEALTHY, active=np.packbits(sleeping, axis=1))
    kinds = [
        LayerKind(),
        LayerKind(),
        LayerKind("Conv", "relu"),
        LayerKind("Conv", "gelu"),
        LayerKind("Linear"),
    ]
    assert not diagnose(replace(record, kinds=tuple(kinds))).findings
    kinds[3] = LayerKind("Conv", "relu")
    assert diagnose(replace(record, kinds=tuple(kinds))).findings[0].symptom == "dead layer"


def test_a_loss_that_leaves_labels_out_is_what_shows_the_training():
    outputs_left_out = HEALTHY.loss + np.linspace(0, 4, STEPS)  # of which the loss says nothing
    masked = facts(HEALTHY, loss_of_logits=outputs_left_out)
    assert not diagnose(masked).findings
    # Outputs that get worse while a loss gets better that never was theirs: not a mask.
    apart = facts(replace(HEALTHY, loss=HEALTHY.loss - 9), loss_of_logits=outputs_left_out)
    assert diagnose(apart).findings


def test_gradients_after_updates_that_destroyed_the_network_do_not_vanish():
    small = replace(with_parameters(column=0, grad_norm=1e-3), loss=begun_late())
    assert diagnose(small).findings[0].symptom == "vanishing gradients"
    loss = small.loss.copy()
    loss[1:] *= 3  # from the first update on
    assert "vanishing gradients" not in names(diagnose(replace(small, loss=loss)))


def test_losses_that_are_given_and_not_finite_are_found_where_nothing_else_is_recorded():
    recorder = Recorder()
    for _ in range(3):
        recorder.add(np.nan)
    assert names(diagnose(recorder.record())) == ["non-finite"]


def names(diagnosis):
    return [finding.symptom for finding in (*diagnosis.findings, *diagnosis.consequences)]


def test_parts_that_do_not_learn_are_found_by_zero_gradients_too():
    # AdamW's decay still changes the weights.
    detached = replace(with_parameters(column=1, grad_norm=0, update_norm=1e-4), loss=SLOW.loss)
    finding = next(
        f for f in diagnose(facts(detached)).findings if f.symptom == "parameters frozen"
    )
    assert finding.where == "conv2.kernel"


def test_layers_that_the_optimiser_has_no_parameters_of_are_frozen():
    kinds = (LayerKind(), LayerKind(), *[LayerKind("Conv", "relu")] * 2, LayerKind("Linear"))
    given = HEALTHY.parameters
    head = {"names": given.names[2:], "sizes": given.sizes[2:], "ndims": given.ndims[2:]}
    columns = ("weight_norm", "grad_norm", "update_norm", "grad_hist", "update_hist")
    head |= {name: getattr(given, name)[:, 2:] for name in columns}
    record = replace(HEALTHY, kinds=kinds, parameters=replace(given, **head))
    slow = facts(replace(record, loss=SLOW.loss))
    finding = next(f for f in diagnose(slow).findings if f.symptom == "parameters frozen")
    assert (finding.where, round(finding.figure, 3)) == ("conv1", 0.667)
    # A backbone that is frozen on purpose, under a head that learns.
    assert not diagnose(facts(record)).findings
