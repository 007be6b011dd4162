import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.runs.tensorboard import EventWriter
from convjax.runs.tensorboard_values import histograms_every
from convjax.stats.activations import activation_stats
from convjax.stats.record_builder import from_steps
from tests.helpers import make_record, without_histograms, without_layers
from tests.runs.event_files.reading import scalars, single

RECORD = make_record(steps=7, layers=3)
STATISTICS = ("mean", "std", "near_zero", "abs_near_zero")


def write(folder, *pieces, **options):
    """Writes (first step, record) into a new event file."""
    with EventWriter(folder, **options) as events:
        for first_step, piece in pieces:
            events.add_record(piece, first_step)


# --- scalars -------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3])
def test_event_writer_writes_every_scalar_of_the_record(tmp_path, read, every):
    record = make_record(steps=7, layers=3, every=every)
    write(tmp_path, (100, record))
    found, expected = read(), {}
    for name in ("loss", "learning_rate", "momentum"):
        expected[f"training/{name}"] = record.first, getattr(record, name)
    expected["training/evaluation_mode_loss"] = record.watched, record.eval_loss
    for column, layer in enumerate(record.layers):
        for name in STATISTICS:
            values = getattr(record, name)[:, column]
            expected[f"activations/{layer}/{name}"] = record.watched, values
    for column, name in enumerate(record.parameters.names):
        norms = record.parameters.grad_norm, record.parameters.update_norm
        for kind, norm in zip(("gradients", "updates"), norms, strict=True):
            expected[f"{kind}/{name}/norm"] = record.parameters.watched, norm[:, column]
    assert sorted(found.Tags()["scalars"]) == sorted(expected)
    for tag, (steps, values) in expected.items():
        assert scalars(found, tag) == ((100 + steps).tolist(), single(values)), tag


def test_event_writer_scalars_by_hand(tmp_path, read):
    write(tmp_path, (0, RECORD))
    found = read()
    assert scalars(found, "training/loss")[1][:2] == single([2.3, 2.29])
    assert scalars(found, "activations/blocks.1.conv/std")[1][2] == np.float32(3.1)
    assert scalars(found, "gradients/conv.kernel/norm") == (
        list(range(7)),
        single(4 / np.arange(1, 8)),
    )


def test_event_writer_puts_merged_rows_at_their_first_steps(tmp_path, read):
    merged = RECORD.merged(2)  # four steps, and three
    write(tmp_path, (10, merged))
    assert scalars(read(), "training/loss") == ([10, 14], single(merged.loss))
    assert scalars(read(), "activations/blocks.0.conv/mean") == ([10, 14], single([1.5, 5]))


@pytest.mark.parametrize("rows", [8, 64, 1000])
def test_event_writer_goes_on_past_merged_rows(tmp_path, read, rows):
    """The whole record is added every 50 steps, and merges its rows meanwhile."""
    whole = make_record(steps=600, layers=1, every=2)
    with EventWriter(tmp_path) as events:
        for end in range(50, 601, 50):
            events.add_record(whole.between(0, end).merged(rows), 0)
            steps = scalars(read(), "training/loss")[0]
            assert end - 600 // rows * 2 - 2 <= steps[-1] < end
    found = read()
    tags = ("training/loss", "activations/blocks.0.conv/mean", "updates/conv.kernel/norm")
    for tag in tags:
        steps, values = scalars(found, tag)
        assert steps == sorted(set(steps))
        if rows == 1000:
            assert steps == list(range(0, 600, 1 if tag == tags[0] else 2))
            assert len(values) == len(steps)
        else:
            # The first steps as they were, then a row in as many steps as the record had then.
            assert max(np.diff(steps)) <= 2 * 600 // rows
    assert len(set(histogram_steps(read, tmp_path))) == len(histogram_steps(read, tmp_path))


def test_event_writer_leaves_out_evaluations_that_were_not_taken(tmp_path, read):
    eval_loss = RECORD.eval_loss.copy()
    eval_loss[[0, 3]] = np.nan
    write(tmp_path, (0, replace(RECORD, eval_loss=eval_loss)))
    assert scalars(read(), "training/evaluation_mode_loss")[0] == [1, 2, 4, 5, 6]


def test_event_writer_writes_numbers_that_are_not_finite(tmp_path, read):
    loss, mean = RECORD.loss.copy(), RECORD.mean.copy()
    loss[2:4], mean[3] = (np.inf, np.nan), np.nan
    write(tmp_path, (0, replace(RECORD, loss=loss, mean=mean)))
    np.testing.assert_array_equal(scalars(read(), "training/loss")[1], single(loss))
    np.testing.assert_array_equal(scalars(read(), "activations/blocks.2.conv/mean")[1], mean[:, 2])


@pytest.mark.parametrize("strip", [without_layers, without_histograms])
def test_event_writer_leaves_out_what_a_record_lacks(tmp_path, read, strip):
    record = strip(RECORD)
    write(tmp_path, (0, record))
    tags = read().Tags()
    assert tags["histograms"] == []
    assert any(tag.startswith("activations/") for tag in tags["scalars"]) == bool(record.layers)
    assert "training/loss" in tags["scalars"]


def test_event_writer_puts_metrics_at_their_steps(tmp_path, read):
    with EventWriter(tmp_path) as events:
        events.add_metrics({"step": 5, "epoch": 0, "valid_loss": 0.5, "accuracy": 0.75})
        events.add_metrics({"step": np.int64(9), "train_loss": 1, "valid_loss": np.nan})
        events.add_metrics({"step": 10})
    found = read()
    assert scalars(found, "evaluation/accuracy") == ([5], [0.75])
    assert scalars(found, "evaluation/train_loss") == ([9], [1])
    steps, losses = scalars(found, "evaluation/valid_loss")
    assert (steps, losses[0], np.isnan(losses[1])) == ([5, 9], 0.5, True)
    assert len(found.Tags()["scalars"]) == 3  # and no epoch


# --- histograms ----------------------------------------------------------------------------------


def test_event_writer_writes_exact_counts_of_the_bins(tmp_path, read):
    rng = np.random.default_rng(0)
    hist, outside = rng.integers(0, 900, (7, 3, 40)), rng.integers(1, 900, (2, 7, 3))
    record = replace(RECORD, hist=hist, under=outside[0], over=outside[1])
    write(tmp_path, (0, record))
    found = read()
    for column, layer in enumerate(record.layers):
        events = found.Histograms(f"activations/{layer}/histogram")
        assert [event.step for event in events] == list(range(7))
        for row, event in enumerate(events):
            histogram = event.histogram_value
            assert histogram.bucket_limit == [0, *np.arange(1, 41) / 4, 11]
            under, *inside, over = histogram.bucket
            assert (under, over) == (record.under[row, column], record.over[row, column])
            assert inside == record.hist[row, column].tolist()
            assert histogram.num == sum(histogram.bucket)
            assert (histogram.min, histogram.max) == (-1, 11)


def test_histograms_of_known_values(tmp_path, read):
    values = np.float32(np.random.default_rng(1).normal(1, 2, 5000))
    stats = activation_stats(values)
    row = np.ones(1)
    one = type(stats)(*(None if x is None else np.asarray(x)[None] for x in stats))
    write(tmp_path, (0, from_steps(["layer"], [5000], row, row, row, [0], [one])))
    (event,) = read().Histograms("activations/layer/histogram")
    histogram = event.histogram_value
    # To the rounding of the mean and the standard deviation, which are float32.
    assert histogram.sum == pytest.approx(values.sum(dtype=np.float64), rel=1e-6)
    assert histogram.sum_squares == pytest.approx(
        np.square(values, dtype=np.float64).sum(), rel=1e-6
    )
    below = [np.sum(values < limit) for limit in histogram.bucket_limit[:-1]]
    assert np.cumsum(histogram.bucket[:-1]).tolist() == below


def test_histograms_leave_out_empty_bins_at_the_ends(tmp_path, read):
    """TensorBoard leaves out empty bins at the ends; the others reach from min to max."""
    from tensorboard import data_compat

    inside = replace(RECORD, under=RECORD.under * 0, over=RECORD.over * 0)
    write(tmp_path, (0, inside))
    event = read().Histograms("activations/blocks.0.conv/histogram")[0]
    assert (event.histogram_value.min, event.histogram_value.max) == (0, 1.25)
    from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary

    histogram = HistogramProto(**vars(event.histogram_value))
    drawn = data_compat.migrate_value(Summary.Value(tag="x", histo=histogram))
    table = np.frombuffer(drawn.tensor.tensor_content, np.float32).reshape(-1, 3)
    assert table.tolist() == [
        [0, 0.25, 500],
        [0.25, 0.5, 0],
        [0.5, 0.75, 0],
        [0.75, 1, 0],
        [1, 1.25, 250],
    ]


def test_histograms_of_nan(tmp_path, read):
    nothing = {name: getattr(RECORD, name) * 0 for name in ("hist", "under", "over")}
    lost = dict.fromkeys(("mean", "std"), RECORD.mean * np.nan)
    write(tmp_path, (0, replace(RECORD, **nothing, **lost)))
    histogram = read().Histograms("activations/blocks.0.conv/histogram")[0].histogram_value
    assert (histogram.num, histogram.min, histogram.max) == (0, 0, 0)
    assert np.isnan(histogram.sum)


def histogram_steps(read, folder):
    return [e.step for e in read(folder).Histograms("activations/blocks.0.conv/histogram")]


def due(steps):
    """The steps with a histogram: all below 64, then every second up to 128, and so on."""
    found, every = list(range(min(steps, 64))), 2
    while every * 32 < steps:
        found += range(every * 32, min(steps, every * 64), every)
        every *= 2
    return found


def test_event_writer_writes_histograms_by_doublings(tmp_path, read):
    record = make_record(steps=1000, layers=1)
    write(tmp_path, (0, record))
    assert histogram_steps(read, tmp_path) == due(1000)
    assert len(due(1000)) == 32 + 32 + 3 * 32 + 31  # … 512 … 1000 by 16
    assert len(due(512_000)) < 500  # of which TensorBoard drops none


@pytest.mark.parametrize("every", [1, 3, 10])
@pytest.mark.parametrize("cut", [1, 37, 300, 517])
def test_event_writer_pieces_have_the_histograms_of_the_whole(tmp_path, read, every, cut):
    cut = -(-cut // every) * every
    whole = make_record(steps=600, layers=1, every=every)
    pieces = [(0, whole.between(0, cut)), (cut, whole.between(cut, 600))]
    write(tmp_path / "whole", (0, whole))
    write(tmp_path / "pieces", *pieces)
    write(tmp_path / "broken", pieces[0])
    write(tmp_path / "broken", pieces[1], resume=True)
    expected = histogram_steps(read, tmp_path / "whole")
    assert histogram_steps(read, tmp_path / "pieces") == expected
    assert histogram_steps(read, tmp_path / "broken") == expected


@given(st.integers(0, 2**40))
def test_histograms_every_gives_32_per_doubling(step):
    every = histograms_every(step)
    assert every == 1 or 32 <= step / every < 64
    assert every.bit_count() == 1


# --- a resumed training --------------------------------------------------------------------------


KILLED = """
import os, sys
from dataclasses import replace
import numpy as np
from convjax.runs.tensorboard import EventWriter
from tests.helpers import make_record

piece = make_record(steps=20, layers=2).between(0, 12)
events = EventWriter(sys.argv[1])
events.add_record(replace(piece, loss=np.full(12, 7.0)), 0)
events.add_metrics({"step": 8, "accuracy": 0.5})
events.add_metrics({"step": 12, "accuracy": 0.25})
os._exit(9)  # nothing is closed
"""


def test_event_writer_resume_hides_steps_after_the_checkpoint(tmp_path, read):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 9
    # The last event lacks its end, as if it had been killed while it wrote.
    (file,) = tmp_path.glob("events*")
    file.write_bytes(file.read_bytes()[:-5])
    whole = make_record(steps=20, layers=2)
    with EventWriter(tmp_path, resume=True) as events:
        events.add_metrics({"step": 8, "accuracy": 0.5})
        events.add_record(whole.between(8, 20), 8)
    found = read()
    assert scalars(found, "training/loss") == (
        list(range(20)),
        single([*[7.0] * 8, *whole.loss[8:]]),
    )
    assert scalars(found, "evaluation/accuracy") == ([8], [0.5])
    assert histogram_steps(read, tmp_path) == list(range(20))


def test_event_writer_keeps_files_of_the_same_second(tmp_path, read, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    for number in range(12):
        write(tmp_path, (number, make_record(steps=1, layers=1)), resume=True)
    names = sorted(path.name for path in tmp_path.glob("events*"))
    assert [name[-6:] for name in names] == [f"{number:06d}" for number in range(12)]
    assert scalars(read(), "training/loss")[0] == list(range(12))


def test_event_writer_writes_at_once(tmp_path, read):
    with EventWriter(tmp_path) as events:
        events.add_record(RECORD, 0)
        assert scalars(read(), "training/loss")[0] == list(range(7))
        events.add_metrics({"step": 7, "accuracy": 1.0})
        assert scalars(read(), "evaluation/accuracy") == ([7], [1])


# --- plots ---------------------------------------------------------------------------------------


def test_event_writer_add_png_reads_the_size_from_the_header(tmp_path, read):
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 640, 480)
    with EventWriter(tmp_path) as events:
        events.add_png("a", png, 7)
    (image,) = read().Images("plots/a")
    assert (image.step, image.width, image.height) == (7, 640, 480)
    assert image.encoded_image_string == png


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "piece must be Record, got list", lambda e: e.add_record([], 0)),
        (ValueError, "first_step must be at least 0, got -1", lambda e: e.add_record(RECORD, -1)),
        (
            ValueError,
            r'must have a "step".* got None with the keys \'a\'',
            lambda e: e.add_metrics({"a": 1}),
        ),
        (ValueError, r'a "step".* got -2', lambda e: e.add_metrics({"step": -2})),
        (
            ValueError,
            r"row\['accuracy'\] must be a number, got 'high'",
            lambda e: e.add_metrics({"step": 1, "accuracy": "high"}),
        ),
        (
            ValueError,
            "png must be the content of a PNG file, got b'GIF",
            lambda e: e.add_png("a", b"GIF8", 0),
        ),
        (
            ValueError,
            "step must be at least 0, got -1",
            lambda e: e.add_png("a", b"\x89PNG\r\n\x1a\n" + bytes(16), -1),
        ),
        (ValueError, "step must be at least 0, got -1", lambda e: e.write_scalars(-1, {"a": 0})),
    ],
)
def test_event_writer_rejects_invalid_arguments(tmp_path, read, error, message, call):
    with EventWriter(tmp_path) as events, pytest.raises(error, match=message):
        call(events)
    assert not any(read().Tags()[kind] for kind in ("scalars", "images", "histograms"))


def test_event_writer_rejects_use_after_close(tmp_path):
    events = EventWriter(tmp_path)
    events.close()
    events.close()
    for add in (
        lambda: events.add_record(RECORD, 0),
        lambda: events.add_metrics({"step": 1}),
        lambda: events.add_png("a", b"", 0),
        lambda: events.write_scalars(0, {}),
        lambda: events.add_histograms(0, RECORD),
        events.flush,
    ):
        with pytest.raises(ValueError, match=r"is closed\. Create another EventWriter"):
            add()


def test_event_writer_without_tensorboardx(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboardX"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r'pip install "convjax\[tensorboard\]"'):
        EventWriter(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_event_writer_imports_neither_tensorflow_nor_pandas(tmp_path):
    code = (
        "import sys; from convjax.runs.tensorboard import EventWriter\n"
        f"with EventWriter({str(tmp_path)!r}) as events: events.add_metrics({{'step': 1}})\n"
        "print([name for name in ('tensorflow', 'tensorboard', 'pandas') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# --- as the writer of a training -----------------------------------------------------------------


def test_event_writer_follows_a_training_with_its_histograms(tmp_path, read, run):
    with EventWriter(tmp_path / "live") as events:
        _, record = run.trainer.run(
            run.trainer.start(run.model), run.data, run.order, run.table, writer=events
        )
        live = read(tmp_path / "live")  # what was added is on the disk
    write(tmp_path / "kept", (0, record))
    kept = read(tmp_path / "kept")
    tags = kept.Tags()
    assert live.Tags() == tags
    assert tags["histograms"]
    for tag in tags["scalars"]:
        assert scalars(live, tag) == scalars(kept, tag)
    for tag in tags["histograms"]:
        of_live, of_kept = (
            [(event.step, event.histogram_value) for event in found.Histograms(tag)]
            for found in (live, kept)
        )
        assert of_live == of_kept


def test_event_writer_writes_metrics_of_ones_own(tmp_path, read):
    with EventWriter(tmp_path) as events:
        events.add_metrics({"step": 5, "top5": 0.5, "seconds": 1.0, "note": "mine"})
        events.write_scalars(6, {"loss": np.float32(0.25)})
    assert scalars(read(), "evaluation/top5") == ([5], [0.5])
    assert scalars(read(), "loss") == ([6], [0.25])
    assert len(read().Tags()["scalars"]) == 2
