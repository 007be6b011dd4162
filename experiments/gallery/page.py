"""The page of the gallery: sections of pictures, each with a caption, in one HTML file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convjax.report import html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150  # sharp on screens with more than 96 pixels per CSS inch
CSS_PIXELS = 96  # per inch


@dataclass(frozen=True)
class Picture:
    """A figure with its texts.

    Attributes:
      title: a heading, unique on the page.
      figure: the figure.
      alt: describes the picture for those who cannot see it.
      caption: explains the picture and names the computed numbers.
      numbers: of the chapter's figures that show the same: 4 for Figure 13-4.
    """

    title: str
    figure: "Figure"
    alt: str
    caption: str
    numbers: Sequence[int] = ()


@dataclass(frozen=True)
class GallerySection:
    """The pictures of one part of the chapter, after an introductory text."""

    title: str
    text: str
    pictures: Sequence[Picture]


def page(sections: Sequence[GallerySection], *, lead: str, foot: str) -> str:
    """Returns the page in HTML.

    Args:
      sections: in the order of the chapter.
      lead: text above the sections.
      foot: text below them.

    Raises:
      ValueError: if two headings have the same anchor, so that links would lead to the first.
      ImportError: if jinja2 is not installed.
    """
    titles = [section.title for section in sections]
    titles += [picture.title for section in sections for picture in section.pictures]
    names = [anchor(title) for title in titles]
    for title, name in zip(titles, names, strict=True):
        if names.count(name) > 1:
            raise ValueError(
                f"headings must differ, got {title!r} and another with the anchor #{name}. "
                "Rename one of them."
            )
    return html.render(
        "experiments.gallery",
        "gallery.html",
        lead=lead,
        foot=foot,
        sections=[
            {
                "id": anchor(section.title),
                "title": section.title,
                "text": section.text,
                "pictures": [_shown(picture) for picture in section.pictures],
            }
            for section in sections
        ],
    )


def anchor(title: str) -> str:
    """Returns the anchor of a heading: "One-cycle" becomes "one-cycle"."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def signed(value: float) -> str:
    """Returns the text of a number, with a true minus sign."""
    return f"{value:g}".replace("-", "−")


def _reference(numbers: Sequence[int]) -> str:
    names = " and ".join(f"13-{number}" for number in numbers)
    return f" Figure{'s' * (len(numbers) > 1)} {names} in the chapter." if names else ""


def _shown(picture: Picture) -> dict[str, str | int]:
    width, height = (round(CSS_PIXELS * inches) for inches in picture.figure.get_size_inches())
    return {
        "id": anchor(picture.title),
        "title": picture.title,
        "source": html.picture(picture.figure, dpi=DPI),
        "alt": picture.alt,
        "caption": picture.caption + _reference(picture.numbers),
        "width": width,
        "height": height,
    }
