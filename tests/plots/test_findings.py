"""Marks of findings, and their list below the figure."""

import pytest

from convjax import plots
from convjax.diagnosis._diagnose import diagnose
from convjax.plots.findings import mark
from tests.diagnosis.test_diagnose import CASES, HEALTHY

pytest.importorskip("matplotlib")


def test_mark_draws_findings_at_their_steps():
    record = CASES["dead layer"][0]
    findings = diagnose(record).findings
    figure = mark(plots.plot_layer_stats(record, "conv2"), findings)
    for axes in figure.axes:
        assert axes.get_lines()[-1].get_xdata()[0] == findings[0].step
    assert [text.get_text() for text in figure.axes[0].texts] == ["1"]
    assert figure.get_supxlabel() == "1: dead layer in conv2"


def test_mark_keeps_the_caption_of_the_figure():
    record, _, step = CASES["collapse"]
    figure = mark(plots.color_dim(record, "conv1"), diagnose(record).findings)
    over, panel, under = figure.axes[:3]
    assert all(axes.get_lines()[-1].get_xdata()[0] == step for axes in (over, panel, under))
    assert figure.get_supxlabel().startswith("How to read it")
    assert figure.get_supxlabel().endswith("1: collapse in conv1")


def test_mark_without_findings_changes_nothing():
    figure = mark(plots.plot_loss(HEALTHY), ())
    assert not figure.get_supxlabel()
    with pytest.raises(ValueError, match="figure must have a panel over steps, got none"):
        mark(plots.new_figure(1, 1), ())
