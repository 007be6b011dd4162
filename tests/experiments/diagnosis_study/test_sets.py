"""The command of the reported faults and healthy trainings, and its tables, by hand."""

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from convjax.stats.recorder import Recorder
from experiments.cli.app import app
from experiments.diagnosis_study import sets
from experiments.diagnosis_study.sets import SetTraining, loss_reading, said_of, trainings
from experiments.diagnosis_study.sets_report import sets_tables
from experiments.diagnosis_study.user_loops import Trained


def record_of(losses):
    recorder = Recorder()
    for loss in losses:
        recorder.add(float(loss))
    return recorder.record()


def row(of, truth, said, *, part="measured", name="a", reached=0.5, bar=0.4, **others):
    return {
        "of": of,
        "part": part,
        "name": name,
        "truth": truth,
        "findings": said,
        "consequences": [],
        "reached": reached,
        "bar": bar,
        "rules": [],
        "curve": "falls",
        "source": "https://example.org",
        **others,
    }


ROWS = [
    row("reported", "dead layer", ["dead layer"], name="a", reached=0.1, rules=["DeadRelu"]),
    row("reported", "dead layer", ["saturation"], name="b", consequences=["dead layer"]),
    row("reported", "learning rate too low", ["learning rate too high"], name="c"),
    row("reported", "dead layer", [], name="d", part="further", curve="does not fall"),
    row("control", "", [], name="a", reached=0.9),
    row("control", "", ["collapse"], name="b", reached=0.9),
    row("healthy", "", [], name="e"),
    row("healthy", "", ["collapse"], name="f"),
    row("healthy", "", ["collapse"], name="h", reached=None),
    row("healthy", "", ["collapse"], name="g", reached=0.3),  # not shown to be healthy
]


def cells(table, first):
    line = next(line for line in table.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_sets_tables_count_by_part():
    bars, beside, by_cause, confusion, wrong, sources = sets_tables(ROWS)
    none, measured, further, last = cells(bars, "cause first")[2:]
    assert none == "none"
    assert measured.startswith("0.333")
    assert further.startswith("0.000")
    assert last == "none"
    assert cells(bars, "cause among the first three")[3].startswith("0.667")
    assert cells(bars, "healthy without a finding")[3].startswith("0.500")
    assert cells(bars, "controls without a finding")[3].startswith("0.500")
    assert cells(bars, "advice opposite to the truth, trainings")[2:] == ["0", "1", "0", "0"]
    assert [c[:5] for c in cells(beside, "convjax.diagnose")[1:]] == ["0.500", "0.750", "0.500"]
    assert [c[:5] for c in cells(beside, "rules of SageMaker Debugger")[1:3]] == ["0.250", "0.250"]
    assert [c[:5] for c in cells(beside, "the loss alone")[1:3]] == ["0.000", "0.250"]
    dead = cells(by_cause, "dead layer")
    assert [dead[1][:5], dead[2][:5], dead[3]] == ["0.333", "1.000", "1, 1"]
    assert dead[5] == "0.10 → 0.90, better in 1 of 1"
    assert cells(confusion, "learning rate too low") == [
        "learning rate too low",
        "learning rate too high",
        "1",
    ]
    assert len(wrong.splitlines()) == 2 + 5
    assert cells(sources, "d")[3] == "nothing"


@pytest.mark.parametrize(
    ("losses", "reading"),
    [
        (np.linspace(2, 1, 50), "falls"),
        (np.linspace(2, 1.9, 50), "does not fall"),
        (np.linspace(1, 2, 50), "rises"),
        (np.append(np.ones(20), np.nan), "not finite"),
        (np.linspace(-1, -2, 50), "falls"),
    ],
)
def test_loss_reading_is_that_of_the_curve(losses, reading):
    assert loss_reading(record_of(losses)) == reading


def test_said_of_runs_a_training_once_if_its_record_is_kept(tmp_path, monkeypatch):
    seeds = []

    def train(seed):
        seeds.append(seed)
        return Trained(record_of([2.0, np.nan, np.nan]), 0.25)

    one = SetTraining("a, b/c", "set", train, "loss not finite", 0.5, {}, "https://example.org")
    monkeypatch.setattr(sets, "trainings", lambda of: iter([one]))
    first, second = (said_of("healthy", 0, tmp_path) for _ in range(2))
    assert first == second
    assert seeds == [20_000]
    assert first["findings"] == ("non-finite",)
    assert first["curve"] == "not finite"
    assert first["reached"] == 0.25
    said_of("reported", 0)
    assert seeds == [20_000, 0]
    nothing = one._replace(name="b", train=lambda seed: Trained(record_of([1.0]), math.nan))
    monkeypatch.setattr(sets, "trainings", lambda of: iter([nothing]))
    assert said_of("reported", 0, tmp_path)["reached"] is None


def test_trainings_have_sources_and_parts():
    reported, controls = list(trainings("reported")), list(trainings("control"))
    assert len(reported) >= 60
    assert {each.part for each in reported} == {"set", "measured", "further", "last"}
    assert all(each.source.startswith("http") and each.truth for each in reported)
    assert [each.name for each in reported] == [each.name for each in controls]
    assert not any(each.truth for each in controls)
    healthy = list(trainings("healthy"))
    assert len(healthy) >= 300


@pytest.mark.slow
def test_diagnosis_sets_writes_the_rows_of_all_sets(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "TRAININGS_OF_PROCESS", 3)  # several pools
    out = tmp_path / "sets.json"
    command = ["diagnosis-sets", "--quick", "--records", str(tmp_path / "records")]
    done = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert done.exit_code == 0, done.output
    rows = json.loads(out.read_text())["diagnosed"]
    assert {each["of"] for each in rows} == {"reported", "control", "healthy"}
    assert len(list((tmp_path / "records").glob("*.npz"))) == len(rows)
    assert CliRunner().invoke(app, ["table", str(out)]).exit_code == 0
