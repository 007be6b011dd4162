from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx

from convjax.chapter.setting import BATCH_NORM
from convjax.data import Dataset
from convjax.data.dataset import Split
from convjax.nn import BatchNorm
from experiments.harness.lab import Lab
from experiments.residual.ghost_batch_norm import GhostBatchNorm
from experiments.residual.setting import FULL, SMALL, ResidualSetting, form_of, shrunk


def dataset(examples=10, side=4):
    pixels = np.zeros((examples, side, side, 3), np.uint8)
    pixels += np.arange(examples, dtype=np.uint8).reshape(-1, 1, 1, 1)
    split = Split(pixels, np.arange(examples, dtype=np.int32) % 2)
    return Dataset("images", split, split, ("a", "b"))


def built(**changes):
    setting = replace(SMALL, depth=8, widths=(2, 4, 8), **changes)
    return setting.build((16, 16, 3), 10, "NHWC", 0)


def test_images_of_takes_evenly_spaced_images_and_shrinks_all():
    found = replace(SMALL, images=4).images_of(dataset())
    assert found.train.images[:, 0, 0, 0].tolist() == [0, 2, 5, 7]  # 0, 2.5, 5, 7.5
    assert found.train.labels.tolist() == [0, 0, 1, 1]
    assert found.train.images.shape[1:] == found.test.images.shape[1:] == (2, 2, 3)
    assert len(found.test.labels) == 10
    for images in (None, 100):
        assert len(replace(SMALL, images=images).images_of(dataset()).train.labels) == 10


def test_shrunk_by_hand():
    pixels = np.arange(15, dtype=np.uint8).reshape(1, 3, 5, 1)
    # (0 + 1 + 5 + 6)/4 and (2 + 3 + 7 + 8)/4; the last row and column are left out.
    assert shrunk(pixels, 2)[0, :, :, 0].tolist() == [[3, 5]]
    np.testing.assert_array_equal(shrunk(pixels, 1), pixels)


def test_full_is_the_setting_of_the_paper():
    assert (FULL.depth, FULL.widths, FULL.batch_size, FULL.lr_max) == (20, (16, 32, 64), 128, 0.1)
    # 64,000 steps, up to the images of each pass that do not fill a batch.
    assert FULL.epochs * FULL.passes * (50_000 // FULL.batch_size) == 63_960
    assert [str(change) for change in FULL.augment] == [
        "RandomShift(pixels=4, fill='black')",
        "RandomFlip(probability=0.5)",
    ]
    assert SMALL.augment is None


def test_form_of_is_the_session_s_size():
    def form(full=False, quick=False, **changes):
        return form_of(SimpleNamespace(full=full, quick=quick), **changes)

    assert form() == SMALL
    assert form(full=True, depth=56) == replace(FULL, depth=56)
    assert (form(full=True, quick=True).epochs, form(quick=True, passes=8).passes) == (1, 1)


def test_setting_differs_by_slug_data_and_program():
    variants = [
        SMALL,
        FULL,
        replace(SMALL, depth=56),
        replace(SMALL, shortcut=None),
        replace(SMALL, zero_init=True),
        replace(SMALL, group=8),
        replace(SMALL, widths=(8, 8, 8)),
    ]
    assert len({setting.slug for setting in variants}) == len(variants)
    assert replace(SMALL, widths=(8, 8, 8)).slug == (
        "residual-batchnorm-widths-8-8-8-flat-momentum-bs32-lr0.1"
    )
    assert len({setting.structure for setting in variants}) == len(variants)
    longer = replace(SMALL, epochs=3, passes=2, lr_max=0.01, batch_size=8)
    assert (longer.structure, longer.images_kind) == (SMALL.structure, SMALL.images_kind)
    assert FULL.images_kind != SMALL.images_kind
    assert SMALL.images_kind != BATCH_NORM.images_kind


def test_setting_rejects_what_no_training_can_have():
    for changes, message in (
        ({"network": "digits"}, "network must be one of residual, got 'digits'"),
        ({"images": 0}, "images must be at least 1, got 0"),
        ({"shrink": 0}, "shrink must be at least 1, got 0"),
        ({"passes": 0}, "passes must be at least 1, got 0"),
        ({"group": 0}, "group must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ResidualSetting(**changes)


def test_build_makes_the_network():
    def parameters(network):
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))

    residual, plain = built(), built(shortcut=None)
    # 3·2·9 + 4; 2·(2·2·9 + 4); 2·4·9 + 4·4·9 + 16; 4·8·9 + 8·8·9 + 32; 8·10 + 10.
    assert parameters(residual) == parameters(plain) == 58 + 80 + 232 + 896 + 90
    assert residual.stages[0][0].skip
    assert not plain.stages[0][0].skip
    for zero, scale in ((False, 1), (True, 0)):
        last = built(zero_init=zero).stages[2][0].layers[-1].norm
        assert set(np.asarray(last.scale[...]).tolist()) == {scale}
    norms = [m for _, m in nnx.iter_modules(built(group=4)) if isinstance(m, BatchNorm)]
    assert {type(norm) for norm in norms} == {GhostBatchNorm}


def test_session_says_where_a_run_is_full(tmp_path):
    assert Lab(out=tmp_path, full=True).config["full"] is True
    assert "full" not in Lab(out=tmp_path).config  # as in runs of versions without it
