"""The gallery's page, and the command that writes it, with `--quick`."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from convjax.plots import new_figure
from experiments.cli.app import app
from experiments.gallery.colour import COLOUR_BIAS, COLOUR_KERNEL, ROOF, TILES, photograph
from experiments.gallery.page import DPI, GallerySection, Picture, anchor, page

CHAPTER = [
    "A kernel at one place",
    "The kernel on the grid",
    "Several kernels at once",
    "Padding and stride",
    "The equations",
    "What the first layer of a network computes",
    "Receptive fields",
    "Colour images",
    "What happens in the layers",
    "One-cycle",
    "The colourful dimension",
    "Batch norm",
]


class Read(HTMLParser):
    """Headings, links, anchors, images and captions of a page."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.links, self.places, self.images = [], [], [], []
        self.captions, self._within = [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        of = dict(attributes)
        self._within = tag
        if tag == "img":
            self.images.append(of)
        if "href" in of:
            self.links.append(of["href"])
        if "id" in of:
            self.places.append(of["id"])

    def handle_endtag(self, tag):
        self._within = None

    def handle_data(self, data):
        if self._within in ("h1", "h2", "h3"):
            self.headings.append((self._within, data))
        if self._within == "figcaption":
            self.captions.append(data)


def invoke(*arguments):
    return CliRunner().invoke(app, ["gallery", *map(str, arguments)])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    result = invoke("--quick", "--out", folder / "gallery.html")
    assert result.exit_code == 0, result.output
    return folder, (folder / "gallery.html").read_text(encoding="utf-8"), result.output


@pytest.mark.slow
def test_gallery_command_keeps_the_order_of_the_chapter(made):
    headings = Read(made[1]).headings
    assert [text for level, text in headings if level == "h2"] == CHAPTER
    assert headings[0][0] == "h1"


@pytest.mark.slow
def test_gallery_command_embeds_every_picture_with_its_texts(made):
    folder, text, output = made
    read = Read(text)
    pictures = [heading for level, heading in read.headings if level == "h3"]
    assert len(read.images) == len(read.captions) == len(pictures) == 33
    for image in read.images:
        start, _, data = image["src"].partition(",")
        assert start == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
        assert len(image["alt"]) > 20
        assert int(image["width"]) > 200
        assert int(image["height"]) > 100
    assert len({image["src"] for image in read.images}) == len(pictures)
    assert all(len(caption) > 40 for caption in read.captions)
    assert f"{len(pictures)} pictures" in output
    # There is no run folder and no partial file.
    assert [path.name for path in folder.iterdir()] == ["gallery.html"]


@pytest.mark.slow
def test_gallery_command_draws_all_numbered_figures_of_the_chapter_in_order(made):
    captions = Read(made[1]).captions
    named = [re.search(r" Figures? (.*) in the chapter\.$", caption) for caption in captions]
    numbers = [int(n) for match in named if match for n in re.findall(r"13-(\d+)", match[1])]
    assert numbers == list(range(1, 17))


@pytest.mark.slow
def test_page_links_to_every_section_and_picture(made):
    read = Read(made[1])
    assert read.links == [f"#{place}" for place in read.places]
    titles = [text for level, text in read.headings if level != "h1"]
    assert read.places == [anchor(title) for title in titles]
    assert len(set(read.places)) == len(read.places) == 33 + len(CHAPTER)


@pytest.mark.slow
def test_page_needs_no_network_and_has_a_dark_scheme(made):
    text = made[1]
    assert "http" not in text
    assert "<script" not in text
    assert "<link" not in text
    assert "prefers-color-scheme: dark" in text
    # Figures have black text on a transparent background.
    assert "background: #ffffff" in text


@pytest.mark.slow
def test_gallery_command_computes_the_numbers_of_captions(made):
    captions = " ".join(Read(made[1]).captions)
    assert "0 at (1, 1), 762 at (5, 7), −29 at (8, 18)" in captions
    assert "Of the 36 entries 20 are always zero" in captions
    for sizes in ("5×5 becomes 3×3", "4×4 becomes 2×2", "5×5 becomes 6×6"):
        assert sizes in captions
    assert "is the sum of 9 products" in captions
    assert "depend on 7×7 = 49 pixels" in captions
    assert "evaluated 3 times in each" in captions  # in the three steps of a quick run
    assert re.search(r"ends, after 3 steps: \d+\.\d %", captions)
    red, green, blue = photograph()[TILES]
    assert f"({red}, {green}, {blue})" in captions
    assert red > green > blue  # orange
    windows = np.lib.stride_tricks.sliding_window_view(photograph()[ROOF], (3, 3), (0, 1))
    largest = np.einsum("ijchw,chw->ij", windows.astype(int), COLOUR_KERNEL).max() + COLOUR_BIAS
    assert f"largest result, {largest}, computed" in captions
    assert "P = 12, Q = 15, R = 18, S = 27" in made[1]


@pytest.fixture
def folder_of_images(tmp_path):
    def make(side, channels):
        rng = np.random.default_rng(0)
        for split in ("train", "test"):
            for name in ("cat", "dog"):
                path = tmp_path / "images" / split / name
                path.mkdir(parents=True)
                for i in range(6):
                    shape = (side, side, 3) if channels == 3 else (side, side)
                    pixels = rng.integers(0, 256, shape).astype(np.uint8)
                    Image.fromarray(pixels).save(path / f"{i}.png")
        return tmp_path / "images"

    return make


@pytest.mark.slow
def test_gallery_command_leaves_colour_images_unchanged(folder_of_images, tmp_path):
    out = tmp_path / "gallery.html"
    result = invoke("--quick", "--data", folder_of_images(16, 3), "--out", out)
    assert result.exit_code == 0, result.output
    captions = " ".join(Read(out.read_text(encoding="utf-8")).captions)
    assert "trained on the same images for" in captions
    assert "tinted" not in captions
    assert str(tmp_path) not in out.read_text(encoding="utf-8")


def test_gallery_command_rejects_large_images(folder_of_images, tmp_path):
    result = invoke("--quick", "--data", folder_of_images(40, 1), "--out", tmp_path / "x.html")
    assert result.exit_code == 2
    assert "at most 32×32 pixels" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nmist"], "--data must be one of"),
        (["--data", "mnist", "--data-dir", "/nowhere"], "/nowhere"),
        (["--out", f"{__file__}/x.html"], "--out must lie in a folder"),
        (["--out", "."], "--out must be a file, got the folder"),
        (["--size", "3"], "No such option"),
    ],
)
def test_gallery_command_reports_mistakes_with_status_2(arguments, message, tmp_path):
    if "--out" not in arguments:
        arguments = [*arguments, "--out", tmp_path / "gallery.html"]
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_gallery_command_rejects_an_existing_file(tmp_path):
    out = tmp_path / "gallery.html"
    out.write_text("mine")
    result = invoke("--out", out)
    assert result.exit_code == 2
    assert "--out must be a new file" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert out.read_text() == "mine"


# --- the page -----------------------------------------------------------------------------------


def section(title="One", picture="Two", words="words"):
    return GallerySection(title, words, [Picture(picture, new_figure(4, 2), words, words)])


def test_page_gives_pictures_96_pixels_per_inch():
    (image,) = Read(page([section()], lead="", foot="")).images
    assert (image["width"], image["height"]) == ("384", "192")
    data = base64.b64decode(image["src"].partition(",")[2])
    assert np.frombuffer(data[16:24], ">u4").tolist() == [
        4 * DPI,
        2 * DPI,
    ]


def test_page_escapes_texts():
    text = page([section("1 < 2", words='"a" & <b>')], lead="<i>", foot="<u>")
    assert Read(text).headings[1] == ("h2", "1 < 2")
    assert not any(tag in text for tag in ("<b>", "<i>", "<u>"))
    assert Read(text).images[0]["alt"] == '"a" & <b>'


def test_page_names_figures_of_the_chapter():
    pictures = [Picture(f"{n}", new_figure(4, 2), "", "words.", n) for n in ((), (4,), (12, 13))]
    read = Read(page([GallerySection("One", "", pictures)], lead="", foot=""))
    assert read.captions == [
        "words.",
        "words. Figure 13-4 in the chapter.",
        "words. Figures 13-12 and 13-13 in the chapter.",
    ]


def test_page_rejects_equal_headings():
    with pytest.raises(ValueError, match=r"headings must differ, got 'Two' .*with the anchor #two"):
        page([section(), section("Three", "two?")], lead="", foot="")


def test_anchor_by_hand():
    assert anchor("A 4×4 kernel with padding 2") == "a-4-4-kernel-with-padding-2"
    assert anchor("One-cycle!") == "one-cycle"
