"""Trainings for comparisons, run one at a time and several at once, each in its own folder."""

from dataclasses import replace

import numpy as np
import pytest

from convjax.chapter.setting import BATCH_NORM, ONE_CYCLE
from convjax.runs.run import load_run
from convjax.stats.record import PER_STEP
from experiments.harness.lab import Lab
from tests.experiments.harness.test_lab import quick_lab
from tests.train.fits import untimed

# Two programs: rates and schedules share one; another batch size or norm needs another.
SETTINGS = [
    *(replace(ONE_CYCLE, lr_max=rate) for rate in (0.01, 0.03)),
    replace(ONE_CYCLE, schedule="linear"),
    replace(ONE_CYCLE, batch_size=64, epochs=2, scores=2),
]


def finished(out, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convjax.train.program_memory.RUNS_ON_CPU", at_once)
        lab = quick_lab(out)
        lab.sweep(SETTINGS)
    return lab


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A lab that trained one run at a time."""
    return finished(tmp_path_factory.mktemp("alone"), 1)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A lab that trained six runs as two groups of three, and two runs as one group."""
    return finished(tmp_path_factory.mktemp("together"), 4)


def files(lab):
    return sorted(path.relative_to(lab.out) for path in lab.out.rglob("*") if path.is_file())


def folder(lab, setting, seed):
    return lab.out / "runs" / "comparisons" / setting.slug / f"seed-{seed}"


@pytest.mark.parametrize("setting", [SETTINGS[0], SETTINGS[3]])
def test_grouped_trainings_alone_equal_fit_bit_for_bit(alone, setting):
    outcome, wanted = alone.outcomes(setting)[1], alone.fit(setting, 1, watch=None)
    assert untimed(outcome.metrics) == untimed(wanted.metrics)
    assert outcome.train_accuracy == wanted.train_accuracy
    saved = load_run(folder(alone, setting, 1))
    assert saved.metrics == outcome.metrics
    for name in PER_STEP:
        np.testing.assert_array_equal(
            getattr(saved.record, name), getattr(wanted.record, name), name
        )


def test_grouped_trainings_together_equal_single_runs_up_to_rounding(alone, together):
    assert files(alone) == files(together)
    assert len(files(alone)) == 2 * len(SETTINGS) * len(("config", "metrics", "record"))
    for settings in zip(alone.sweep(SETTINGS), together.sweep(SETTINGS), strict=True):
        for wanted, found in zip(*settings, strict=True):
            assert (found.setting, found.seed) == (wanted.setting, wanted.seed)
            runs = [load_run(folder(lab, found.setting, found.seed)) for lab in (alone, together)]
            assert runs[0].config == runs[1].config
            for name in ("loss", "learning_rate", "momentum"):
                # Three steps each in float32, whose sums are in another order.
                columns = [getattr(run.record, name) for run in runs]
                np.testing.assert_allclose(*columns, rtol=1e-3, err_msg=name)
            assert found.metrics == runs[1].metrics
            for rows in zip(wanted.metrics, found.metrics, strict=True):
                assert list(rows[0]) == list(rows[1])
                for name in ("epoch", "step"):
                    assert rows[0][name] == rows[1][name]
                assert rows[0]["train_loss"] == pytest.approx(rows[1]["train_loss"], rel=1e-3)


def test_grouped_trainings_notify_the_observer_of_each_once(alone, together):
    wanted = [(setting, seed) for setting in SETTINGS for seed in (0, 1)]
    assert alone.observer.unwatched == together.observer.unwatched == wanted


def test_grouped_trainings_resume_with_the_missing_run_alone(together):
    # The folders of a sweep that was stopped: one lacks its record, which is written last.
    path = folder(together, SETTINGS[1], 0)
    before = load_run(path).record
    (path / "record.npz").unlink()
    again = quick_lab(together.out, resume=True)
    again.sweep(SETTINGS)
    assert again.observer.unwatched == [(SETTINGS[1], 0)]
    # It ran beside others before.
    np.testing.assert_allclose(load_run(path).record.loss, before.loss, rtol=1e-3)


def test_grouped_trainings_save_each_run_when_it_ends(tmp_path):
    lab = quick_lab(tmp_path)
    ended = []

    def trained(metrics):
        ended.append(files(lab))
        if len(ended) == 2:
            raise KeyboardInterrupt

    lab.observer.trained = trained
    with pytest.raises(KeyboardInterrupt):
        lab.sweep(SETTINGS[:2])
    assert [len(of_run) for of_run in ended] == [3, 6]
    again = quick_lab(tmp_path, resume=True)
    again.sweep(SETTINGS[:2])
    assert again.observer.unwatched == [(SETTINGS[1], 0), (SETTINGS[1], 1)]


def test_grouped_trainings_return_several_structures_in_the_order_of_the_settings(tmp_path):
    lab = Lab(out=tmp_path, quick=True)
    settings = [ONE_CYCLE, BATCH_NORM, replace(ONE_CYCLE, lr_max=0.01), ONE_CYCLE]
    found = lab.sweep(settings, seeds=[3])
    assert [of_seeds[0].setting for of_seeds in found] == settings
    assert {of_seeds[0].seed for of_seeds in found} == {3}
    assert found[0] == found[3] == lab.outcomes(ONE_CYCLE, [3])
