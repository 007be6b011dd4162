"""The tables of a record's last statistics, with its diagnosis."""

from dataclasses import replace

import numpy as np
import pytest

from convjax.diagnosis._diagnose import Diagnosis, Finding, diagnose
from convjax.plots.layer_choice import choose
from convjax.report.tables import layers, parameters, record_tables
from tests.helpers import make_record, without_layers
from tests.report.test_table import cells

RECORD = make_record(steps=7, layers=30)
FINDING = Finding("dead layer", "blocks.4.conv", 1, 0.99, 0.9, "share of dead", "less", "A.")
FOUND = Diagnosis((FINDING,), (replace(FINDING, symptom="collapse"),), {"x": ("units",)})


def first_words(text):
    return [line.split()[0] for line in text.splitlines()]


def test_layers_shows_a_dozen_and_the_layers_of_findings():
    table = layers(RECORD, None, FOUND)
    assert len(table.rows) == 30
    names = [table.rows[i][0] for i in table.shown]
    assert names == [RECORD.layers[i] for i in choose(RECORD, RECORD.layers, None, FOUND)]
    assert (len(names), names[0], names[-1]) == (13, "blocks.0.conv", "blocks.29.conv")
    assert table.head[-1] == "found"
    assert [row[-1] for row in table.rows if row[-1]] == ["dead layer, collapse"]
    assert table.rows[4][-1]
    assert "found" not in layers(RECORD, "*").head
    assert list(layers(RECORD, "*").shown) == list(range(30))


def test_parameters_shows_those_of_the_chosen_layers():
    old = RECORD.parameters
    names = tuple(f"blocks.{i}.conv.{part}" for i in range(30) for part in ("bias", "kernel"))
    repeated = {
        name: np.repeat(getattr(old, name), 30, axis=1)
        for name in ("weight_norm", "grad_norm", "update_norm", "grad_hist", "update_hist")
    }
    sizes, ndims = np.tile(old.sizes, 30), np.tile(old.ndims, 30)
    many = replace(old, names=names, sizes=sizes, ndims=ndims, **repeated)
    record = replace(RECORD, parameters=many)
    table = parameters(record, "blocks.7.conv")
    assert [table.rows[i][0] for i in table.shown] == list(names[14:16])
    assert len(table.rows) == 60
    # Names of parameters that do not begin with those of layers.
    table = parameters(replace(record, layers=tuple("abcdefghij" * 3)), 0, FOUND)
    assert {names[8], names[9]} < {table.rows[i][0] for i in table.shown}
    # A record of parameters alone.
    table = parameters(replace(without_layers(record), parameters=many), "blocks.1.*kernel")
    assert [table.rows[i][0] for i in table.shown] == ["blocks.1.conv.kernel"]


def test_record_tables_as_text_has_the_diagnosis_and_both_tables():
    title, said, of_layers, of_parameters = record_tables(RECORD, diagnosis=FOUND).split("\n\n")
    assert title == "Record(7 steps, 30 layers)"
    assert said == str(FOUND)
    assert of_layers.splitlines()[0] == "Layers at the end"
    assert of_layers.splitlines()[-1] == "13 of 30 layers"
    assert "dead layer" in of_layers
    assert first_words(of_parameters) == ["Parameters", "parameter", "conv.bias", "conv.kernel"]
    assert str(diagnose(RECORD)) in record_tables(RECORD)


def test_record_tables_in_three_formats_have_the_same_cells():
    tables = [layers(RECORD, [0, -1], FOUND), parameters(RECORD, None, FOUND)]
    text, markdown, html = (
        record_tables(RECORD, layers=[0, -1], diagnosis=FOUND, format=name)
        for name in ("text", "markdown", "html")
    )
    for table in tables:
        assert table.text() in text
        assert table.markdown() in markdown
        assert table.html(inline=True) in html
    assert cells(html)[1][:3] == ["dead layer", "blocks.4.conv", "1"]
    for shown in (markdown, html):
        assert "Possible consequences, also found: collapse." in shown
        assert "Not checked: 1, for lack of units." in shown
    healthy = Diagnosis((), (), {})
    assert "Nothing was found." in record_tables(RECORD, diagnosis=healthy, format="html")


def test_record_tables_leaves_out_what_was_not_recorded():
    bare = without_layers(make_record(steps=3, layers=1))
    assert record_tables(bare) == f"Record(3 steps, 0 layers)\n\n{diagnose(bare)}"
    assert "|" not in record_tables(bare, format="markdown")


def test_record_tables_rejects_mistakes():
    with pytest.raises(ValueError, match="format must be 'text', 'markdown' or 'html', got 'md'"):
        record_tables(RECORD, format="md")
    with pytest.raises(TypeError, match="record must be Record, got str"):
        record_tables("run")
    with pytest.raises(TypeError, match="diagnosis must be Diagnosis, got tuple"):
        record_tables(RECORD, diagnosis=(FINDING,))
    with pytest.raises(ValueError, match="layers must match one of 30 names, got 'conv'"):
        record_tables(RECORD, layers="conv")
