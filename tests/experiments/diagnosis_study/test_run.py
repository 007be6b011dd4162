"""The set of planted faults, the rules beside, the tables, and a small run of everything."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from convjax.diagnosis.symptoms import SYMPTOMS
from experiments.cli.app import app
from experiments.diagnosis_study.faults import CURES, FAULTS, TrainingSpec
from experiments.diagnosis_study.report import bars, by_symptom, confusion
from experiments.diagnosis_study.results import DiagnosisResult
from experiments.diagnosis_study.run import measure_diagnosis
from experiments.diagnosis_study.sagemaker_rules import MEANING, fired
from experiments.diagnosis_study.suite import HEALTHY, PARTS, cases
from experiments.diagnosis_study.train import StudyTrainer, table
from tests.diagnosis.test_diagnose import CASES
from tests.diagnosis.test_diagnose import HEALTHY as HEALTHY_RECORD


def row(fault, *findings, part="measured", rules=(), accuracy=0.5, cured=None):
    return DiagnosisResult(part, fault, {}, accuracy, list(findings), 10, [], list(rules), cured)


# --- the set ------------------------------------------------------------------------------------


def test_the_set_is_large_enough_and_split():
    first, second = (cases(part) for part in PARTS)
    assert len(first) + len(second) == 844  # as the README and the command's help say
    healthy = [sum(case.fault == HEALTHY for case in part) for part in (first, second)]
    assert sum(healthy) >= (len(first) + len(second)) / 3
    assert healthy[1] >= 150
    faults = Counter(case.fault for case in second)
    assert min(faults[name] for name in FAULTS) >= 20
    seeds = [{case.plan.seed for case in part} for part in (first, second)]
    assert not seeds[0] & seeds[1]
    assert len(seeds[1]) == len(second)
    known = {case.plan.architecture for case in first}
    assert not any(TrainingSpec(name, 0).of.new for name in known)
    assert {case.plan.architecture for case in second} > known


def test_healthy_trainings_look_odd_in_every_way_on_every_architecture():
    plans = [case.plan for case in cases("measured") if case.fault == HEALTHY]
    looks = {(plan.schedule, plan.batch_size, plan.rate) for plan in plans}
    assert len(looks) == 8
    seen = Counter(plan.architecture for plan in plans)
    assert min(seen.values()) >= 10


def test_every_symptom_is_planted_and_has_a_cure():
    names = {symptom.name for symptom in SYMPTOMS}
    assert {fault.symptom for fault in FAULTS.values()} == names == set(CURES)
    assert {name for meant in MEANING.values() for name in meant} <= names


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_changes_the_plan_and_its_cure_changes_it_back(name):
    fault, plan = (
        FAULTS[name],
        TrainingSpec("tanh" if name.endswith(("tanh", "sigmoids")) else "mlp", 0),
    )
    planted = fault.plant(plan, np.random.default_rng(0))
    assert planted != plan
    assert CURES[fault.symptom](planted) != planted


def test_bursts_come_late_in_each_period():
    rates = np.asarray(table(TrainingSpec("cnn", 0, schedule="bursts"))["learning_rate"])
    high = np.flatnonzero(rates > 0.01)
    assert high[:8].tolist() == list(range(58, 66))
    assert rates[0] == pytest.approx(3e-3)


def test_marked_labels_are_few():
    bench = StudyTrainer()
    labels = bench.labels(TrainingSpec("mlp", 1, bad=2))
    assert 0 < np.mean(labels >= 20) < 0.01
    np.testing.assert_array_equal(labels % 10, bench.dataset.train.labels)


# --- rules and tables ---------------------------------------------------------------------------


def test_the_rules_of_the_debugger():
    def rules(name):
        return fired(CASES[name][0], "relu")

    def norms(**factors):
        parameters = HEALTHY_RECORD.parameters
        changed = {name: getattr(parameters, name) * factor for name, factor in factors.items()}
        return replace(HEALTHY_RECORD, parameters=replace(parameters, **changed))

    counts = HEALTHY_RECORD.parameters.grad_hist.copy()
    counts[..., 30] = 100  # all of 2^-5
    healthy = replace(
        HEALTHY_RECORD, parameters=replace(HEALTHY_RECORD.parameters, grad_hist=counts)
    )
    assert fired(healthy, "relu") == set()
    assert fired(HEALTHY_RECORD, "relu") == set()  # no count: all are NaN
    zeros = np.zeros_like(counts)
    zeros[..., 0] = 100
    small = replace(HEALTHY_RECORD.parameters, grad_hist=zeros)
    assert fired(replace(HEALTHY_RECORD, parameters=small), "relu") == {"VanishingGradient"}
    assert "ExplodingTensor" in rules("non-finite")
    assert "WeightUpdateRatio" in fired(norms(update_norm=2000), "relu")
    assert "WeightUpdateRatio" in fired(norms(update_norm=1e-7), "relu")
    assert {"PoorWeightInitialization", "AllZero"} <= rules("zero weights")
    # Asleep from the 60th of 200 steps on: active in more than 1 % of them.
    assert "DeadRelu" not in rules("dead layer")
    asleep = replace(HEALTHY_RECORD, active=HEALTHY_RECORD.active * 0)
    assert "DeadRelu" in fired(asleep, "relu")
    assert "DeadRelu" not in fired(asleep, "tanh")


def test_bars_by_hand():
    rows = [
        row("zero weights", "zero weights", rules=["PoorWeightInitialization"]),
        row("zero weights", "dead layer", "zero weights"),
        row("low rate"),
        row(HEALTHY, rules=["DeadRelu"]),
        row(HEALTHY, "collapse"),
    ]
    recall, precision, healthy = bars(rows).splitlines()[2:5]
    # 2 of 3 faults; 2 of 4 findings; one of two healthy trainings. The rules: 1 of 3, 1 of 2, 1.
    assert "| recall | 0.95 | 0.667 (" in recall
    assert "| 0.333 (" in recall
    assert "| precision | 0.95 | 0.500 (" in precision
    assert "| 0.500 (" in precision.split("|")[4] + "|" + precision.split("|", 4)[4]
    assert healthy.count("0.500 (") == 2
    assert "0.500 false alarms per healthy training" in bars(rows)


def test_the_confusion_table_counts_the_first_finding():
    rows = [row("zero weights", "dead layer", "zero weights"), row(HEALTHY), row(HEALTHY)]
    lines = confusion(rows).splitlines()
    names = [symptom.name for symptom in SYMPTOMS]
    (zero,) = (line for line in lines if "zero weights" in line)
    assert zero.split("|")[2:-1].index(" 1 ") == names.index("dead layer")
    assert lines[-3].endswith("| 2 |")


def test_advice_is_compared_with_the_training_before():
    rows = [
        row("zero weights", "zero weights", accuracy=0.1, cured=0.9),
        row("zero weights", "zero weights", accuracy=0.5, cured=0.5),
    ]
    assert "0.30 → 0.70, better in 1 of 2" in by_symptom(rows)
    assert "not tried" in by_symptom(rows)


def test_trainings_are_run_diagnosed_and_cured():
    chosen = [
        case
        for case in cases(PARTS[1], quick=True)
        if case.fault in ("zero weights", "sleeping layer", HEALTHY)
    ]
    done = []
    rows = {row.plan["seed"]: row for row in measure_diagnosis(chosen, lambda: done.append(1))}
    assert len(done) == len(rows) == len(chosen) == 4
    for case in chosen:
        found = rows[case.plan.seed]
        if case.fault == HEALTHY:
            assert (found.findings, found.steps, found.cured) == ([], None, None)
        else:
            assert found.findings == [found.symptom]
            assert found.steps == (10 if case.fault == "zero weights" else 50)
            assert found.cured > found.accuracy


def test_nothing_is_overwritten(tmp_path):
    out = tmp_path / "diagnosis.json"
    out.write_text("mine")
    result = CliRunner().invoke(app, ["diagnosis", "--out", str(out)])
    assert result.exit_code == 2
    assert "must be a new file" in result.stderr
    assert out.read_text() == "mine"
