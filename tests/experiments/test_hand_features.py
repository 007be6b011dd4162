import numpy as np
import pytest

from convjax.data import Split, load
from experiments import hand_features
from experiments.features.handcrafted import HAND_MADE, pixels
from experiments.hand_features import CLAIMS, PENALTIES, accuracy_of, linear_accuracy, subset
from experiments.harness.claim import judge
from experiments.harness.lab import Lab

(CLAIM,) = CLAIMS


def figures(network, **accuracy):
    others = {f"accuracy_{name}": [accuracy.get(name, 0.9)] for name in HAND_MADE}
    return {"accuracy_network": network, "accuracy_pixels": [0.999], **others}


@pytest.mark.parametrize(
    ("measured", "holds"),
    [
        (figures([0.98, 0.99]), True),  # the pixels do not count
        (figures([0.98, 0.99], hog=0.985), None),
        (figures([0.98, 0.99], hog=0.98), None),
        (figures([0.98, 0.99], gabor=0.99), False),
        (figures([0.98, 0.99], sobel=0.995), False),
    ],
)
def test_learned_beat_hand_made_by_hand(measured, holds):
    decision = CLAIM.rule("mnist").decide(measured)
    assert decision.holds is holds
    best = max(HAND_MADE, key=lambda name: measured[f"accuracy_{name}"][0])
    assert f"lowest of the network − {best}" in decision.reason


def spots(count, seed, flipped=0.0):
    """Returns images that are bright on the left (class 0) or right, some with a wrong label."""
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, 2, count)).astype(np.int32)
    images = rng.integers(0, 100, (count, 4, 4, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label : 2 * label + 2] += 100
    wrong = rng.random(count) < flipped
    return Split(images, np.where(wrong, 1 - labels, labels).astype(np.int32))


def test_linear_accuracy_separates_separable_classes():
    accuracy, penalty, size = linear_accuracy(pixels, spots(120, 0), spots(60, 1))
    assert (accuracy, size) == (1.0, 16)
    assert penalty in PENALTIES


def test_linear_accuracy_chooses_the_penalty_on_training_images(monkeypatch):
    train, test = spots(600, 0, flipped=0.3), spots(50, 1)
    fits = []

    def spy(penalty, train, test):
        fits.append((penalty, len(train[1]), test[0]))
        return {1e-2: 0.9}.get(penalty, 0.8)

    monkeypatch.setattr(hand_features, "accuracy_of", spy)
    assert linear_accuracy(pixels, train, test)[1] == 1e-2
    *tried, (chosen, images, tested) = fits
    assert [penalty for penalty, *_ in tried] == list(PENALTIES)
    assert {(count, len(x)) for _, count, x in tried} == {(500, 100)}
    assert (chosen, images) == (1e-2, 600)
    np.testing.assert_array_equal(tested, pixels(test.images))
    # Both classes, although the images are sorted by class, and no test image.
    on = tried[0][2]
    in_train = {row.tobytes() for row in pixels(train.images)}
    assert {row.tobytes() for row in on} <= in_train
    left = on.reshape(-1, 4, 4)[:, :, :2].mean((1, 2)) > on.reshape(-1, 4, 4)[:, :, 2:].mean((1, 2))
    assert 20 < left.sum() < 80


def test_accuracy_of_scales_the_penalty_with_the_images():
    """Duplicating every image changes nothing."""
    train, test = spots(60, 0, flipped=0.2), spots(400, 1, flipped=0.2)
    once = pixels(train.images), train.labels
    twice = tuple(np.concatenate([part, part]) for part in once)
    of_test = pixels(test.images), test.labels
    found = [accuracy_of(0.1, part, of_test) for part in (once, twice)]
    # The solver stops within a tolerance: a single image of 400.
    assert found[0] == pytest.approx(found[1], abs=1 / 400)
    # With a penalty that keeps all weights near 0, the larger class is predicted.
    clear = spots(60, 2)
    most = np.concatenate([np.flatnonzero(clear.labels == 0), np.flatnonzero(clear.labels)[:5]])
    uneven = pixels(clear.images[most]), clear.labels[most]
    assert accuracy_of(1e6, uneven, of_test) == np.mean(test.labels == 0)
    assert accuracy_of(1e-2, uneven, of_test) > 0.7  # 0.8 with a fifth of the labels wrong


def test_subset_takes_images_of_all_classes():
    found = subset(load("mnist5k").train)
    assert np.bincount(found.labels).tolist() == [20] * 10


@pytest.mark.slow
def test_hand_features_quick_run(tmp_path):
    result = judge(CLAIM, Lab(out=tmp_path, quick=True, seeds=2))
    assert result.reason == "a quick run decides nothing"
    assert len(result.measured["accuracy_network"]) == 2
    for name in ("pixels", *HAND_MADE):
        # Even with 200 images the accuracy exceeds guessing.
        assert result.measured[f"accuracy_{name}"][0] > 0.5, name
        assert result.measured[f"penalty_{name}"][0] in PENALTIES
    assert (tmp_path / "plots" / "hand-features.png").exists()
