import numpy as np
import pytest

from convjax import plots
from convjax.diagnose import diagnose
from convjax.plots.findings import mark
from convjax.plots.parameters import color_magnitudes, plot_update_ratios
from tests.helpers import make_record, without_layers
from tests.test_diagnose import CASES, HEALTHY

pytest.importorskip("matplotlib")

RECORD = make_record(steps=8, layers=2)


def test_update_ratios_are_drawn_for_kernels_on_logarithmic_axes():
    gradient, ratio = plot_update_ratios(RECORD).axes
    assert gradient.get_yscale() == ratio.get_yscale() == "log"
    (line,) = gradient.get_lines()  # the bias has none
    np.testing.assert_allclose(line.get_ydata(), RECORD.parameters.grad_norm[:, 1])
    drawn, thumb = ratio.get_lines()
    np.testing.assert_allclose(drawn.get_ydata(), RECORD.parameters.update_ratio[:, 1])
    assert drawn.get_label() == "conv.kernel"
    assert thumb.get_ydata()[0] == 1e-3


def test_magnitudes_are_the_counts_by_step_and_bin():
    above, panel, below, _ = color_magnitudes(RECORD, "conv.kernel").axes
    (picture,) = panel.collections
    counts = RECORD.parameters.grad_hist[:, 1, 1:41]
    np.testing.assert_allclose(picture.get_array().reshape(40, 8), np.log1p(counts).T)
    assert panel.get_yscale() == "log"
    assert (panel.get_ylabel(), below.get_xlabel()) == ("|gradient|", "step")
    # Of 36 elements 10 to 17 are counted: the others are no numbers.
    np.testing.assert_allclose(
        above.patches[0].get_data().values, 100 - 100 * (10 + np.arange(8)) / 36
    )
    updates = color_magnitudes(RECORD, "conv.bias", of="updates").axes[1]
    assert updates.get_ylabel() == "|update|"


def test_mistakes():
    bare = without_layers(RECORD)
    for draw in (plot_update_ratios, lambda record: color_magnitudes(record, "conv.kernel")):
        with pytest.raises(ValueError, match=r"record must hold gradients or updates, got none"):
            draw(bare)
    with pytest.raises(KeyError, match=r"no parameter 'conv'; there are conv\.bias, conv\.kernel"):
        color_magnitudes(RECORD, "conv")
    with pytest.raises(ValueError, match=r"of must be 'gradients' or 'updates', got 'weights'"):
        color_magnitudes(RECORD, "conv.kernel", of="weights")


def test_findings_are_marked_at_their_steps():
    record = CASES["dead layer"][0]
    findings = diagnose(record).findings
    figure = mark(plots.plot_layer_stats(record, "conv2"), findings)
    for axes in figure.axes:
        assert axes.get_lines()[-1].get_xdata()[0] == findings[0].step
    assert [text.get_text() for text in figure.axes[0].texts] == ["1"]
    assert figure.get_supxlabel() == "1: dead layer in conv2"


def test_marks_stay_below_the_words_of_the_picture():
    record, _, step = CASES["collapse"]
    figure = mark(plots.color_dim(record, "conv1"), diagnose(record).findings)
    over, panel, under = figure.axes[:3]
    assert all(axes.get_lines()[-1].get_xdata()[0] == step for axes in (over, panel, under))
    assert figure.get_supxlabel().startswith("How to read it")
    assert figure.get_supxlabel().endswith("1: collapse in conv1")


def test_no_finding_changes_nothing():
    figure = mark(plots.plot_loss(HEALTHY), ())
    assert not figure.get_supxlabel()
    with pytest.raises(ValueError, match="figure must have a panel over steps, got none"):
        mark(plots.new_figure(1, 1), ())
