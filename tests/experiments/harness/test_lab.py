import shutil
from dataclasses import replace

import numpy as np
import pytest

from convjax.chapter import training_plots
from convjax.chapter.colour_encodings import encode
from convjax.chapter.observer import Observer
from convjax.chapter.setting import BATCH_512, BATCH_NORM, ONE_CYCLE, THREE_OR_SEVEN, Setting
from convjax.chapter.tinted_digits import coloured
from convjax.chapter.training import Training
from convjax.plots import new_figure
from convjax.runs.config import RunError
from convjax.runs.run import load_run
from experiments.harness.lab import Lab

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)


class Counter(Observer):
    """Records the trainings, watched and unwatched ones separately."""

    def __init__(self):
        self.watched, self.unwatched, self.networks = [], [], []

    def network(self, summary):
        self.networks.append(summary)

    def training(self, setting, seed, steps, *, watched):
        (self.watched if watched else self.unwatched).append((setting, seed))


def quick_lab(out, **options):
    return Lab(out=out, quick=True, seeds=2, observer=Counter(), **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A lab that has run trainings of both kinds."""
    lab = quick_lab(tmp_path_factory.mktemp("lab"))
    lab.train(BATCH_NORM)
    lab.outcomes(ONE_CYCLE)
    return lab


@pytest.fixture
def again(finished, tmp_path):
    """A lab that resumes a copy of that folder."""
    shutil.copytree(finished.out, tmp_path / "out")
    return quick_lab(tmp_path / "out", resume=True)


def test_lab_train_writes_the_configuration(finished):
    config = load_run(finished.out / "runs" / BATCH_NORM.slug / "seed-1").config
    assert Setting(**config["setting"]) == BATCH_NORM
    assert (config["seed"], config["data"]) == (1, "mnist5k")
    pixels = finished.dataset.train.images / 255
    assert config["mean"] == pytest.approx([pixels.mean()])
    assert config["std"] == pytest.approx([pixels.std()], rel=1e-3)


def test_lab_with_seeds_shares_trainings_and_has_pictures_of_its_own(tmp_path):
    lab = quick_lab(tmp_path)
    one, three = lab.with_seeds(1), lab.with_seeds(3)
    assert (one.seeds, three.seeds, lab.seeds) == ((0,), (0, 1, 2), (0, 1))
    assert three.dataset is lab.dataset
    first = one.train(ONE_CYCLE)[0]
    assert [training.seed for training in three.train(ONE_CYCLE)] == [0, 1, 2]
    assert three.train(ONE_CYCLE)[0] is first
    three.outcomes(ONE_CYCLE, [0, 1])
    one.outcomes(ONE_CYCLE)
    assert [seed for _, seed in lab.observer.watched] == [0, 1, 2]
    assert [seed for _, seed in lab.observer.unwatched] == [0, 1]
    assert len(lab.observer.networks) == 1
    three.picture("drawn", new_figure(1, 1))
    assert (three.pictures, one.pictures, lab.pictures) == (["drawn"], [], [])


def test_session_normalises_each_encoding_by_itself(tmp_path):
    lab = quick_lab(tmp_path)
    tinted = coloured(lab.dataset)
    for encoding in ("rgb", "hsv", "grey"):
        setting = replace(BATCH_NORM, encoding=encoding)
        wanted = encode(tinted.train.images, encoding)
        material = lab.device_dataset(setting)
        np.testing.assert_array_equal(material.dataset.train.images, wanted)
        assert lab.device_dataset(replace(setting, lr_max=1.0)) is material
        config = lab.run_config(setting, 0)
        # float32 sums over ten million pixels.
        np.testing.assert_allclose(config["mean"], wanted.mean((0, 1, 2)) / 255, rtol=1e-4)
        np.testing.assert_allclose(config["std"], wanted.std((0, 1, 2)) / 255, rtol=1e-4)
        assert lab.network(setting, 0).blocks[0].conv.kernel.size == 5 * 5 * 3 * 8
    assert lab.device_dataset(BATCH_NORM).dataset is lab.dataset
    assert lab.device_dataset(THREE_OR_SEVEN).dataset.class_names == ("3", "7")
    assert lab.run_config(THREE_OR_SEVEN, 0)["mean"] == [0.0]


def test_session_names_a_folder_without_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()
    assert Lab("./mnist", out=tmp_path).data == Lab(str(tmp_path / "mnist"), out=tmp_path).data
    assert Lab("./mnist", out=tmp_path).data == "mnist/"  # not the data set
    assert Lab("mnist", out=tmp_path).data == "mnist"


def test_lab_train_smooths_the_loss_across_epochs(tmp_path):
    lab = Lab(out=tmp_path, quick=True)
    (training,) = lab.train(THREE_OR_SEVEN)
    assert len(training.metrics) == 2
    smoothed = training.record.smoothed_loss()
    for row in training.metrics:
        assert row["train_loss"] == pytest.approx(smoothed[row["step"] - 1])
    assert (
        training.train_accuracy
        == lab.trainer(THREE_OR_SEVEN)
        .evaluate(
            lab.trainer(THREE_OR_SEVEN).start(training.model),
            lab.device_dataset(THREE_OR_SEVEN).train,
        )
        .accuracy
    )


def test_lab_train_reports_a_network_once(tmp_path, monkeypatch):
    """The second seed, and a setting that differs in the schedule, have no summary of their own."""
    lab = quick_lab(tmp_path)

    def untrained(setting, seed, folder):
        return Training(setting, seed, [], None, lab.network(setting, seed))

    monkeypatch.setattr(lab, "fit", untrained)
    monkeypatch.setattr(training_plots, "of_training", lambda *_: {})
    for setting in (ONE_CYCLE, BATCH_512, BATCH_NORM):
        lab.train(setting)
    assert len(lab.observer.networks) == 2


@pytest.mark.parametrize("name", ["model.npz", "record.npz", "metrics.jsonl"])
def test_lab_train_names_a_damaged_file_and_the_fix(name, again):
    (again.out / "runs" / BATCH_NORM.slug / "seed-0" / name).write_bytes(b"rubbish")
    with pytest.raises(RunError, match=r"Remove .*seed-0: --resume trains it again") as caught:
        again.train(BATCH_NORM)
    assert "pickle" not in str(caught.value)


def test_lab_train_runs_a_training_once(finished):
    assert finished.observer.watched == [(BATCH_NORM, 0), (BATCH_NORM, 1)]
    finished.train(BATCH_NORM)
    finished.outcomes(ONE_CYCLE, [1])
    assert len(finished.observer.watched) == len(finished.observer.unwatched) == 2


def test_lab_reuses_finished_trainings(finished, again):
    for found, wanted in zip(again.train(BATCH_NORM), finished.train(BATCH_NORM), strict=True):
        assert found.metrics == wanted.metrics
        np.testing.assert_array_equal(found.record.hist, wanted.record.hist)
        np.testing.assert_array_equal(found.model(IMAGES / 255.0), wanted.model(IMAGES / 255.0))
    assert again.outcomes(ONE_CYCLE) == finished.outcomes(ONE_CYCLE)
    assert not again.observer.watched
    assert not again.observer.unwatched


def test_lab_repeats_an_unfinished_training(finished, again):
    runs = again.out / "runs"
    (runs / BATCH_NORM.slug / "seed-1" / "model.npz").unlink()
    (runs / "comparisons" / ONE_CYCLE.slug / "seed-0" / "record.npz").unlink()
    found, wanted = again.train(BATCH_NORM)[1], finished.train(BATCH_NORM)[1]
    np.testing.assert_array_equal(found.record.loss, wanted.record.loss)
    assert [o.accuracy for o in again.outcomes(ONE_CYCLE)] == [
        o.accuracy for o in finished.outcomes(ONE_CYCLE)
    ]
    assert again.observer.watched == [(BATCH_NORM, 1)]
    assert again.observer.unwatched == [(ONE_CYCLE, 0)]


def test_lab_adds_seeds(again):
    more = Lab(out=again.out, quick=True, seeds=3, resume=True, observer=again.observer)
    assert len(more.train(BATCH_NORM)) == 3
    assert again.observer.watched == [(BATCH_NORM, 2)]


def test_lab_rejects_a_run_with_another_configuration(again):
    other = quick_lab(again.out, resume=True, layout="NCHW")
    with pytest.raises(RunError, match="layout 'auto', not 'NCHW'"):
        other.train(BATCH_NORM)


def test_lab_without_resume_rejects_an_existing_run(again):
    with pytest.raises(RunError, match="already holds a run"):
        quick_lab(again.out).train(BATCH_NORM)


def test_lab_rejects_a_run_with_other_images(again):
    before = again.config["sha256"]
    other = quick_lab(again.out, resume=True)
    images = other.dataset.train.images.copy()
    images[0, 0, 0, 0] ^= 1
    other.dataset = replace(other.dataset, train=replace(other.dataset.train, images=images))
    assert other.config["sha256"] != before
    with pytest.raises(RunError, match="sha256"):
        other.train(BATCH_NORM)


def test_lab_earlier_seconds_counts_trainings_after_the_last_claim(again):
    again.train(BATCH_NORM)
    spent = sum(
        row["seconds"] + row["compile_seconds"]
        for t in again.train(BATCH_NORM)
        for row in t.metrics
    )
    assert again.earlier_seconds == pytest.approx(spent)
    (again.out / "results.json").write_text("")  # written after the trainings
    later = quick_lab(again.out, resume=True)
    later.train(BATCH_NORM)
    assert later.earlier_seconds == 0
