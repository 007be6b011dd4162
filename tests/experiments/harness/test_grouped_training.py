"""Comparisons side by side come to what they come to one after the other, each in its folder."""

from dataclasses import replace

import numpy as np
import pytest

from convjax.runs.run import load_run
from experiments.harness.lab import Lab
from experiments.harness.setting import BATCH_NORM, ONE_CYCLE
from tests.experiments.harness.test_lab import quick_lab

RATES = (0.01, 0.03, 0.06)
# Two programs: rates and schedules share one, another size of batches or another norm does not.
SETTINGS = [
    *(replace(ONE_CYCLE, lr_max=rate) for rate in RATES[:2]),
    replace(ONE_CYCLE, schedule="linear"),
    replace(ONE_CYCLE, batch_size=64, epochs=2, scores=2),
]


def finished(out, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convjax.train._sweep.ON_CPU", at_once)
        lab = quick_lab(out)
        lab.sweep(SETTINGS)
    return lab


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("alone"), 1)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Six runs as two groups of three, and two as one."""
    return finished(tmp_path_factory.mktemp("together"), 4)


def files(lab):
    return sorted(path.relative_to(lab.out) for path in lab.out.rglob("*") if path.is_file())


def test_figures_and_folders_are_those_of_single_runs(alone, together):
    assert files(alone) == files(together)
    assert len(files(alone)) == 2 * len(SETTINGS) * len(("config", "metrics", "record"))
    for settings in zip(alone.sweep(SETTINGS), together.sweep(SETTINGS), strict=True):
        for wanted, found in zip(*settings, strict=True):
            assert (found.setting, found.seed) == (wanted.setting, wanted.seed)
            path = f"runs/comparisons/{found.setting.slug}/seed-{found.seed}"
            runs = [load_run(lab.out / path) for lab in (alone, together)]
            assert runs[0].config == runs[1].config
            for name in ("loss", "learning_rate", "momentum"):
                # Three steps each in float32, whose sums run in another order.
                columns = [getattr(run.record, name) for run in runs]
                np.testing.assert_allclose(*columns, rtol=1e-3, err_msg=name)
            assert found.metrics == runs[1].metrics
            for rows in zip(wanted.metrics, found.metrics, strict=True):
                assert list(rows[0]) == list(rows[1])
                for name in ("epoch", "step"):
                    assert rows[0][name] == rows[1][name]
                assert rows[0]["train_loss"] == pytest.approx(rows[1]["train_loss"], rel=1e-3)


def test_a_run_alone_is_that_of_the_trainer(alone):
    setting = SETTINGS[0]
    trainer, material = alone.trainer(setting), alone.device_dataset(setting)
    steps = alone.steps(setting, 1)
    state, record = trainer.run(
        trainer.start(alone.network(setting, 1)),
        material.train,
        alone.order(setting, 1, 0),
        setting.table(steps),
    )
    outcome = alone.outcomes(setting)[1]
    kept = load_run(alone.out / "runs/comparisons" / setting.slug / "seed-1").record
    np.testing.assert_array_equal(kept.loss, record.loss)
    assert outcome.accuracy == trainer.evaluate(state, material.test).accuracy
    assert outcome.train_accuracy == trainer.evaluate(state, material.train).accuracy
    assert outcome.metrics[-1]["train_loss"] == float(record.smoothed_loss()[-1])


def test_every_training_is_told_of_once(alone, together):
    wanted = [(setting, seed) for setting in SETTINGS for seed in (0, 1)]
    assert alone.observer.unwatched == together.observer.unwatched == wanted


def test_what_lacks_alone_is_run_again(together):
    # The folders of a sweep that was stopped: one has no record, which is written last.
    path = together.out / "runs" / "comparisons" / SETTINGS[1].slug / "seed-0"
    before = load_run(path).record
    (path / "record.npz").unlink()
    again = quick_lab(together.out, resume=True)
    again.sweep(SETTINGS)
    assert again.observer.unwatched == [(SETTINGS[1], 0)]
    # Alone now, and before beside others.
    np.testing.assert_allclose(load_run(path).record.loss, before.loss, rtol=1e-3)


def test_settings_of_several_structures_come_back_in_their_order(tmp_path):
    lab = Lab(out=tmp_path, quick=True)
    settings = [ONE_CYCLE, BATCH_NORM, replace(ONE_CYCLE, lr_max=0.01), ONE_CYCLE]
    found = lab.sweep(settings, seeds=[3])
    assert [of_seeds[0].setting for of_seeds in found] == settings
    assert {of_seeds[0].seed for of_seeds in found} == {3}
    assert found[0] == found[3] == lab.outcomes(ONE_CYCLE, [3])
