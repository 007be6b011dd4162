"""The gallery's pictures of trainings: first layers, statistics, one-cycle, colourful dimension."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from convjax import plots
from convjax.chapter import training_plots
from convjax.chapter.setting import BATCH_NORM, ONE_CYCLE, PENULTIMATE
from convjax.chapter.training import Training
from convjax.diagnosis.collapse import collapse_steps
from convjax.plots import chapter, heatmap, images
from convjax.plots.chapter.histograms import hidden_percent
from convjax.stats.record import Record
from convjax.stats.watch import Watch
from experiments.gallery.colour import colour_pictures
from experiments.gallery.operation import precedent_section
from experiments.gallery.page import GallerySection, Picture
from experiments.harness import charts
from experiments.harness.lab import Lab

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORES = 20  # evaluations of a training, enough for a curve
# Small batches give nine times as many steps for the same work, and kernels look less random.
COLOUR = replace(BATCH_NORM, encoding="rgb", batch_size=64)


def training_sections(lab: Lab) -> list[GallerySection]:
    """Trains three networks and returns their pictures, and the pictures of colour images."""
    dataset = lab.device_dataset(ONE_CYCLE).dataset
    scored = (replace(setting, scores=SCORES) for setting in (ONE_CYCLE, BATCH_NORM))
    plain, normed = (lab.fit(setting, 0) for setting in scored)
    colour = lab.fit(COLOUR, 0, watch=None)
    found = dict(training_plots.of_training(plain, lab.trainer(ONE_CYCLE, Watch()), dataset))
    return [
        _first_layer(plain, found),
        precedent_section(),
        _colour(colour, tinted=dataset.train.images.shape[-1] == 1),
        _data_and_layers(plain, found),
        _one_cycle(plain, found),
        _colour_dimension(plain.record, found),
        _batch_norm(plain, normed),
    ]


def _first_layer(training: Training, found: "dict[str, Figure]") -> GallerySection:
    kernels = training.model.blocks[0].conv
    return GallerySection(
        "What the first layer of a network computes",
        "The kernels of a network are not designed: they begin at random, and training changes "
        f"them. This network was trained for {training.record.steps} steps; it is right for "
        f"{_percent(training.accuracy)} of the test images.",
        [
            Picture(
                "Kernels of the first layer",
                found["kernels"],
                "The kernels of the first layer as small images.",
                "The kernels of the first layer after training, on one scale. With their biases "
                f"they have {_size(kernels)} numbers.",
            ),
            Picture(
                "Feature maps of the first layer",
                found["feature-maps"],
                "The maps that the first layer makes of one test image.",
                "The results of these kernels for one test image, before the ReLU, in the same "
                "order. With stride 2 each map has half the rows and columns of the image.",
            ),
        ],
    )


def _colour(training: Training, *, tinted: bool) -> GallerySection:
    data = "the same images, tinted," if tinted else "the same images"
    kernels = images.show_kernels(training.model.blocks[0].conv.kernel)
    return GallerySection(
        "Colour images",
        "A colour image has three channels, and a kernel has a layer for each of them.",
        [
            *colour_pictures(),
            Picture(
                "First kernels of a colour network",
                kernels,
                "The kernels of a first layer, drawn in colour.",
                f"The first layer of a network with batch norm, trained on {data} for "
                f"{training.record.steps} steps; it is right for {_percent(training.accuracy)} of "
                "the test images. The three layers of a kernel are drawn as red, green and blue. A "
                "weight of 0 is grey, and a pixel is coloured where its three weights differ.",
            ),
        ],
    )


def _data_and_layers(training: Training, found: "dict[str, Figure]") -> GallerySection:
    first = training.record.layers[0]
    return GallerySection(
        "What happens in the layers",
        "The loss alone does not say why a network trains or fails. Statistics of every layer, "
        "taken at every step, do.",
        [
            Picture(
                "A batch of images",
                found["batch"],
                "Nine test images with the names of their classes.",
                "Nine test images, the inputs of a network. Above each is the class that it "
                "should give.",
            ),
            _layer("The first layer", found[f"stats-{first}"], training.record, first),
            _layer(
                "The last but one layer",
                found[f"stats-{PENULTIMATE}"],
                training.record,
                PENULTIMATE,
            ),
        ],
    )


def _layer(title: str, figure: "Figure", record: Record, layer: str) -> Picture:
    last = record.near_zero[-1, record.layer(layer)]
    return Picture(
        title,
        figure,
        f"Mean, standard deviation and share near zero of layer {layer} against the step.",
        f"Mean, standard deviation and share near zero of the outputs of {layer}, before the ReLU, "
        f"at each of {record.steps} steps. At the last, {_percent(last)} of the values are at most "
        "0.05: after the ReLU they contribute nothing, or almost nothing.",
    )


def _one_cycle(training: Training, found: "dict[str, Figure]") -> GallerySection:
    rate = training.record.learning_rate
    return GallerySection(
        "One-cycle",
        "The learning rate begins low, so that the first steps do not diverge. It rises, and then "
        "falls almost to 0, so that the last steps converge. The momentum mirrors it.",
        [
            Picture(
                "The schedule",
                found["schedule"],
                "The learning rate rises and falls, the momentum falls and rises.",
                "Learning rate and momentum as the optimiser used them, step by step. The rate is "
                f"highest, {rate.max():.3g}, at step {int(rate.argmax())} of "
                f"{training.record.steps}.",
            ),
            Picture(
                "The loss",
                found["loss"],
                "The loss of every batch, its running mean, and the validation loss.",
                "The loss of every batch, thin, and its running mean, thick. The dots are the loss "
                f"on the test images, at the end {training.metrics[-1]['valid_loss']:.3f}.",
            ),
        ],
    )


def _colour_dimension(record: Record, found: "dict[str, Figure]") -> GallerySection:
    # The step with the most active units has the fullest histogram.
    step = int(record.watched[np.argmax(record.active_share(PENULTIMATE))])
    counts = np.nan_to_num(heatmap.layer_counts(record, PENULTIMATE))
    edges = record.hist_edges
    linear, logarithmic = (
        hidden_percent(scale, float(scale.max(initial=1))) for scale in (counts, np.log1p(counts))
    )
    thirds = record.watched[np.linspace(0, len(record.watched) - 1, 4).astype(int)]
    steps = sorted({step, *thirds.tolist()})
    listed = ", ".join(map(str, steps))
    return GallerySection(
        "The colourful dimension",
        "A histogram contains more than a mean. Drawn as a column of colours it is so narrow that "
        "the columns of all steps of the training fit side by side.",
        [
            Picture(
                "From a histogram to a picture",
                chapter.histogram_column(record, PENULTIMATE, step),
                f"A histogram at step {step}, the same as a column of colours, and all columns.",
                f"1: how many outputs of {PENULTIMATE} lie in each of {len(edges) - 1} bins at "
                f"step {step}, the step at which most of them are above 0.25. 2: a colour for "
                "each bin, brighter for higher counts. 3: the columns of all steps; the frame "
                f"marks that of step {step}. Values below {edges[0]:g} and above {edges[-1]:g} "
                "are in no bin.",
                (14,),
            ),
            Picture(
                "How the picture is made",
                chapter.histogram_summary(record, PENULTIMATE, steps),
                f"Histograms at {len(steps)} steps, as counts and as logarithms of counts, each "
                "with its column of colours; below, all columns with frames around those.",
                f"Above: the counts at steps {listed}. In the middle: their logarithms, and beside "
                "each the same as colours. Below: the columns of all steps; the frames mark those "
                f"of the {len(steps)} steps.",
                (15,),
            ),
            Picture(
                "Why the logarithm is taken",
                chapter.why_logarithm(record, PENULTIMATE, step),
                "The same columns twice: with counts, and with their logarithms.",
                f"Above, the colour is the count. The fullest bin has {counts.max():,.0f} values, "
                f"so on a scale of 256 colours {linear:.0f} % of the bins with values look empty. "
                f"Below, the colour is log(1 + count), and {logarithmic:.0f} % of them look empty.",
            ),
            Picture(
                "The whole picture of a training",
                found[f"color-dim-{PENULTIMATE}"],
                f"The colourful dimension of {PENULTIMATE}, with strips for values outside.",
                f"The colourful dimension of {PENULTIMATE} in the training with one-cycle, with "
                "the shares that lie outside the bins.",
            ),
        ],
    )


def _batch_norm(plain: Training, normed: Training) -> GallerySection:
    sides = {"without batch norm": plain, "with batch norm": normed}
    figure = plots.color_dim([t.record for t in sides.values()], PENULTIMATE, list(sides))
    counts = (len(collapse_steps(t.record.active_share(PENULTIMATE))) for t in sides.values())
    listed = " and ".join(
        f"{count} time{'s' * (count != 1)} {side}"
        for count, side in zip(counts, sides, strict=True)
    )
    lines = {
        name: [[(row["step"], row["accuracy"]) for row in side.metrics]]
        for name, side in sides.items()
    }
    goal = plain.accuracy
    reached = [row["step"] for row in normed.metrics if row["accuracy"] >= goal]
    return GallerySection(
        "Batch norm",
        "Batch norm gives the outputs of every layer a mean and a spread that the network "
        f"learns. The accuracy is {_percent(plain.accuracy)} without it and "
        f"{_percent(normed.accuracy)} with it, after the same number of steps.",
        [
            Picture(
                "Accuracy on the way",
                charts.progress(lines, goal, xlabel="step", ylabel="test accuracy"),
                "The test accuracy against the step, without and with batch norm.",
                f"The accuracy on the test images, evaluated {len(plain.metrics)} times in each of "
                "two trainings with the same schedule. The goal is where the one without batch "
                f"norm ends, after {plain.metrics[-1]['step']} steps: {_percent(goal)}. With batch "
                "norm it is "
                + (f"reached after {reached[0]} steps." if reached else "not reached."),
                (16,),
            ),
            Picture(
                "Without and with batch norm",
                figure,
                f"The colourful dimension of {PENULTIMATE} in two trainings, side by side.",
                f"The outputs of {PENULTIMATE} in two trainings that differ only in batch norm. "
                f"The share of values above 0.25 rises and collapses {listed}.",
            ),
        ],
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _size(conv: Any) -> int:
    return int(np.size(conv.kernel[...]) + np.size(conv.bias[...]))
