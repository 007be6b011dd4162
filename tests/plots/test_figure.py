"""The figure that all plots share."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from convjax import plots
from tests.plots.drawn import PNG, caption, make_record, steps_of

pytest.importorskip("matplotlib")


@pytest.mark.parametrize(
    "plot",
    [
        plots.plot_sched,
        plots.plot_loss,
        lambda record: plots.plot_layer_stats(record, 0),
        lambda record: plots.color_dim(record, 0),
    ],
)
def test_plots_reject_a_record_without_steps(plot):
    with pytest.raises(ValueError, match="record must hold at least one step to draw, got none"):
        plot(make_record().between(0, 0))


def test_new_figure_has_a_png_for_notebooks():
    assert plots.plot_sched(make_record())._repr_png_().startswith(PNG)


def run(code):
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


@pytest.mark.slow
def test_plots_import_matplotlib_lazily_and_never_pyplot():
    run(
        """
        import sys
        import convjax.plots, convjax.plots.images
        assert not any(name.startswith("matplotlib") for name in sys.modules)
        convjax.plots.new_figure(1, 1).savefig("/dev/null", format="png")
        assert "matplotlib.pyplot" not in sys.modules
        """
    )


@pytest.mark.slow
def test_new_figure_without_matplotlib_names_the_package():
    run(
        """
        import sys
        sys.modules["matplotlib"] = None  # import then raises ImportError
        from convjax import plots
        try:
            plots.new_figure(1, 1)
        except ImportError as error:
            assert 'pip install "convjax[plots]"' in str(error), error
        else:
            raise AssertionError("new_figure made a figure without matplotlib")
        """
    )


def test_plots_of_merged_rows_state_the_merging():
    record = make_record(steps=64).merged(16)
    (axes,) = plots.plot_loss(record).axes
    assert axes.get_legend().get_texts()[0].get_text() == "training, mean of up to 4 batches"
    np.testing.assert_array_equal(steps_of(axes)[0], record.first)
    assert "up to 4 neighbouring watched steps" in caption(plots.color_dim(record, 0))
    assert "A column is one step." in caption(plots.color_dim(make_record(steps=64), 0))
