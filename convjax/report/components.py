"""What a page consists of: sections of sentences, tables, charts, findings and mistakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convjax.diagnosis._diagnose import Diagnosis

# Colours of lines, each readable on the light and on the dark ground of the pages: after Okabe and
# Ito, darker and lighter.
_LIGHT = ("#0072b2", "#c04f00", "#00795a", "#9b3f7a", "#7a6a00", "#4b4f9e", "#8a3324", "#5a6068")
_DARK = ("#56b4e9", "#ff9d52", "#3ccb9b", "#e894c4", "#e8d94a", "#a9a4f5", "#e58a78", "#a3abb5")
# What follows in a sequence, such as the layers from the first to the last, from cold to warm.
_LIGHT_RAMP = ("#1f3fbf", "#7a1fa8", "#c2307d", "#c7521a", "#8a6100")
_DARK_RAMP = ("#7fa8ff", "#c08cff", "#ff86c0", "#ff9a5c", "#f2d64b")
DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True)
class LineStyle:
    """How a line is drawn, and the name of what it shows.

    Attributes:
      colour: of CSS, for both grounds.
      dash: one of DASHES.
    """

    name: str
    colour: str
    dash: str = "solid"


def distinct_lines(names: Sequence[str]) -> list[LineStyle]:
    """Returns a line for each name, of colours that are told apart, and from the ninth on of other
    dashes."""
    return [
        LineStyle(name, series(i), DASHES[i // len(_LIGHT) % len(DASHES)])
        for i, name in enumerate(names)
    ]


def ordered_lines(names: Sequence[str]) -> list[LineStyle]:
    """Returns a line for each name, of colours that go from the first to the last."""
    last = max(len(names) - 1, 1)
    return [LineStyle(name, _ramp(i / last)) for i, name in enumerate(names)]


def series(index: int) -> str:
    """Returns the colour number `index`; they begin anew after eight."""
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
    """A sentence or two.

    Attributes:
      quiet: it is said in passing.
    """

    text: str
    quiet: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """A table with a caption.

    Attributes:
      head: titles of the columns.
      rows: texts of the cells; the first of each row is its title.
      numeric: which columns hold numbers, set to the right.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool]
    kind: str = "table"


@dataclass(frozen=True)
class Chart:
    """One chart, which the page draws from plain data when it comes into view.

    Attributes:
      id: its name on the page.
      variants: what it shows, for each choice of its block; one where there is no choice. See
        templates/report_charts.js for what they hold.
      tall: it needs more height than lines do.
    """

    id: str
    title: str
    variants: Sequence[Mapping[str, Any]]
    tall: bool = False


@dataclass(frozen=True)
class Charts:
    """Charts side by side, with a legend for all of them and perhaps a choice.

    Attributes:
      lines: of the legend; a click there hides the line of this name in every chart.
      choices: names among which the reader chooses, such as layers; none where there is one.
      chosen: the first choice to be shown.
    """

    charts: Sequence[Chart]
    lines: Sequence[LineStyle] = ()
    choice: str = ""
    choices: Sequence[str] = ()
    chosen: int = 0
    kind: str = "charts"


@dataclass(frozen=True)
class Findings:
    """A diagnosis, and of which run where there are several."""

    diagnosis: Diagnosis
    name: str = ""
    kind: str = "findings"


@dataclass(frozen=True)
class Mistake:
    """An image with a wrong answer; source is a data URL, probabilities are texts."""

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
    """Counts of answers by label, (C, C), with the classes' names."""

    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    kind: str = "confusion"


Block = Text | Table | Charts | Findings | Mistakes | Confusion


@dataclass(frozen=True)
class Section:
    """A part of a page: how to read it, and what there is.

    Attributes:
      id: where links lead.
      lead: one or two sentences.
    """

    id: str
    title: str
    lead: str
    blocks: Sequence[Block] = field(default_factory=tuple)
