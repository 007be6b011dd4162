"""Marks for the findings of a diagnosis in plots of a training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convjax._checks import describe_value
from convjax.diagnosis._diagnose import Finding
from convjax.plots.figure import ORANGE

if TYPE_CHECKING:
    import matplotlib.figure


def mark(
    figure: "matplotlib.figure.Figure", findings: Sequence[Finding]
) -> "matplotlib.figure.Figure":
    """Marks the first step of each finding with a numbered line, and returns the figure.

    Every panel over steps gets the lines. The findings are listed below the figure.

    Args:
      figure: a plot over steps, such as those of `plot_loss` and `color_dim`.
      findings: of a diagnosis, `diagnose(record).findings`.

    Raises:
      TypeError: if figure is not a figure, or findings is not a sequence of findings.
      ValueError: if the figure has no panel over steps.
    """
    if not hasattr(figure, "axes"):
        raise TypeError(
            f"figure must be a matplotlib figure, got {describe_value(figure)}. Pass what a "
            "function of convjax.plots returned."
        )
    if not (isinstance(findings, Sequence) and all(isinstance(f, Finding) for f in findings)):
        raise TypeError(
            f"findings must be a sequence of findings, got {describe_value(findings)}. Pass "
            "diagnose(record).findings."
        )
    panels = [axes for axes in figure.axes if axes.get_xlabel() == "step"]
    panels += [
        axes
        for axes in figure.axes
        if axes not in panels and any(axes.get_shared_x_axes().joined(axes, p) for p in panels)
    ]
    if not panels:
        raise ValueError(
            "figure must have a panel over steps, got none. Pass a plot such as plot_loss returns."
        )
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
