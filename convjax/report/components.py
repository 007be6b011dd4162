"""The parts of a page: sections of text, tables, charts, findings and mistakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convjax.diagnosis._diagnose import Diagnosis
from convjax.report.table import Table

# Colours of lines on the light and the dark background: those of Okabe and Ito, darkened and
# lightened until they are readable.
_LIGHT = ("#0072b2", "#c04f00", "#00795a", "#9b3f7a", "#7a6a00", "#4b4f9e", "#8a3324", "#5a6068")
_DARK = ("#56b4e9", "#ff9d52", "#3ccb9b", "#e894c4", "#e8d94a", "#a9a4f5", "#e58a78", "#a3abb5")
# Colours of a sequence, such as the layers from first to last: from cold to warm.
_LIGHT_RAMP = ("#1f3fbf", "#7a1fa8", "#c2307d", "#c7521a", "#8a6100")
_DARK_RAMP = ("#7fa8ff", "#c08cff", "#ff86c0", "#ff9a5c", "#f2d64b")
DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True)
class LineStyle:
    """The name and the style of a line.

    Attributes:
      name: of the line in the legend.
      colour: a CSS colour, for both backgrounds.
      dash: one of DASHES.
    """

    name: str
    colour: str
    dash: str = "solid"


def distinct_lines(names: Sequence[str]) -> list[LineStyle]:
    """Returns a line per name, in distinct colours; from the ninth on, the dashes differ."""
    return [
        LineStyle(name, series(i), DASHES[i // len(_LIGHT) % len(DASHES)])
        for i, name in enumerate(names)
    ]


def ordered_lines(names: Sequence[str]) -> list[LineStyle]:
    """Returns a line per name, in colours that change gradually from first to last."""
    last = max(len(names) - 1, 1)
    return [LineStyle(name, _ramp(i / last)) for i, name in enumerate(names)]


def series(index: int) -> str:
    """Returns one of eight colours; further indices repeat them."""
    index %= len(_LIGHT)
    return f"light-dark({_LIGHT[index]}, {_DARK[index]})"


def _ramp(share: float) -> str:
    light, dark = (_between(stops, share) for stops in (_LIGHT_RAMP, _DARK_RAMP))
    return f"light-dark({light}, {dark})"


def _between(stops: Sequence[str], share: float) -> str:
    place = share * (len(stops) - 1)
    first = min(int(place), len(stops) - 2)
    low, high = (bytes.fromhex(stop[1:]) for stop in stops[first : first + 2])
    weight = place - first
    mixed = (round(a + weight * (b - a)) for a, b in zip(low, high, strict=True))
    return "#" + bytes(mixed).hex()


@dataclass(frozen=True)
class Text:
    """A paragraph of text.

    Attributes:
      text: the text.
      quiet: whether it is secondary, and shown in grey.
      kind: the name of the template's macro.
    """

    text: str
    quiet: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Chart:
    """A chart, which the page draws from plain data when it comes into view.

    Attributes:
      id: unique on the page.
      title: above the chart.
      variants: the content for each choice of the block; one if there is no choice. The format is
        documented in templates/report_charts.js.
      tall: whether it is higher than a chart of lines.
    """

    id: str
    title: str
    variants: Sequence[Mapping[str, Any]]
    tall: bool = False


@dataclass(frozen=True)
class Charts:
    """Charts side by side, with one legend and an optional choice.

    Attributes:
      charts: from left to right.
      lines: of the legend; a click hides the line of this name in every chart.
      choice: what the reader chooses, such as "layer".
      choices: the names to choose from; empty if there is no choice.
      chosen: index of the choice shown first.
      kind: the name of the template's macro.
    """

    charts: Sequence[Chart]
    lines: Sequence[LineStyle] = ()
    choice: str = ""
    choices: Sequence[str] = ()
    chosen: int = 0
    kind: str = "charts"


@dataclass(frozen=True)
class Findings:
    """A diagnosis, with the name of the run if there are several."""

    diagnosis: Diagnosis
    name: str = ""
    kind: str = "findings"


@dataclass(frozen=True)
class Mistake:
    """An image with a wrong answer; `source` is a data URL and probabilities are texts."""

    source: str
    index: int
    label: str
    answer: str
    label_probability: str
    answer_probability: str


@dataclass(frozen=True)
class Mistakes:
    """Wrong answers with their images."""

    mistakes: Sequence[Mistake]
    kind: str = "mistakes"


@dataclass(frozen=True)
class Confusion:
    """The counts of answers by label, (C, C), with the names of the classes."""

    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    kind: str = "confusion"


Block = Text | Table | Charts | Findings | Mistakes | Confusion


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
      id: the target of links.
      title: the heading.
      lead: one or two sentences on how to read the section.
      blocks: the content.
    """

    id: str
    title: str
    lead: str
    blocks: Sequence[Block] = field(default_factory=tuple)
