import importlib.util
import json

import pytest
from typer.testing import CliRunner

from convjax.analysis.hlo import computations
from experiments.bench import targets
from experiments.cli.app import app

# Two groups of a watched step and seven others.
NESTED = """
%inner (p: (s32[])) -> (s32[]) {
  %p = (s32[]) parameter(0)
  %f.1 = s32[] fusion(%p), calls=%a, backend_config={"estimated_cycles":"100"}
  %c.1 = s32[] copy(%f.1)
  ROOT %t = (s32[]) tuple(%c.1)
}
%outer (p: (s32[])) -> (s32[]) {
  %p = (s32[]) parameter(0)
  %f.2 = s32[] fusion(%p), calls=%a, backend_config={"estimated_cycles":"500"}
  %g.2 = s32[] custom-call(%f.2), custom_call_target="conv"
  %f.3 = s32[] fusion(%p), calls=%a, backend_config={"estimated_cycles":"300"}
  ROOT %w.2 = (s32[]) while(%f.3), condition=%c, body=%inner, backend_config={"known_trip_count":7}
}
ENTRY %main (a: s32[]) -> (s32[]) {
  %f.4 = s32[] fusion(%a), calls=%a
  ROOT %w.1 = (s32[]) while(%f.4), condition=%c, body=%outer
}
"""


FOUND = computations(NESTED)


def test_per_step_is_the_mean_over_watched_and_unwatched_steps():
    assert [i.opcode for i in FOUND["inner"].launched()] == ["fusion", "copy"]
    assert [i.opcode for i in FOUND["outer"].launched()] == ["fusion", "custom-call", "fusion"]
    # What stands outside of the loops is not of a step.
    assert targets.per_step(FOUND, lambda of: len(of.launched())) == (3 + 7 * 2) / 8
    cycles = targets.per_step(FOUND, lambda of: sum(i.cycles for i in of.launched()))
    assert cycles == (800 + 7 * 100) / 8


def test_all_lengths_known_of_every_loop():
    assert not targets.all_lengths_known(FOUND)
    known = NESTED.replace("body=%outer", 'body=%outer, "known_trip_count"')
    assert targets.all_lengths_known(computations(known))


def test_markdown_targets_compares_with_the_step_without_statistics():
    def row(statistics, launches, cycles):
        return {
            "target": "h100",
            "norm": "none",
            "statistics": statistics,
            "launches": launches,
            "library_calls": 14,
            "copies": 3,
            "cycles": cycles,
            "known_length": True,
            "touched_bytes": 2.0**20,
            "temporary_bytes": 2**21,
            "at_best": 4000.4,
            "measured": None,
            "compile_seconds": 2.4,
        }

    lines = targets.markdown_targets([row("none", 60, None), row("all", 90, None)]).splitlines()
    assert (
        lines[2]
        == "| h100 | none | none | 60 | - | 14 | 3 | - | - | yes | 1.0 | 2.0 | 4,000 | - | 2 |"
    )
    assert (
        lines[3]
        == "| h100 | none | all | 90 | 1.50 | 14 | 3 | - | - | yes | 1.0 | 2.0 | 4,000 | - | 2 |"
    )


def test_bench_of_targets_names_the_extra_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    out = tmp_path / "targets.json"
    command = ["bench", "--target", "v5e", "--out", str(out)]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 2
    assert 'libtpu must be installed to compile for v5e: pip install "convjax[targets]"' in (
        " ".join(found.output.split())
    )
    assert not out.exists()


def test_bench_of_targets_rejects_another_chip(tmp_path):
    command = ["bench", "--target", "h300", "--out", str(tmp_path / "targets.json")]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 2
    assert "target must be one of a100, h100, h200, v5e, v6e, got 'h300'" in " ".join(
        found.output.split()
    )


@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None, reason="needs the extra targets"
)
def test_bench_of_targets_counts_the_launches_of_a_gpu(tmp_path):
    out = tmp_path / "targets.json"
    command = ["bench", "--quick", "--target", "h100", "--out", str(out)]
    assert CliRunner().invoke(app, command).exit_code == 0
    plain, all_statistics = json.loads(out.read_text())["compiled_steps"]
    # A convolution forward and two backward for three layers, but for the gradient of the images;
    # the last two layers are matrix products.
    assert plain["library_calls"] == all_statistics["library_calls"] == 8
    assert plain["launches"] <= 50
    # 512 images of a byte and what the layers make of them, but not the 60,000 that stay.
    assert 20 * 2**20 < plain["touched_bytes"] < 300 * 2**20
    assert plain["measured"] is None
    # Forward 14²·25·8 + 7²·72·16 + 4²·144·32 + 2²·288·64 + 576·10 multiplications an image, and
    # twice as many backward, but for the gradient of the images.
    of_layers = [39_200, 56_448, 73_728, 73_728, 5_760]
    assert plain["products"] == 2 * 512 * (3 * sum(of_layers) - of_layers[0])
    assert all_statistics["products"] == plain["products"] + 2 * 512 * sum(of_layers)  # evaluation
    assert all_statistics["launches"] <= 80
    assert plain["known_length"]
    assert all_statistics["known_length"]
    assert plain["host_transfers"] == all_statistics["host_transfers"] == 0
