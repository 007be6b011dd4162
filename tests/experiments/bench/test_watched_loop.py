import json

import pytest
from typer.testing import CliRunner

from experiments.bench.networks import NETWORKS, batch
from experiments.bench.watched_loop import markdown_watched
from experiments.cli.app import app


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_a_logit_for_each_class(name):
    model, shape = NETWORKS[name](True)
    x, y = batch(shape)
    assert model(x).shape == (shape[0], 10)
    assert y.shape == shape[:1]
    assert 0 <= y.min() <= y.max() < 10


@pytest.mark.slow
def test_bench_watch_quick_run(tmp_path):
    out = tmp_path / "watch.json"
    result = CliRunner().invoke(app, ["bench-watch", "--quick", "--out", str(out)])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(out.read_text())["watched_loops"]
    assert set(row["ratios"]) == {"every 1", "every 8"}
    seconds = row["first"]["seconds"]
    assert row["first"]["factor"] == seconds["every 1"][0] / seconds["alone"][0]
    assert markdown_watched([row]) in result.output


def test_markdown_watched_shows_medians():
    row = {
        "network": "small",
        "first": {"factor": 1.5},
        "ratios": {"every 1": [1.0, 1.1, 9.0], "every 8": [1.0, 1.02, 1.03]},
    }
    assert markdown_watched([row]).splitlines()[-1] == "| small | 1.50 | 1.10 | 1.02 |"
