"""Findings of a diagnosis, marked in the pictures of a training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convjax._checks import describe_value
from convjax.diagnosis._diagnose import Finding
from convjax.plots.figure import ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def mark(figure: "Figure", findings: Sequence[Finding]) -> "Figure":
    """Marks the first step of each finding by a line in every panel over steps, and returns the
    figure.

    The lines are numbered; what they stand for is written below the figure.

    Args:
      figure: of any picture over steps, such as `plot_loss` and `color_dim`.

    Raises:
      TypeError: if figure is no figure, or findings are none.
      ValueError: if the figure has no panel over steps.
    """
    if not hasattr(figure, "axes"):
        raise TypeError(f"figure must be a figure of matplotlib, got {describe_value(figure)}.")
    if not (isinstance(findings, Sequence) and all(isinstance(f, Finding) for f in findings)):
        raise TypeError(
            f"findings must be those of a diagnosis, diagnose(record).findings, got "
            f"{describe_value(findings)}."
        )
    panels = [axes for axes in figure.axes if axes.get_xlabel() == "step"]
    panels += [
        axes
        for axes in figure.axes
        if axes not in panels and any(axes.get_shared_x_axes().joined(axes, p) for p in panels)
    ]
    if not panels:
        raise ValueError("figure must have a panel over steps, got none.")
    for number, finding in enumerate(findings, 1):
        for axes in panels:
            axes.axvline(finding.step, color=ORANGE, linestyle=":", linewidth=1.5)
        top = max(panels, key=lambda axes: axes.get_position().y1)
        top.annotate(
            str(number),
            (finding.step, 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, 2),
            textcoords="offset points",
            color=ORANGE,
            fontweight="bold",
        )
    if findings:
        texts = (
            f"{number}: {finding.symptom}" + (f" in {finding.where}" if finding.where else "")
            for number, finding in enumerate(findings, 1)
        )
        before = figure.get_supxlabel()
        lines = ([before] if before else []) + list(texts)
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize="small")
    return figure
