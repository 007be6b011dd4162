"""The table of a training, by hand."""

import io

from convjax.learner.table import EpochTable

ROW = {
    "epoch": 0, "step": 4, "train_loss": 1.5, "valid_loss": 2.25, "accuracy": 0.5,
    "seconds": 61.2, "compile_seconds": 3.0, "train_accuracy": 0.6,
}  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_in_a_file():
    out = io.StringIO()
    table = EpochTable(8, out)
    table.on_steps(4)
    table.on_evaluation(ROW)
    table.on_evaluation(ROW | {"epoch": 1})
    assert out.getvalue() == (
        "epoch  train_loss  valid_loss    accuracy    time\n"
        "0        1.500000    2.250000    0.500000   01:04\n"
        "1        1.500000    2.250000    0.500000   01:04\n"
    )


def test_bar_on_a_terminal_is_drawn_over_by_the_line():
    out = Terminal()
    table = EpochTable(8, out)
    table.on_steps(4)
    assert out.getvalue() == "\r" + 15 * "█" + 15 * " " + "  50% of 8 steps"
    table.on_evaluation(ROW)
    assert out.getvalue().count("\r") == 3
    assert all(len(line) >= 50 for line in out.getvalue().split("\n")[0].split("\r")[2:])


def test_columns_are_those_of_the_metrics():
    out = io.StringIO()
    row = {name: value for name, value in ROW.items() if "accuracy" not in name}
    EpochTable(8, out).on_evaluation(row | {"root_mean_squared_error": 3.0})
    head, line = out.getvalue().splitlines()
    assert head.split() == ["epoch", "train_loss", "valid_loss", "root_mean_squared_error", "time"]
    assert len(head) == len(line)
