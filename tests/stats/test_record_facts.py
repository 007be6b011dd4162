"""Facts of the batches and kinds of the layers stay with a record through all that it offers."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax import Recorder, capture, layer_stats
from convjax.nn.models import ConvNet
from convjax.nn.outputs import LayerKind
from convjax.stats.facts import batch_facts
from convjax.stats.record import Record
from convjax.stats.record_builder import concatenate, from_columns, from_steps
from convjax.stats.record_file import RecordError
from tests.helpers import make_record, without_layers
from tests.stats.record_kinds import assert_equal

KINDS = (LayerKind("Conv", "relu"), LayerKind("Conv"), LayerKind("Größe", "leaky_relu"))


def with_facts(**settings):
    record = make_record(layers=3, **settings)
    rows = np.arange(len(record.watched), dtype=np.float32)
    facts = {
        "outputs": np.full(len(rows), 10, np.float32),
        "output low": -rows,
        "output high": np.where(rows == 2, np.inf, rows + 0.1).astype(np.float32),
        "loss of logits": np.where(rows == 1, np.nan, rows / 3).astype(np.float32),
    }
    return dataclasses.replace(record, facts=facts, kinds=KINDS)


RECORD = with_facts(steps=7)
RECORDS = pytest.mark.parametrize("record", [RECORD, with_facts(steps=7, every=3)])


def assert_same(found, wanted):
    """Compares two records with their facts, which are a dictionary of arrays, and kinds."""
    assert_equal(*(dataclasses.replace(r, facts={}, kinds=()) for r in (found, wanted)))
    assert found.kinds == wanted.kinds
    assert found.facts.keys() == wanted.facts.keys()
    for name, column in wanted.facts.items():
        np.testing.assert_array_equal(found.facts[name], column, err_msg=name, strict=True)


def saved_arrays(record):
    with np.load(io.BytesIO(record.to_bytes())) as file:
        return dict(file)


def loaded(arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return Record.from_bytes(file.getvalue(), "of.npz")


# --- files ---------------------------------------------------------------------------------------


@RECORDS
def test_record_load_keeps_facts_and_kinds(tmp_path, record):
    record.save(tmp_path / "record.npz")
    found = Record.load(tmp_path / "record.npz")
    assert_same(found, record)
    assert all(isinstance(kind, LayerKind) for kind in found.kinds)
    assert all(type(text) is str for kind in found.kinds for text in kind)
    assert_same(Record.from_bytes(found.to_bytes()), record)


def test_record_load_of_a_file_without_facts_and_kinds_has_none():
    plain = dataclasses.replace(RECORD, facts={}, kinds=())
    assert_same(Record.from_bytes(plain.to_bytes()), plain)
    extra = saved_arrays(RECORD).keys() - saved_arrays(plain).keys()
    assert extra == {*(f"facts.{name}" for name in RECORD.facts), "module", "nonlinearity"}
    # Versions that know neither read the file.
    assert saved_arrays(RECORD)["format"] == saved_arrays(plain)["format"]
    for other in (dataclasses.replace(RECORD, kinds=()), dataclasses.replace(RECORD, facts={})):
        assert_same(Record.from_bytes(other.to_bytes()), other)


def test_record_load_keeps_facts_of_odd_names_and_no_rows():
    odd = dataclasses.replace(RECORD, facts=dict.fromkeys(("", "é.1"), RECORD.facts["outputs"]))
    assert_same(Record.from_bytes(odd.to_bytes()), odd)
    empty = without_layers(RECORD)
    assert_same(Record.from_bytes(empty.to_bytes()), empty)


DAMAGED = {
    "a row less": ("facts.outputs", np.zeros(6, np.float32), r"outputs has the shape \(6,\)"),
    "a row more": ("facts.outputs", np.zeros(8, np.float32), r"outputs has the shape \(8,\)"),
    "no rows": ("facts.outputs", np.zeros(0, np.float32), r"outputs has the shape \(0,\)"),
    "an axis more": ("facts.outputs", np.zeros((7, 1), np.float32), "outputs has the shape"),
    "no axis": ("facts.outputs", np.float32(1), r"outputs has the shape \(\)"),
    "integers": ("facts.outputs", np.zeros(7, np.int64), "outputs is of the type int64"),
    "text": ("facts.output low", np.array(["a"] * 7), "output low is of the type <U1"),
    "complex": ("facts.outputs", np.zeros(7, complex), "outputs is of the type complex128"),
    "a new fact": ("facts.another", np.zeros(3, np.float32), r"another has the shape \(3,\)"),
    "a layer less": ("module", np.array(["Conv"] * 2), r"module has the shape \(2,\)"),
    "one kind": ("nonlinearity", np.array("relu"), r"nonlinearity has the shape \(\)"),
    "numbers": ("module", np.arange(3), "module is of the type int64"),
}


@pytest.mark.parametrize(("name", "array", "why"), DAMAGED.values(), ids=DAMAGED)
def test_record_load_rejects_facts_and_kinds_that_do_not_fit(name, array, why):
    message = rf"^of\.npz is not a complete record of convjax: {why}.*Take another copy"
    with pytest.raises(RecordError, match=message):
        loaded(saved_arrays(RECORD) | {name: array})


@pytest.mark.parametrize("name", ["module", "nonlinearity"])
def test_record_load_rejects_half_of_the_kinds(name):
    arrays = saved_arrays(RECORD)
    del arrays[name]
    with pytest.raises(RecordError, match=f"{name} is missing"):
        loaded(arrays)


# --- parts and merged rows -----------------------------------------------------------------------


def test_record_between_cuts_facts():
    found = RECORD.between(2, 5)
    assert found.kinds == KINDS
    np.testing.assert_array_equal(found.facts["output low"], np.float32([-2, -3, -4]))
    np.testing.assert_array_equal(found.facts["output high"], np.float32([np.inf, 3.1, 4.1]))
    assert [len(column) for column in RECORD.between(3, 3).facts.values()] == [0] * 4
    sparse = with_facts(steps=7, every=3).between(2, 5)  # of the watched steps 0, 3 and 6
    np.testing.assert_array_equal(sparse.facts["output low"], np.float32([-1]))


def test_record_merged_merges_facts():
    found = RECORD.merged(3)  # rows of 4 and 3 steps
    assert found.counts.tolist() == [4, 3]
    assert found.kinds == KINDS
    np.testing.assert_array_equal(found.facts["output low"], np.float32([-3, -6]))
    np.testing.assert_array_equal(found.facts["output high"], np.float32([np.inf, 6.1]))
    # The row without this fact, 1, has no part in the mean.
    logits = found.facts["loss of logits"]
    np.testing.assert_allclose(logits, [(0 + 2 + 3) / 9, (4 + 5 + 6) / 9], rtol=1e-6)
    assert_same(Record.from_bytes(found.to_bytes()), found)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 12))
def test_record_merged_in_two_ways_has_the_same_facts(steps, every, rows):
    record = with_facts(steps=steps, every=every)
    finite = {"output low": record.facts["output low"], "squared error": record.facts["output low"]}
    record = dataclasses.replace(record, facts=finite)
    whole, again = record.merged(1), record.merged(rows).merged(1)
    np.testing.assert_array_equal(again.facts["output low"], whole.facts["output low"])
    wanted = finite["squared error"].mean(dtype=np.float64)
    for found in (whole, again):
        np.testing.assert_allclose(found.facts["squared error"], [wanted], rtol=1e-5)


@RECORDS
@pytest.mark.parametrize("at", [0, 3, 7])
def test_record_parts_concatenated_are_the_record(record, at):
    parts = [record.between(0, at), record.between(at, 7)]
    found = concatenate([part for part in parts if part.steps])
    assert_same(found, record)


def test_concatenate_has_nan_where_a_part_lacks_a_fact():
    second = dataclasses.replace(
        RECORD, facts={"outputs": RECORD.facts["outputs"], "examples": RECORD.facts["output low"]}
    )
    found = concatenate([RECORD, second])
    lacking = np.full(7, np.nan, np.float32)
    assert list(found.facts) == [*RECORD.facts, "examples"]
    for name, parts in (
        ("outputs", [RECORD.facts["outputs"]] * 2),
        ("output high", [RECORD.facts["output high"], lacking]),
        ("examples", [lacking, second.facts["examples"]]),
    ):
        np.testing.assert_array_equal(found.facts[name], np.concatenate(parts), strict=True)
    assert found.kinds == KINDS
    # Parts without statistics have no rows of facts.
    both = concatenate([without_layers(RECORD), RECORD])
    assert both.kinds == KINDS
    np.testing.assert_array_equal(both.facts["output low"], RECORD.facts["output low"])


# --- from a training -----------------------------------------------------------------------------


def test_recorder_records_the_facts_of_each_step_and_the_kinds():
    @nnx.jit
    def step(model, images, labels):
        output, layers = capture(model, images)
        return output, layers, layer_stats({"input": images, **layers, "labels": labels})

    model = ConvNet((1, 2, 3), layout="NHWC", rngs=nnx.Rngs(0))
    recorder, wanted = Recorder(), []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        images = rng.normal(size=(4, 8, 8, 1)).astype(np.float32)
        labels = rng.integers(0, 3, 4)
        output, layers, stats = step(model, images, labels)
        recorder.add(1.0, stats)
        wanted.append(jax.jit(batch_facts)(output, labels))
    record = recorder.record()
    assert record.facts.keys() == wanted[0].keys()
    for name, column in record.facts.items():
        # The step adds in another order.
        np.testing.assert_allclose(column, [row[name] for row in wanted], rtol=1e-5, err_msg=name)
    kinds = dict(zip(record.layers, record.kinds, strict=True))
    assert kinds == {"input": LayerKind(), **layers.kinds, "labels": LayerKind()}
    assert layers.kinds["blocks.0.conv"] == LayerKind("Conv", "relu")
    assert_same(Record.from_bytes(record.to_bytes()), record)


def test_recorder_merges_the_facts_of_members():
    @jax.jit
    @jax.vmap
    def step(x):
        return layer_stats({"head": x, "labels": jnp.array([0, 1])})

    members = jnp.array([[[1.0, 2.0], [3.0, -4.0]], [[0.0, 5.0], [jnp.nan, 1.0]]])
    recorder = Recorder()
    recorder.add(1.0, step(members))
    facts = recorder.record().facts
    assert (facts["output low"].tolist(), facts["output high"].tolist()) == ([-4], [5])
    assert facts["output not finite"].tolist() == [1 / 8]
    # That of the member whose loss is a number.
    wanted = jax.jit(batch_facts)(members[0], jnp.array([0, 1]))["loss of logits"]
    np.testing.assert_allclose(facts["loss of logits"], [wanted], rtol=1e-6)


def test_from_steps_and_from_columns_take_facts_and_kinds():
    row = np.zeros(2, np.float32)
    facts = {"outputs": np.float32([3, 3])}
    record = from_columns(["a"], np.array([4]), row, row, row, [0, 1], None, facts=facts)
    assert record.facts["outputs"].tolist() == [3, 3]
    assert record.kinds == ()
    named = from_steps((), (), row, row, row, [], (), facts={}, kinds=[LayerKind("Conv")])
    assert named.kinds == (LayerKind("Conv"),)
