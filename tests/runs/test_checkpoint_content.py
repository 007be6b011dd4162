"""The content of checkpoints: parts that were changed, earlier versions, other configurations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import convjax.runs.checkpoints as checkpoints_module
from convjax.ops.layout import permutation
from convjax.runs import checkpoint_content
from convjax.runs.checkpoints import Checkpoints
from convjax.train.tree_arrays import CheckpointError
from tests.helpers import make_record
from tests.runs.test_checkpoints import save, state


def save_as_first_version(folder, monkeypatch, tree, *, ordered=False):
    """Saves as convjax 0.1: without checksums of the progress, and the order of kernels unnamed."""

    def pack(*arguments):
        arrays, content = checkpoint_content.pack(*arguments)
        sums = {name: value for name, value in content["checksums"].items() if name != "progress"}
        order = {"kernel_axes": content["kernel_axes"]} if ordered else {}
        return arrays, {"checksums": sums, **order, **content["progress"]}

    with Checkpoints(folder) as checkpoints, monkeypatch.context() as patch:
        patch.setattr(checkpoints_module, "pack", pack)
        checkpoints.save(1, tree, make_record(steps=5, layers=2), {"steps": 1})
        found = checkpoints._read(1)[1]
    assert found.keys() - {"kernel_axes"} == {"checksums", "steps"}
    assert ("kernel_axes" in found) == ordered


@pytest.mark.parametrize("axes", ["OIHW", "IHWO", "HWIO"])
def test_checkpoints_open_those_that_name_no_order_of_kernels(tmp_path, monkeypatch, axes):
    kernel = np.arange(200, dtype=np.float32).reshape(5, 5, 1, 8)
    tree = {"params": {"conv.kernel": kernel}, "mu": {"conv.kernel": 2 * kernel}, "count": 3}
    order = permutation("HWIO", axes)
    turned = jax.tree.map(lambda x: x.transpose(order) if np.ndim(x) == 4 else np.int32(x), tree)
    save_as_first_version(tmp_path, monkeypatch, turned)
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.restore(jax.tree.map(jnp.asarray, tree)).state
    np.testing.assert_array_equal(found["params"]["conv.kernel"], kernel)
    np.testing.assert_array_equal(found["mu"]["conv.kernel"], 2 * kernel)


def test_checkpoints_reject_an_order_of_kernels_that_cannot_be_told(tmp_path, monkeypatch):
    tree = {"kernel": jnp.ones((3, 3, 3, 3))}
    save_as_first_version(tmp_path, monkeypatch, tree)
    message = "does not name the order of its kernels' axes"
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(CheckpointError, match=message):
        checkpoints.restore(tree)


def test_checkpoints_of_the_first_version_open_without_a_configuration(tmp_path, monkeypatch):
    save_as_first_version(tmp_path, monkeypatch, state(), ordered=True)
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.restore(state(), config={"lr": 0.1})
        assert (found.progress, checkpoints.best()) == ({"steps": 1}, None)
    text = (tmp_path / "1" / "progress" / "metadata").read_text()
    (tmp_path / "1" / "progress" / "metadata").write_text(text.replace('"record"', '"secord"'))
    message = r"1 is damaged: the checksum differs of its record, array secord\. Remove"
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(CheckpointError, match=message):
        checkpoints.restore(state())


@pytest.mark.parametrize(
    ("before", "after", "part"),
    [
        ('"loss": 2.5', '"loss": 2.4', "progress"),
        ('"loss": 2.5', '"mass": 2.5', "progress"),
        ('"score": 0.5', '"score": 0.7', "progress"),
        ('"step": 10', '"step": 18', "progress"),
        ('"lr": 0.06', '"lr": 0.02', "progress"),
        ('"progress": 1', '"progress": 2', "progress"),  # of the checksums
        ('"checksums"', '"checksumz"', "KeyError"),
    ],
)
def test_checkpoints_restore_names_the_part_that_was_changed(tmp_path, before, after, part):
    with Checkpoints(tmp_path) as checkpoints:
        record = make_record(steps=5, layers=2)
        checkpoints.save(10, state(), record, {"loss": 2.5}, score=0.5, config={"lr": 0.06})
        checkpoints.wait()
        file = tmp_path / "10" / "progress" / "metadata"
        text = file.read_text()
        if before.endswith(" 1"):  # the first digit of a checksum
            start = text.index('"progress": ') + len('"progress": ')
            before = text[start - len('"progress": ') : start + 1]
            after = before[:-1] + ("2" if before[-1] == "1" else "1")
        assert text.count(before) == 1
        file.write_text(text.replace(before, after))
        with pytest.raises(CheckpointError, match=rf"10 is damaged.*{part}.* from its beginning"):
            checkpoints.restore(state())


def test_checkpoints_compare_the_configuration(tmp_path):
    config = {"lr": 0.06, "layers": ("a", "b"), "nested": {"seed": 0}}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(), make_record(steps=5, layers=2), {}, config=config)
        checkpoints.wait()
        for same in (config, {**config, "layers": ["a", "b"]}, None):
            assert checkpoints.restore(state(), config=same).step == 1
        other = {"lr": 0.06, "layers": ("b", "a"), "nested": {"seed": 1}}
        message = (
            r"1 is of a run with layers \['a', 'b'\], not \['b', 'a'\]; nested\.seed 0, not 1: "
            "the configuration was changed after it was saved. Restore config.json from a copy"
        )
        with pytest.raises(CheckpointError, match=message):
            checkpoints.restore(state(), config=other)


def test_checkpoints_restore_a_renamed_folder(tmp_path):
    save(tmp_path, 10, 20)
    (tmp_path / "20").rename(tmp_path / "30")
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(CheckpointError) as caught:
        checkpoints.restore(state())
    assert str(caught.value).endswith("30 was renamed: it is of step 20. Rename it back.")
