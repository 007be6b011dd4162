import numpy as np

from experiments.harness import charts
from experiments.harness.intervals import difference


def texts(labels):
    return [label.get_text() for label in labels]


def test_curves_draws_every_seed_and_the_means():
    found = {"plain": {0.01: [0.1, 0.3], 0.1: [0.5, 0.7]}, "norm": {0.1: [0.8], 1: [0.9]}}
    figure = charts.curves(found, xlabel="rate", ylabel="accuracy")
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert texts(axes.get_legend().get_texts()) == ["plain", "norm"]
    lines = [np.column_stack(line.get_data()).tolist() for line in axes.get_lines()]
    assert lines[0] == [[0.01, 0.2], [0.1, 0.6]]
    assert lines[1:3] == [[[0.01, 0.1], [0.01, 0.3]], [[0.1, 0.5], [0.1, 0.7]]]
    assert lines[3:] == [[[0.1, 0.8], [1, 0.9]], [[0.1, 0.8]], [[1, 0.9]]]
    assert texts(axes.get_xticklabels()) == ["0.01", "0.1", "1"]


def test_sides_compares_with_the_first():
    found = {"whole": [0.9, 0.91, 0.92], "part": [0.8, 0.82, 0.81], "other": [0.95, 0.96, 0.93]}
    values, differences = charts.sides(found, "accuracy").axes
    assert texts(values.get_yticklabels()) == list(found)
    assert values.get_lines()[0].get_xdata().tolist() == [0.9, 0.91, 0.92]
    assert "difference from whole" in differences.get_xlabel()
    first, second = differences.containers
    mean, low, high = difference(found["part"], found["whole"])
    assert first.lines[0].get_xdata() == [mean]
    (bar,) = first.lines[2][0].get_segments()
    np.testing.assert_allclose(bar[:, 0], [low, high])
    assert second.lines[0].get_xdata() > 0


def test_sides_draws_no_interval_for_one_seed():
    _, differences = charts.sides({"a": [0.9], "b": [0.8]}, "accuracy").axes
    assert not differences.containers
    assert differences.get_xlabel().endswith("(needs two seeds)")


def test_progress_draws_a_line_per_seed_and_the_goal():
    lines = {"a": [[(1, 0.1), (2, 0.95)], [(1, 0.2), (2, 0.97)]], "b": [[(1, 0.9)]]}
    (axes,) = charts.progress(lines, 0.96, xlabel="steps", ylabel="accuracy").axes
    assert len(axes.get_lines()) == 4
    assert texts(axes.get_legend().get_texts()) == ["a", "b", "goal, 0.9600"]
    low, high = axes.get_ylim()
    assert low < 0.9 < 0.96 < high


def test_sides_reuses_colours():
    found = {str(i): [0.9, 0.8] for i in range(9)}
    values, _ = charts.sides(found, "accuracy").axes
    assert len(values.get_lines()) == 18


def test_maps_draws_a_cell_per_seed_and_counts_those_that_train():
    found = {"plain": {0.01: [0.95, 0.91], 2.0: [0.1, 0.92]}, "norm": {0.01: [0.9, 0.95]}}
    figure = charts.maps(found, xlabel="rate", label="accuracy", trains=0.9)
    plain, norm = figure.axes[:2]
    (image,) = plain.get_images()
    # Seeds upwards, rates to the right, on a fixed scale.
    assert image.get_array().tolist() == [[0.95, 0.1], [0.91, 0.92]]
    assert image.get_clim() == (0, 1)
    assert texts(plain.get_xticklabels()) == ["0.01", "2"]
    assert texts(plain.get_yticklabels()) == ["0", "1"]
    assert (plain.get_xlabel(), plain.get_ylabel()) == ("rate", "seed")
    assert plain.get_title() == "accuracy, plain"
    above = [axes.child_axes[0] for axes in (plain, norm)]
    assert [texts(axes.get_xticklabels()) for axes in above] == [["2/2", "1/2"], ["2/2"]]
    assert above[0].get_xlabel() == "seeds that reach 0.9"
