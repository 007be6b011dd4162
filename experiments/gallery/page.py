"""The page of the gallery: sections of pictures, each with a caption, in one HTML file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convjax.report import html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150  # sharp on screens with more pixels than inches have
CSS_PIXELS = 96  # per inch


@dataclass(frozen=True)
class Picture:
    """A figure with its words.

    Attributes:
      title: a heading, unlike that of any other picture.
      alt: what the picture shows, for those who do not see it.
      caption: what is to be seen, and which numbers are computed.
    """

    title: str
    figure: "Figure"
    alt: str
    caption: str


@dataclass(frozen=True)
class GallerySection:
    """Pictures of one part of the chapter, with a text before them."""

    title: str
    text: str
    pictures: Sequence[Picture]


def page(sections: Sequence[GallerySection], *, lead: str, foot: str) -> str:
    """Returns the page.

    Raises:
      ValueError: if two headings are alike, so that links would lead to the first of them.
      ImportError: if jinja2 is not installed.
    """
    titles = [section.title for section in sections]
    titles += [picture.title for section in sections for picture in section.pictures]
    names = [anchor(title) for title in titles]
    for title, name in zip(titles, names, strict=True):
        if names.count(name) > 1:
            raise ValueError(
                f"headings must differ, got {title!r} and another that leads to #{name}. "
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
    """Returns a heading as the name of a place on the page: "One-cycle" is "one-cycle"."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def _shown(picture: Picture) -> dict[str, str | int]:
    width, height = (round(CSS_PIXELS * inches) for inches in picture.figure.get_size_inches())
    return {
        "id": anchor(picture.title),
        "title": picture.title,
        "source": html.picture(picture.figure, dpi=DPI),
        "alt": picture.alt,
        "caption": picture.caption,
        "width": width,
        "height": height,
    }
