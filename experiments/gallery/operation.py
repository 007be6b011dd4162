"""The gallery's pictures of the operation: kernels, padding and stride, equations, colour."""

import numpy as np

from convjax.analysis._precedents import Windows, output_shape
from convjax.chapter.chapter_data import CENTRES, KERNELS, LEFT_EDGE, TOP_EDGE, embedded_three
from convjax.ops import reference
from convjax.ops.geometry import output_size
from convjax.plots import chapter, images
from convjax.stats.record import Array
from experiments.gallery.page import GallerySection, Picture

# Small whole numbers with four different outputs, so that every sum can be followed.
IMAGE, KERNEL, BIAS = np.array([[3, 0, 1], [2, 1, 4], [0, 5, 6]]), np.array([[1, -1], [2, 3]]), 2

# Red responds to dark above bright, green to the same in one column, blue to the opposite.
COLOUR_KERNEL = np.array([TOP_EDGE, [[0, -1, 0], [0, 0, 0], [0, 1, 0]], -TOP_EDGE])
COLOUR_BIAS = 10
ROOF = slice(40, 112), slice(140, 248)  # rows and columns of part of the roof in the photograph
TILES = (100, 200)  # a pixel on the roof


def photograph() -> Array:
    """Returns the photograph of a pagoda in scikit-learn, uint8 (427, 640, 3).

    Raises:
      ImportError: if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise ImportError(
            "scikit-learn must be installed, because it contains the photograph. Run: "
            'pip install "convjax[experiments]"'
        ) from error
    return np.asarray(load_sample_image("china.jpg"))


def kernel_sections() -> list[GallerySection]:
    """Returns the pictures of one kernel, at one place and on the grid, and of four kernels."""
    three = embedded_three()
    row, column = CENTRES["(5,7)"]
    there, beside = (CENTRES[name] for name in ("(5,7)", "(8,18)"))
    sums = {place: reference.apply_kernel(three, *place, TOP_EDGE) for place in CENTRES.values()}
    listed = ", ".join(f"{_signed(total)} at ({r}, {c})" for (r, c), total in sums.items())
    rows, columns = reference.kernel_map(three, TOP_EDGE).shape
    maps = np.stack([reference.kernel_map(three, kernel) for kernel in KERNELS], -1)[None]
    return [
        GallerySection(
            "A kernel at one place",
            "An image is a table of numbers, and a kernel is a small table of weights. At one "
            "place of the image, each weight is multiplied by the number under it, and the "
            "products are added.",
            [
                Picture(
                    "Pixels as numbers",
                    chapter.pixel_table(three, (4, 16), (5, 22)),
                    "A handwritten three beside a table of its pixels, from 0 on white to 254 on "
                    "black.",
                    "Part of a three as it is stored. Every number is drawn on its own shade. All "
                    "shades have one scale, from 0, white, to 255, black. Row 6 is the ink of the "
                    "upper stroke; the numbers decrease above and below it.",
                ),
                Picture(
                    "Nine products and their sum",
                    chapter.kernel_at_place(three, *there, TOP_EDGE),
                    f"The kernel for upper edges at row {row}, column {column} of the three: "
                    f"pixels, weights, products, and the sum {_signed(sums[there])}.",
                    "The kernel has −1 above and 1 below. Here the stroke begins: there is paper "
                    f"above and ink below, so the sum, {_signed(sums[there])}, is large. "
                    "All numbers are computed from the image.",
                ),
                Picture(
                    "The same kernel where there is no such edge",
                    chapter.kernel_at_place(three, *beside, TOP_EDGE),
                    f"The same kernel at row {beside[0]}, column {beside[1]}: the products almost "
                    f"cancel, and the sum is {_signed(sums[beside])}.",
                    "At the right end of a stroke there is about as much ink above as below, so "
                    f"the products almost cancel: {_signed(sums[beside])}.",
                ),
            ],
        ),
        GallerySection(
            "The kernel on the grid",
            "The same weights are applied at every place where the kernel fits, and the sums form "
            "a new image.",
            [
                Picture(
                    "Upper edges",
                    chapter.kernel_on_grid(three, TOP_EDGE, tuple(CENTRES.values())),
                    "The three with a dot on every centre, and the map of results: red along the "
                    "upper borders of the strokes, blue along the lower ones.",
                    f"A 3×3 kernel fits at {rows}×{columns} of the 28×28 pixels, all but the "
                    "outermost. Red marks places below which ink begins, blue those below which "
                    f"it ends. Computed at the marks: {listed}.",
                ),
                Picture(
                    "Left edges",
                    chapter.kernel_on_grid(three, LEFT_EDGE),
                    "The map of another kernel: red along the left borders of the strokes.",
                    "Another kernel gives another map: −1 to the left of the centre and 1 at the "
                    "centre respond to ink that begins there, from left to right.",
                ),
            ],
        ),
        GallerySection(
            "Several kernels at once",
            "A layer has many kernels and makes one map with each. The maps are computed together, "
            "for a whole batch of images.",
            [
                Picture(
                    "Four kernels, four maps",
                    images.show_feature_maps(maps, "NHWC"),
                    "Four maps of the three: left edges, upper edges, and both diagonals.",
                    "The maps of left edges (0), upper edges (1) and both diagonals (2 and 3), on "
                    "one scale. Each is bright along the borders in its direction.",
                )
            ],
        ),
        _padding_section(),
    ]


def _padding_section() -> GallerySection:
    size = (5, 5)
    titles = {
        "Padding 1, stride 1": Windows(3, 1, 1),
        "Padding 1, stride 2": Windows(3, 2, 1),
        "A 4×4 kernel with padding 2": Windows(4, 1, 2),
    }
    explanations = {
        "Padding 1, stride 1": "With a border of one cell on each side, a 3×3 kernel fits "
        "around every pixel, and the map is as large as the image.",
        "Padding 1, stride 2": "With stride 2 the kernel moves by two cells, and the map has "
        "half as many rows and columns, rounded up.",
        "A 4×4 kernel with padding 2": "An even kernel has no centre cell: equal padding on both "
        "sides makes the map larger than the image by one.",
    }
    pictures = []
    for title, windows in titles.items():
        rows, columns = output_shape(size, windows)
        pictures.append(
            Picture(
                title,
                chapter.windows_on_grid(size, windows),
                f"Four frames: the kernel on a padded {size[0]}×{size[1]} input, and the cell of "
                f"the {rows}×{columns} output that it computes.",
                f"{explanations[title]} Blue: the image; white: padding; orange: the kernel and "
                "the output cell that it computes there, pale where weights meet padding and add "
                f"nothing. Computed: {size[0]}×{size[1]} becomes {rows}×{columns}.",
            )
        )
    even = output_size(5, 4, padding=2)
    return GallerySection(
        "Padding and stride",
        "Padding adds cells of zeros around the image. The stride is the distance from one place "
        "of the kernel to the next. With n cells along an axis, p cells of padding on each side, a "
        "kernel of k cells and stride s, the map has (n + 2p − k) // s + 1 cells: for n = 5, k = "
        f"4, p = 2 and s = 1 it has {even}.",
        pictures,
    )


def equation_section() -> GallerySection:
    """Returns the four views of a 2×2 kernel on a 3×3 image."""
    arguments = IMAGE, KERNEL, BIAS
    indices = reference.tied_indices((1, 1, *KERNEL.shape), (1, *IMAGE.shape))
    zeros, weights = int((indices < 0).sum()), KERNEL.size
    matrix = reference.conv_matrix(KERNEL[None, None], (1, *IMAGE.shape))
    outputs = matrix @ IMAGE.ravel() + BIAS
    listed = ", ".join(f"{letter} = {v}" for letter, v in zip("PQRS", outputs, strict=True))
    return GallerySection(
        "The equations",
        f"Four views of a 2×2 kernel on a 3×3 image. Each gives the same outputs: {listed}.",
        [
            Picture(
                "Places with letters",
                chapter.equation_places(*arguments),
                "An image A to J, a kernel α to δ, a bias b, outputs P to S, and the kernel at "
                "its four places.",
                "Letters for pixels, weights and outputs, with their values. Below: which weight "
                "meets which pixel, for each output.",
            ),
            Picture(
                "Four equations",
                chapter.equation_list(*arguments),
                "Four equations, each a sum of four products and the bias.",
                "The same, written out, with the numbers below the letters. Each colour is a "
                "weight; it occurs once in every equation.",
            ),
            Picture(
                "One matrix",
                chapter.equation_matrix(*arguments),
                f"A matrix of 4 rows and 9 columns with {zeros} grey zeros, times the pixels, "
                "plus the bias.",
                f"The four equations as a product of a matrix and a vector. Of the {indices.size} "
                f"entries {zeros} are always zero and are not trained. The other "
                f"{indices.size - zeros} contain only {weights} weights: entries of one colour are "
                "tied and must stay equal.",
            ),
            Picture(
                "Links of a network",
                chapter.equation_links(*arguments),
                "Nine nodes on the left, four on the right, with coloured links between them.",
                f"The same as a network. A fully connected layer would have all {indices.size} "
                f"links, each with its own weight. A convolution has {indices.size - zeros}, and "
                "links of one colour share a weight.",
            ),
        ],
    )


def colour_pictures() -> list[Picture]:
    """Returns the channels of a photograph, and a colour kernel on a part of it."""
    photo = photograph()
    roof = photo[ROOF]
    planes = roof.transpose(2, 0, 1).astype(int)
    pairs = zip(planes, COLOUR_KERNEL, strict=True)
    maps = [reference.kernel_map(plane, layer) for plane, layer in pairs]
    total = np.sum(maps, axis=0) + COLOUR_BIAS
    # Where the response is largest. The map begins at the centre (1, 1).
    row, column = (int(i) + 1 for i in np.unravel_index(np.argmax(total), total.shape))
    red, green, blue = photo[TILES]
    return [
        Picture(
            "Three channels",
            chapter.colour_channels(photo, TILES),
            "A photograph of a pagoda, and its red, green and blue channels.",
            "A colour image has three numbers per pixel. The orange tile at the mark has "
            f"({red}, {green}, {blue}); the sky is bright in all channels, most of all in blue. "
            "Photograph: danielbuechele, CC BY 2.0, as scikit-learn ships it.",
        ),
        Picture(
            "A kernel with three layers",
            chapter.colour_kernel(roof, COLOUR_KERNEL, COLOUR_BIAS, (row, column)),
            "Part of the roof in three channels, each with its own weights and its own map, and "
            "the sum of the three maps with the bias.",
            "A kernel has a layer for each channel. The three results and one bias are added: "
            "yR + yG + yB + b. This kernel was made by hand. It responds to places below which red "
            "increases and blue does not. The mark shows its largest result, "
            f"{_signed(total.max())}, computed in whole numbers. The map of the sum keeps edges of "
            "the roof between different colours; where all channels change alike, red and blue "
            "cancel.",
        ),
    ]


def _signed(value: float) -> str:
    return f"{value:g}".replace("-", "−")
