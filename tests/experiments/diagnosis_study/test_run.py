"""The study's trainings, the rules of SageMaker Debugger, the tables, and a small run."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from convjax.diagnosis.symptoms import SYMPTOMS
from experiments.cli.app import app
from experiments.diagnosis_study.faults import FAULTS, SUGGESTED_CHANGES, TrainingSpec
from experiments.diagnosis_study.report import (
    by_strength,
    by_symptom,
    confusion,
    targets_table,
)
from experiments.diagnosis_study.results import DiagnosisResult
from experiments.diagnosis_study.run import measure_diagnosis
from experiments.diagnosis_study.sagemaker_rules import RULE_SYMPTOMS, fired_rules
from experiments.diagnosis_study.suite import HEALTHY, PARTS, cases
from experiments.diagnosis_study.train import StudyTrainer, table
from tests.diagnosis.test_diagnose import CASES
from tests.diagnosis.test_diagnose import HEALTHY as HEALTHY_RECORD


def row(fault, *findings, part="measured", rules=(), accuracy=0.5, cured=None):
    return DiagnosisResult(part, fault, {}, accuracy, list(findings), 10, [], list(rules), cured)


# --- suite and faults ---------------------------------------------------------------------------


def test_cases_has_disjoint_parts_of_the_documented_size():
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
    assert not any(TrainingSpec(name, 0).network.new for name in known)
    assert {case.plan.architecture for case in second} > known


def test_cases_weakens_the_faults_that_are_factors():
    whole = [case.plan.sleep for case in cases("measured") if case.plan.sleep]
    half, quarter = cases("half"), cases("quarter")
    assert len(half) == len(quarter) == 132
    assert {case.fault for case in half} == {
        *("large weights, tanh", "large weights", "small weights", "high rate", "sleeping layer"),
        "low rate",
    }
    for case in half:
        assert 0.02**0.5 <= case.plan.gain <= 20**0.5
        assert 1e-4**0.5 <= case.plan.rate <= 300**0.5
        assert -15 <= case.plan.sleep <= 0
    assert [2 * case.plan.sleep for case in half if case.plan.sleep] == whole
    seeds = {case.plan.seed for part in (*PARTS, "half", "quarter") for case in cases(part)}
    assert len(seeds) == 844 + 264  # as the command's help says


def test_by_strength_counts_each_part():
    rows = [
        row("low rate", "learning rate too low", accuracy=0.1),
        row("low rate", "learning rate too low", part="half", accuracy=0.5),
        row("low rate", part="half", accuracy=0.9),
        row("low rate", part="quarter", accuracy=0.95),
        row("outliers", "exploding gradients"),
    ]
    *_, line = by_strength(rows).splitlines()
    assert line == "| low rate | 1 of 1, 0.10 | 1 of 2, 0.70 | 0 of 1, 0.95 |"


def test_cases_gives_healthy_trainings_all_options_on_every_architecture():
    plans = [case.plan for case in cases("measured") if case.fault == HEALTHY]
    options = {(plan.schedule, plan.batch_size, plan.rate) for plan in plans}
    assert len(options) == 8
    assert min(Counter(plan.architecture for plan in plans).values()) >= 10


def test_faults_cover_every_symptom_with_a_suggested_change():
    names = {symptom.name for symptom in SYMPTOMS}
    assert {fault.symptom for fault in FAULTS.values()} == set(SUGGESTED_CHANGES) <= names
    assert {name for symptoms in RULE_SYMPTOMS.values() for name in symptoms} <= names


@pytest.mark.parametrize("name", FAULTS)
def test_fault_and_suggested_change_change_the_plan(name):
    fault = FAULTS[name]
    plan = TrainingSpec("tanh" if name.endswith(("tanh", "sigmoids")) else "mlp", 0)
    faulty = fault.inject(plan, np.random.default_rng(0))
    assert faulty != plan
    assert SUGGESTED_CHANGES[fault.symptom](faulty) != faulty


def test_table_has_bursts_at_the_end_of_each_period():
    rates = np.asarray(table(TrainingSpec("cnn", 0, schedule="bursts"))["learning_rate"])
    high = np.flatnonzero(rates > 0.01)
    assert high[:8].tolist() == list(range(58, 66))
    assert rates[0] == pytest.approx(3e-3)


def test_study_trainer_labels_marks_few_examples():
    study = StudyTrainer()
    labels = study.labels(TrainingSpec("mlp", 1, bad=2))
    assert 0 < np.mean(labels >= 20) < 0.01
    np.testing.assert_array_equal(labels % 10, study.dataset.train.labels)


# --- rules and tables ---------------------------------------------------------------------------


def test_fired_rules_by_hand():
    def rules(name):
        return fired_rules(CASES[name][0], "relu")

    def norms(**factors):
        parameters = HEALTHY_RECORD.parameters
        changed = {name: getattr(parameters, name) * factor for name, factor in factors.items()}
        return replace(HEALTHY_RECORD, parameters=replace(parameters, **changed))

    counts = HEALTHY_RECORD.parameters.grad_hist.copy()
    counts[..., 30] = 100  # all of 2^-5
    healthy = replace(
        HEALTHY_RECORD, parameters=replace(HEALTHY_RECORD.parameters, grad_hist=counts)
    )
    assert fired_rules(healthy, "relu") == set()
    assert fired_rules(HEALTHY_RECORD, "relu") == set()  # no counts: all are NaN
    zeros = np.zeros_like(counts)
    zeros[..., 0] = 100
    small = replace(HEALTHY_RECORD.parameters, grad_hist=zeros)
    assert fired_rules(replace(HEALTHY_RECORD, parameters=small), "relu") == {"VanishingGradient"}
    assert "ExplodingTensor" in rules("loss not finite")
    assert "WeightUpdateRatio" in fired_rules(norms(update_norm=2000), "relu")
    assert "WeightUpdateRatio" in fired_rules(norms(update_norm=1e-7), "relu")
    assert {"PoorWeightInitialization", "AllZero"} <= rules("zero weights")
    # Inactive from step 60 of 200 on, so active in more than 1 % of the steps.
    assert "DeadRelu" not in rules("dead layer")
    inactive = replace(HEALTHY_RECORD, active=HEALTHY_RECORD.active * 0)
    assert "DeadRelu" in fired_rules(inactive, "relu")
    assert "DeadRelu" not in fired_rules(inactive, "tanh")


def test_targets_table_by_hand():
    rows = [
        row("zero weights", "zero weights", rules=["PoorWeightInitialization"]),
        row("zero weights", "dead layer", "zero weights"),
        row("low rate"),
        row(HEALTHY, rules=["DeadRelu"]),
        row(HEALTHY, "collapse"),
    ]
    recall, precision, healthy = targets_table(rows).splitlines()[2:5]
    # 2 of 3 faults; 2 of 4 findings; one of two healthy trainings. The rules: 1 of 3, 1 of 2, 1.
    assert "| recall | 0.95 | 0.667 (" in recall
    assert "| 0.333 (" in recall
    assert "| precision | 0.95 | 0.500 (" in precision
    assert "| 0.500 (" in precision.split("|")[4] + "|" + precision.split("|", 4)[4]
    assert healthy.count("0.500 (") == 2
    assert "0.500 false alarms per healthy training" in targets_table(rows)


def test_confusion_counts_the_first_finding():
    rows = [row("zero weights", "dead layer", "zero weights"), row(HEALTHY), row(HEALTHY)]
    lines = confusion(rows).splitlines()
    names = ["zero weights", "dead layer", HEALTHY]  # others do not occur
    (zero,) = (line for line in lines if "zero weights" in line)
    assert zero.split("|")[2:-1].index(" 1 ") == names.index("dead layer")
    assert lines[-3].endswith("| 2 |")


def test_by_symptom_compares_the_suggested_change_with_the_training_before():
    rows = [
        row("zero weights", "zero weights", accuracy=0.1, cured=0.9),
        row("zero weights", "zero weights", accuracy=0.5, cured=0.5),
    ]
    assert "0.30 → 0.70, better in 1 of 2" in by_symptom(rows)
    assert "not tried" in by_symptom([row("zero weights", "zero weights")])


@pytest.mark.slow
def test_measure_diagnosis_runs_diagnoses_and_repeats_trainings():
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
            # Gradients of biases alone show a sleeping layer before its units have slept long.
            assert found.steps == 10
            assert found.cured > found.accuracy


def test_diagnosis_command_rejects_an_existing_file(tmp_path):
    out = tmp_path / "diagnosis.json"
    out.write_text("mine")
    result = CliRunner().invoke(app, ["diagnosis", "--out", str(out)])
    assert result.exit_code == 2
    assert "must be a new file" in result.stderr
    assert out.read_text() == "mine"
