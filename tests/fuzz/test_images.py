"""Mutated files of images: IDX, gzipped or not, and folders of PNG and JPEG."""

import gzip
import io
import math
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.data import DataError, load
from convjax.data.idx import read_idx
from convjax.data.idx_sets import find_idx_files, load_idx
from tests.data.conftest import SMALL_SETS, UNLIKELY, idx_bytes, write_idx_set
from tests.fuzz.mutations import EDGES, mutated, on_files

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

pytestmark = SMALL_SETS


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVJAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CONVJAX_DATA_DIR", raising=False)


def packed(content, packing):
    return gzip.compress(content, 1, mtime=0) if packing else content


@on_files(150)
@given(data=st.data(), compress=st.booleans(), num_axes=st.sampled_from((1, 3)))
def test_read_idx_of_mutated_bytes(tmp_path, data, compress, num_axes):
    content = idx_bytes(np.arange(24).reshape((24,) if num_axes == 1 else (2, 3, 4)))
    content = data.draw(mutated(content))
    file = packed(content, compress)
    if data.draw(st.booleans()):
        file = data.draw(mutated(file))
    path = tmp_path / ("file.gz" if compress else "file")
    path.write_bytes(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            array = read_idx(path, num_axes)
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017  # an array is valid, too
            return
    # The entries are those of the file.
    found = gzip.decompress(file) if compress else file
    assert idx_bytes(array) == found


@on_files(60)
@given(
    sizes=st.tuples(*[st.sampled_from(EDGES)] * 3),
    entries=st.integers(0, 40),
    compress=st.booleans(),
)
def test_read_idx_of_headers_that_declare_other_sizes(tmp_path, sizes, entries, compress):
    content = b"\0\0\x08\x03" + struct.pack(">3I", *sizes) + bytes(entries)
    path = tmp_path / ("file.gz" if compress else "file")
    path.write_bytes(packed(content, compress))
    if entries and math.prod(sizes) == entries:
        assert read_idx(path, 3).shape == sizes
    else:
        with pytest.raises(DataError, match=r"in its header|its header declares"):
            read_idx(path, 3)


@on_files(40)
@given(data=st.data())
def test_load_idx_of_mutated_files(tmp_path, data):
    folder = tmp_path / "mnist"
    write_idx_set(folder, num_train=3, num_test=2, compress=False)
    files = sorted(folder.iterdir())
    for path in data.draw(st.lists(st.sampled_from(files), max_size=2, unique=True)):
        path.write_bytes(data.draw(mutated(path.read_bytes())))
    try:
        found = find_idx_files(tmp_path, "mnist")
        dataset = load_idx("mnist", found)
    except DataError:
        return
    assert dataset.train.images.ndim == 4
    assert dataset.train.labels.max() <= 9


def encoded(kind, mode="L", **options):
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    shape = (6, 5) if mode in ("L", "P") else (6, 5, 3)
    Image.fromarray(rng.integers(0, 256, shape, np.uint8)).convert(mode).save(file, kind, **options)
    return file.getvalue()


SEEDS = {
    "grey.png": encoded("PNG"),
    "colour.png": encoded("PNG", "RGB"),
    "palette.png": encoded("PNG", "P", transparency=b"\x80\x10"),
    "alpha.png": encoded("PNG", "RGBA"),
    "grey.webp": encoded("WEBP", lossless=True),
    "alpha.webp": encoded("WEBP", "RGBA"),
    "grey.bmp": encoded("BMP"),
    "palette.gif": encoded("GIF", "P"),
    "colour.tif": encoded("TIFF", "RGB"),
    "colour.ppm": encoded("PPM", "RGB"),
    "colour.qoi": encoded("QOI", "RGB"),
    "grey.jpg": encoded("JPEG"),
    "colour.jpg": encoded("JPEG", "RGB"),
    "described.jpg": encoded(
        "JPEG", "RGB", exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6"
    ),
}


def folder_with(root, name, content):
    """Makes a folder with two valid images and one of this content."""
    shutil.rmtree(root, ignore_errors=True)
    for split in ("train", "test"):
        (root / split / "a").mkdir(parents=True)
        (root / split / "a" / "good.png").write_bytes(SEEDS["grey.png"])
    (root / "train" / "a" / name).write_bytes(content)
    return root


def check_folder(root):
    """Loads a folder: the result is a data set or a documented error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", UNLIKELY)
        try:
            dataset = load(root)
        except DataError as error:
            assert root.name in str(error)  # noqa: PT017
            return
    assert dataset.train.images.shape[:3] == (2, 6, 5)


@on_files(150)
@given(data=st.data(), name=st.sampled_from(sorted(SEEDS)))
def test_load_folder_of_mutated_images(tmp_path, data, name):
    content = data.draw(mutated(SEEDS[name]) | st.binary(max_size=100))
    check_folder(folder_with(tmp_path / "pictures", name, content))


def chunk(kind, content):
    """Returns a chunk of a PNG, with its checksum."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


@on_files(100)
@given(
    width=st.sampled_from((0, 1, 5, 4097, 2**16, 2**31 - 1, 2**32 - 1)),
    height=st.sampled_from((0, 1, 6, 4096, 2**16, 2**31 - 1)),
    depth=st.sampled_from((1, 2, 8, 16, 3)),
    colour=st.sampled_from((0, 2, 3, 4, 6, 5)),
    interlaced=st.integers(0, 2),
    extra=st.sampled_from((b"", b"tEXt", b"zTXt", b"iCCP", b"PLTE", b"tRNS", b"acTL", b"eXIf")),
    content=st.binary(max_size=30),
)
def test_load_folder_of_odd_png_chunks(
    tmp_path, width, height, depth, colour, interlaced, extra, content
):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    if extra:
        png += chunk(extra, content)
    png += chunk(b"IDAT", zlib.compress(bytes(31 * 6))) + chunk(b"IEND", b"")
    check_folder(folder_with(tmp_path / "pictures", "odd.png", png))


names = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20)


@on_files(60)
@given(class_name=names, file_name=names, suffix=st.sampled_from((".png", ".PNG", ".jpeg", "")))
def test_load_folder_of_odd_names(tmp_path, class_name, file_name, suffix):
    root = folder_with(tmp_path / "pictures", "good2.png", SEEDS["grey.png"])
    try:
        for split in ("train", "test"):
            (root / split / class_name).mkdir(exist_ok=True)
            (root / split / class_name / "1.png").write_bytes(SEEDS["grey.png"])
        (root / "train" / "a" / f"{file_name}{suffix}").write_bytes(SEEDS["grey.png"])
    except (OSError, ValueError):  # the file system rejects the name
        return
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* are no pictures")  # other suffixes
            dataset = load(root)
    except DataError as error:
        assert "printable" in str(error) or class_name in ("..", ".")  # noqa: PT017
        return
    assert "a" in dataset.class_names
    print(dataset)  # its text can be printed on any terminal


def test_load_folder_ignores_nested_folders(tmp_path):
    root = folder_with(tmp_path / "pictures", "good2.png", SEEDS["grey.png"])
    deep = root / "train" / "a"
    for _ in range(60):
        deep = deep / "inner"
    deep.mkdir(parents=True)
    (deep / "1.png").write_bytes(SEEDS["grey.png"])
    with pytest.warns(UserWarning, match=r"no pictures in a class folder: train/a/inner\. "):
        found = load(root)
    assert len(found.train.images) == 2  # images are only in the folders of the classes


BOMBS = """
import resource, sys, warnings
import numpy
from convjax.data import DataError, load
from convjax.data.idx import read_idx
from PIL import Image, PngImagePlugin, JpegImagePlugin
warnings.simplefilter("error")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
room = used + (300 << 20)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
for call in (lambda: load(sys.argv[1]), lambda: read_idx(sys.argv[2], 3)):
    try:
        call()
    except DataError as error:
        print(error)
"""


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="needs /proc for the memory in use"
)
@pytest.mark.slow
def test_load_of_bombs_in_a_process_with_little_memory(tmp_path):
    side = 30_000  # 900 megapixels of zeros in a megabyte
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(side // 8 + 1) * 1000) for _ in range(side // 1000))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    png += chunk(b"IDAT", data + rows.flush()) + chunk(b"IEND", b"")
    root = folder_with(tmp_path / "pictures", "bomb.png", png)
    # More than a gigabyte of zeros.
    idx = b"\0\0\x08\x03" + struct.pack(">3I", 1088, 1024, 1024)
    block = zlib.compressobj(1, wbits=31)
    with (tmp_path / "bomb.gz").open("wb") as file:
        file.write(block.compress(idx))
        for _ in range(68):
            file.write(block.compress(bytes(16 << 20)))
        file.write(block.flush())
    assert (tmp_path / "bomb.gz").stat().st_size < 16 << 20
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, root, tmp_path / "bomb.gz"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    image, labels = done.stdout.splitlines()
    assert "too large" in image or "at most 16777216 pixels" in image
    assert "at most 1073741824 bytes, got 1088 × 1024 × 1024 = 1140850688" in labels
