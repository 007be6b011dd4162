import json

import pytest
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.receptive_fields.published import NETWORKS
from experiments.receptive_fields.run import by_formula, markdown_fields

runner = CliRunner()


@pytest.mark.parametrize("name", ["VGG-16", "ResNet-50"])
def test_by_formula_equals_the_published_field(name):
    assert by_formula(name) == NETWORKS[name][1]


@pytest.mark.slow
def test_fields_quick_run(tmp_path):
    out = tmp_path / "fields.json"
    result = runner.invoke(app, ["fields", "--quick", "--out", str(out)])
    assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text())["fields"]
    assert [row["network"] for row in rows] == list(NETWORKS)
    assert rows[0]["measured"] == rows[0]["formula"] == [195, 32, 64]
    assert [row["measured"] for row in rows[1:]] == [None] * (len(rows) - 1)
    assert "| AlexNet | 195 / 32 / 64 | 195 / 32 / 64 | 195 / 32 / 64 |" in result.output
    again = runner.invoke(app, ["fields", "--quick", "--out", str(out)])
    assert again.exit_code == 2
    assert "must be a new file" in again.output


def test_markdown_fields_by_hand():
    row = {"network": "N", "published": [3, 1, 1], "formula": [5, 1, 2], "measured": None}
    assert markdown_fields([row]).splitlines()[-1] == "| N | 3 / 1 / 1 | 5 / 1 / 2 |  |"
