import json

import numpy as np
import pytest
from typer.testing import CliRunner

from convjax.data import Dataset, Split
from experiments.bench import stream
from experiments.cli.app import app


@pytest.mark.slow
def test_bench_stream_quick_run(tmp_path):
    out = tmp_path / "stream.json"
    result = CliRunner().invoke(app, ["bench-stream", "--quick", "--out", str(out)])
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert (report["data"], report["quick"]) == ("mnist5k", True)
    rows = report["streams"]
    assert [(row["batch_size"], row["source"]) for row in rows] == [
        (64, "resident"),
        (64, "memory-mapped .npy"),
        (64, "folder of PNG files"),
    ]
    for row in rows:
        ratios = np.divide(row["images_per_second"], rows[0]["images_per_second"])
        assert len(ratios) == 2
        assert row["ratio"] == pytest.approx(np.median(ratios))
        assert row["median_images_per_second"] == np.median(row["images_per_second"])
    assert stream.markdown_streams(rows) in result.stdout
    again = CliRunner().invoke(app, ["bench-stream", "--quick", "--out", str(out)])
    assert again.exit_code == 2
    assert "--out must be a new file" in again.stderr


def test_sources_have_the_same_images(tmp_path):
    rng = np.random.default_rng(0)
    # Twelve classes: as text, 10 would sort before 2; the last class has only the last image.
    labels = np.append(rng.integers(0, 11, 40), 11).astype(np.int32)
    split = Split(rng.integers(0, 256, (41, 4, 4, 3), np.uint8), labels)
    found = stream.sources(split, tmp_path)
    np.testing.assert_array_equal(found["resident"].images, split.images)
    for name in ("memory-mapped .npy", "folder of PNG files"):
        np.testing.assert_array_equal(found[name].read(np.arange(41)), split.images)
        np.testing.assert_array_equal(found[name].labels, labels)


def test_measure_streams_rejects_too_few_images():
    few = Split(np.zeros((9, 28, 28, 1), np.uint8), np.zeros(9, np.int32))
    with pytest.raises(ValueError, match="data must have at least 64 images, got 9"):
        stream.measure_streams(Dataset("few", few, few, ("0",)), rounds=1, quick=True)


def test_markdown_streams_by_hand():
    rows = [{"batch_size": 64, "source": "s", "median_images_per_second": 12345.6, "ratio": 0.987}]
    assert stream.markdown_streams(rows).splitlines()[-1] == "| 64 | s | 12,346 | 0.99 |"
