"""The network and the image of a page of `convjax explore`.

The default is the chapter's example on the chapter's three: two 3×3 convolutions of stride 2 with
padding 1 and kernels made by hand, each cell of which sees 7×7 pixels. With a trained run, the page
shows the trained network on a normalized image; with the chapter's spreadsheet, the network of the
file.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from convjax.analysis._precedents import Windows
from convjax.chapter.chapter_data import LEFT_EDGE, TOP_EDGE, embedded_three
from convjax.chapter.setting import NETWORKS, Setting
from convjax.chapter.spreadsheet import FILTERS_1, FILTERS_2, IMAGE, WEIGHTS, Sheet
from convjax.explorer.layer_spec import (
    ConvolutionSpec,
    DenseSpec,
    LayerSpec,
    MaxPoolSpec,
    ReluSpec,
    layer_specs,
)
from convjax.ops.layout import KERNEL_AXES

# Data sets that contain the chapter's three. The image itself is always taken from the embedded
# sample, so that MNIST is not needed.
WITH_THE_THREE = ("mnist5k", "mnist")


class ExplorerInput(NamedTuple):
    """The content of a page: its title, a line about it, the image (C, H, W) and the layers."""

    title: str
    about: str
    image: Any
    layers: list[LayerSpec]


def example() -> ExplorerInput:
    """Returns the chapter's two convolutions, with kernels whose effect is visible."""
    settings: dict[str, Any] = {"stride": 2, "padding": 1, "steps": [ReluSpec()]}
    nearby = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    right, down = np.zeros((2, 3, 3))
    right[1, 1:] = 8
    down[1:, 1] = 8
    layers: list[LayerSpec] = [
        ConvolutionSpec(
            "conv 1",
            np.stack([TOP_EDGE, LEFT_EDGE])[:, None],
            [0, 0],
            channels=["top edges", "left edges"],
            **settings,
        ),
        # "edges nearby" sums both kinds of edges around a cell. "corners" finds both together: a
        # top edge to the right of the cell and a left edge below it.
        ConvolutionSpec(
            "conv 2",
            [[nearby, nearby], [right, down]],
            [0, -8000],
            channels=["edges nearby", "corners"],
            **settings,
        ),
    ]
    return ExplorerInput(
        "Two convolutions, cell by cell",
        "A three of MNIST, pixels from 0 to 255, and two 3×3 convolutions with stride 2, padding 1 "
        "and ReLU, with weights made by hand. A cell of the second sees 7×7 pixels.",
        embedded_three()[None].astype(np.float64),
        layers,
    )


def of_spreadsheet(path: Path) -> ExplorerInput:
    """Returns the network of the chapter's spreadsheet.

    Raises:
      ValueError: if the file does not exist, or is not the chapter's.
    """
    sheet = Sheet(path)
    # The file's second convolution has one column too many: it reads an empty column, and the last
    # window of the pool is half empty.
    one_more = ((0, 0), (0, 1))
    relu = [ReluSpec()]
    layers: list[LayerSpec] = [
        ConvolutionSpec("conv 1", sheet.block(*FILTERS_1)[:, None], steps=relu),
        ConvolutionSpec(
            "conv 2",
            np.stack([sheet.block(*pair) for pair in FILTERS_2]),
            padding=one_more,
            steps=relu,
        ),
        MaxPoolSpec("max pool", Windows(2, stride=2, padding=one_more)),
        DenseSpec("dense unit", sheet.block(*WEIGHTS, step=2)[None]),
    ]
    return ExplorerInput(
        "The chapter's spreadsheet, cell by cell",
        "conv-example.xlsx: a digit, two convolutions of two 3×3 filters each, a max pool and one "
        "dense unit.",
        sheet.block(IMAGE),
        layers,
    )


def of_run(path: Path, data_dir: Path | None) -> ExplorerInput:
    """Returns a trained network with a normalized image of its data set.

    The image is the chapter's three if the data set contains it, else the first test image.

    Args:
      path: folder of the run.
      data_dir: folder with the files of the run's data set.

    Raises:
      ValueError: if the folder is not a run of `experiments` with its weights, the network is not a
        chain of convolutions, or the data set cannot be loaded.
    """
    from convjax.nn.weights import load_weights
    from convjax.runs.run import load_run

    _check_run(path)
    config = load_run(path).config
    try:
        setting = Setting(**config["setting"])
        data, classes, seed = config["data"], len(config["classes"]), config["seed"]
        mean, std = (np.array(config[name], np.float64) for name in ("mean", "std"))
        layout = config["layout"]
        # Decides the layout "auto" of the run.
        made_on_cpu = config["environment"]["backend"] == "cpu"
        known = setting.network in NETWORKS and layout in ("auto", *KERNEL_AXES)
        if not known or not isinstance(data, str) or not isinstance(seed, int) or mean.ndim != 1:
            raise ValueError("other values")
    except (KeyError, TypeError, ValueError) as error:
        lacking = f"lacks {error}" if isinstance(error, KeyError) else "has other values"
        raise ValueError(
            f"--run must be a training of `python -m experiments run`, got {path}, whose "
            f"config.json {lacking}."
        ) from None
    if setting.network == "linear":
        raise ValueError(
            f"--run must be of a chain of convolutions, got {path} of a fully connected network."
        )
    if data in WITH_THE_THREE and not setting.encoding:
        image, which = embedded_three()[None], "a three of MNIST"
    else:
        image, which = first_test_image(data, data_dir, setting), "its first test image"
    channels, height, width = image.shape
    if layout == "auto":
        layout = "CHWN" if made_on_cpu else "NHWC"
    # Shapes only: initial parameters would take seconds, and the file replaces them.
    network = nnx.eval_shape(
        lambda: setting.build((height, width, channels), classes, layout, seed)
    )
    weights = path / "model.npz"
    if not weights.exists():
        raise ValueError(
            f"--run must have the weights of its network, model.npz, got {path} without it. Name a "
            "finished training outside runs/comparisons."
        )
    if len(mean) not in (1, channels) or mean.shape != std.shape or not (std > 0).all():
        raise ValueError(
            f"--run must be a training of `python -m experiments run`, got {path}, whose mean and "
            f"std are not those of {channels} channels."
        )
    layers = layer_specs(load_weights(weights, network))
    normal = (image / 255 - mean[:, None, None]) / std[:, None, None]
    norm = ", with batch norm as in evaluation" if setting.norm else ""
    return ExplorerInput(
        "A trained network, cell by cell",
        f"{setting.slug}, seed {seed}, trained on {data}; shown on {which}, normalised as in the "
        f"training{norm}.",
        normal,
        layers,
    )


def _check_run(path: Path) -> None:
    """Raises ValueError if a path is not the folder of a training; suggests one within it."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ValueError(
            f"--run must be the folder of a training, …/runs/SETTING/seed-N, got {path}, which "
            f"{what}."
        )
    if (path / "config.json").exists():
        return
    # Not recursive: the path may be a large folder.
    places = ("seed-*", "*/seed-*", "runs/*/seed-*")
    within = [file.parent for place in places for file in sorted(path.glob(f"{place}/config.json"))]
    hint = f"; did you mean {within[0]}?" if within else "."
    raise ValueError(
        f"--run must be the folder of a training, …/runs/SETTING/seed-N, got {path}, which has "
        f"no config.json{hint}"
    )


def first_test_image(data: str, data_dir: Path | None, setting: Setting) -> np.ndarray:
    """Returns the first test image as a setting takes it, (C, H, W), values from 0 to 255.

    Args:
      data: of the run's configuration: a name, or for a folder of images its name with a slash.
      data_dir: the folder with the data set's files, or the folder of images.
      setting: whose encoding of colour the image gets.

    Raises:
      ValueError: if the data set cannot be loaded.
    """
    from convjax.chapter.session import Session

    if data.endswith("/"):
        if data_dir is None:
            raise ValueError(
                f"--data-dir must be the folder of images of the run's training, {data!r}, got "
                "none. The run does not contain the images."
            )
        data, data_dir = str(data_dir), None
    session = Session(data, data_dir=data_dir, out=Path())
    return session.device_dataset(setting).dataset.test.images[0].transpose(2, 0, 1)
