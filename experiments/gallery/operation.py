"""The gallery's pictures of the operation: kernels, padding and stride, equations, precedents."""

from collections.abc import Sequence

import numpy as np

from convjax.analysis._precedents import Windows, output_shape, trace_precedents
from convjax.chapter.chapter_data import CENTRES, KERNELS, LEFT_EDGE, TOP_EDGE, embedded_three
from convjax.ops import reference
from convjax.ops.geometry import Pair, output_size
from convjax.plots import chapter, images
from experiments.gallery.page import GallerySection, Picture, signed

# Small whole numbers with four different outputs, so that every sum can be followed.
IMAGE, KERNEL, BIAS = np.array([[3, 0, 1], [2, 1, 4], [0, 5, 6]]), np.array([[1, -1], [2, 3]]), 2


def kernel_sections() -> list[GallerySection]:
    """Returns the pictures of one kernel, at one place and on the grid, and of four kernels."""
    three = embedded_three()
    row, column = CENTRES["(5,7)"]
    there, beside = (CENTRES[name] for name in ("(5,7)", "(8,18)"))
    sums = {place: reference.apply_kernel(three, *place, TOP_EDGE) for place in CENTRES.values()}
    listed = ", ".join(f"{signed(total)} at ({r}, {c})" for (r, c), total in sums.items())
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
                    f"pixels, weights, products, and the sum {signed(sums[there])}.",
                    "The kernel has −1 above and 1 below. Here the stroke begins: there is paper "
                    f"above and ink below, so the sum, {signed(sums[there])}, is large. "
                    "All numbers are computed from the image.",
                    (1,),
                ),
                Picture(
                    "The same kernel where there is no such edge",
                    chapter.kernel_at_place(three, *beside, TOP_EDGE),
                    f"The same kernel at row {beside[0]}, column {beside[1]}: the products almost "
                    f"cancel, and the sum is {signed(sums[beside])}.",
                    "At the right end of a stroke there is about as much ink above as below, so "
                    f"the products almost cancel: {signed(sums[beside])}.",
                ),
            ],
        ),
        GallerySection(
            "The kernel on the grid",
            "The same weights are applied at every place where the kernel fits, and the sums form "
            "a new image.",
            [
                _places_picture(
                    "Places in a row",
                    (5, 5),
                    Windows(3),
                    "Without padding a 3×3 kernel has three places in the first row of a 5×5 "
                    "image: its centre moves from column 1 to column 3.",
                    2,
                    [(0, 0), (0, 1), (0, 2)],
                ),
                _places_picture(
                    "All places on a small image",
                    (4, 4),
                    Windows(3),
                    "A 4×4 image has two such places in each direction, so the map is smaller than "
                    "the image by two.",
                    3,
                ),
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
    even = output_size(5, 4, padding=2)
    return GallerySection(
        "Padding and stride",
        "Padding adds cells of zeros around the image. The stride is the distance from one place "
        "of the kernel to the next. With n cells along an axis, p cells of padding on each side, a "
        "kernel of k cells and stride s, the map has (n + 2p − k) // s + 1 cells: for n = 5, k = "
        f"4, p = 2 and s = 1 it has {even}.",
        [
            _places_picture(
                "Padding 1, stride 1",
                size,
                Windows(3, 1, 1),
                "With a border of one cell on each side, a 3×3 kernel fits around every pixel, and "
                "the map is as large as the image.",
                4,
            ),
            _places_picture(
                "A 4×4 kernel with padding 2",
                size,
                Windows(4, 1, 2),
                "An even kernel has no centre cell: equal padding on both sides makes the map "
                "larger than the image by one.",
                5,
            ),
            _places_picture(
                "Padding 1, stride 2",
                size,
                Windows(3, 2, 1),
                "With stride 2 the kernel moves by two cells, and the map has half as many rows "
                "and columns, rounded up.",
                6,
            ),
        ],
    )


def _places_picture(
    title: str,
    size: Pair,
    windows: Windows,
    explanation: str,
    number: int,
    cells: Sequence[Pair] | None = None,
) -> Picture:
    """Returns a picture of a kernel at several places of a small image."""
    rows, columns = output_shape(size, windows)
    frames = ("Three", "Four")[cells is None]
    padded = windows.padding != 0
    paper = " white: padding;" if padded else ""
    pale = ", pale where weights meet padding and add nothing" if padded else ""
    return Picture(
        title,
        chapter.windows_on_grid(size, windows, cells),
        f"{frames} frames: the kernel on a {'padded ' * padded}{size[0]}×{size[1]} input, and the "
        f"cell of the {rows}×{columns} output that it computes.",
        f"{explanation} Blue: the image;{paper} orange: the kernel and the output cell that it "
        f"computes there{pale}. Computed: {size[0]}×{size[1]} becomes {rows}×{columns}.",
        (number,),
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
                (7,),
            ),
            Picture(
                "Four equations",
                chapter.equation_list(*arguments),
                "Four equations, each a sum of four products and the bias.",
                "The same, written out, with the numbers below the letters. Each colour is a "
                "weight; it occurs once in every equation.",
                (8,),
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
                (9,),
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


def precedent_section() -> GallerySection:
    """Returns the precedents of one cell of a second convolution, and the precedents of these."""
    cell, kernels = (2, 3), (TOP_EDGE, LEFT_EDGE)
    three = embedded_three()
    layers = [Windows(kernel.shape, 2, 1) for kernel in kernels]
    pixels, cells = trace_precedents(cell, three.shape, layers)
    rows, columns = (int(pixels.any(axis).sum()) for axis in (1, 0))
    return GallerySection(
        "Receptive fields",
        "Two convolutions of stride 2, each with one 3×3 kernel, for upper edges and then for left "
        "edges, and each with a ReLU. The receptive field of a cell is the part of the image that "
        "it depends on.",
        [
            Picture(
                "Immediate precedents",
                chapter.precedents_of_cell(three, kernels, cell, 1),
                "The outputs of two convolutions. A frame of 3×3 cells of the first leads to one "
                "cell of the second; below are their numbers and the kernel.",
                f"The cell of the second convolution at row {cell[0]}, column {cell[1]} is the sum "
                f"of {cells.sum()} products: of the framed cells of the first convolution and of "
                "the weights of the second kernel. Orange: the cell; blue: its precedents.",
                (10,),
            ),
            Picture(
                "Precedents of the precedents",
                chapter.precedents_of_cell(three, kernels, cell),
                f"The same, with the image before it: a frame of {rows}×{columns} pixels leads to "
                "the 3×3 cells.",
                f"Each of the {cells.sum()} cells is itself a sum of 9 products. Neighbouring "
                f"cells are two pixels apart, so together they depend on {rows}×{columns} = "
                f"{pixels.sum()} pixels, the receptive field, and on the first kernel, too.",
                (11,),
            ),
        ],
    )
