"""`Learner`: the chapter's words over the pure parts of the library."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jaxtyping import Array, Float, Num

from convjax import plots
from convjax._checks import check_flags, check_function, check_type, check_whole
from convjax.analysis import Summary, summary
from convjax.data import Dataset, Split, epoch_order
from convjax.diagnosis import Diagnosis, diagnose
from convjax.learner.defaults import (
    arguments,
    called_layers,
    check_outputs,
    is_leaf,
    last_layer_apart,
    loss_for,
    normalization_of,
    splits_of,
)
from convjax.learner.names import explain_missing
from convjax.learner.table import EpochTable
from convjax.learner.views import Recorded, RecordedActivations
from convjax.nn import LinenModel, capture, layer_names, weights
from convjax.ops.layout import check_layout, images_to, kernel_to
from convjax.optim import Optimizer, adam, constant, group_rates, group_scale, one_cycle
from convjax.optim.optimizers import path_name
from convjax.plots.figure import Size
from convjax.stats import Watch
from convjax.train import Images, LRFind, Plan, Trainer, cross_entropy, fit, lr_find
from convjax.train.evaluation import Scores
from convjax.train.losses import PerExample
from convjax.train.metric_writer import MetricOutput, MetricWriter

if TYPE_CHECKING:
    import matplotlib.figure

LearningRate = int | float | Sequence[float] | slice

_NONE = np.empty(0)


class Prediction(NamedTuple):
    """The answer to one image: its class by name and number, and the probability of each class."""

    name: str
    label: int
    probabilities: Float[np.ndarray, " K"]


class Learner:
    """Data, a network and how it is trained, with fastai's words.

    Everything that it does is done by pure parts, which `convjax.Trainer` and `convjax.fit` show.

    Args:
      data: a `Dataset`, or a pair of a training and a validation `Split`.
      model: a Flax NNX module from images (N, H, W, C), or a Linen module, which is initialised. It
        is not changed: the trained one is `model`.
      loss, metrics: as for `convjax.Trainer`. By default the cross entropy of classes and the
        accuracy; of values or many labels the loss must be given.
      optimizer: makes the optimiser: `convjax.adam`, `convjax.sgd`, or a function of Optax.
      lr: the learning rate of `fit` without one.
      moms: the momentum at the start, at the highest rate and at the end of one cycle.
      wd: weight decay; None leaves it to `optimizer`.
      batch_size: images of a step, at most all; the last images of an epoch that do not fill one
        are left out.
      seed: of the order of the images, and of a Linen module's parameters.
      normalize: whether images are normalised by the mean and std of the training images, of each
        channel, or each feature of vectors.
      group_of: maps the path of a parameter, such as "layers.0.conv.kernel", to its layer group,
        from 0; by default the last layer with parameters is the second group, the head.
      watch: what is recorded; all by default.
      augment, devices: as for `convjax.Trainer`.
      axes: the order in which shapes, maps and kernels are shown, whatever the network computes in:
        "NHWC", or "NCHW" as in PyTorch.
      show: whether the table of a training is printed.
      writer: gets the metrics of the trainings, one after the other, see
        `convjax.train.MetricWriter`.

    Attributes:
      recorder: loss, rate and metrics of the last training, `None` before one.
      activation_stats: statistics of the layers in the last training.

    Raises:
      TypeError: if data or model are of another type, or normalize or show neither True nor False.
      ValueError: if the model does not return one output for each class, or as `convjax.Trainer`.

    Examples:
      >>> import convjax
      >>> data = convjax.data.load("mnist5k")
      >>> net = convjax.ConvNet((1, 4, 8, 8, 10), stride=3, rngs=convjax.learner.default_rngs())
      >>> learn = convjax.Learner(data, net, batch_size=500, show=False)
      >>> learn.fit_one_cycle(1, 0.06)
      >>> sorted(learn.recorder.values[0])[:2], learn.recorder.record.steps
      (['accuracy', 'compile_seconds'], 8)
      >>> learn.predict(data.test.images[0]).name in data.class_names
      True
    """

    def __init__(
        self,
        data: Dataset | tuple[Split, Split],
        model: Any,
        *,
        loss: PerExample | None = None,
        metrics: Mapping[str, PerExample] | Sequence[PerExample] | None = None,
        optimizer: Callable[..., Any] = adam,
        lr: int | float = 1e-3,
        moms: tuple[float, float, float] = (0.95, 0.85, 0.95),
        wd: int | float | None = None,
        batch_size: int = 64,
        seed: int = 0,
        normalize: bool = True,
        group_of: Callable[[str], int] | None = None,
        watch: Watch | None = None,
        augment: Sequence[Any] | None = None,
        devices: Sequence[jax.Device] | None = None,
        axes: str = "NHWC",
        show: bool = True,
        writer: MetricWriter | None = None,
    ):
        MetricOutput(writer)  # checks it
        check_flags(normalize=normalize, show=show)
        if isinstance(optimizer, Optimizer):
            raise TypeError(
                "optimizer must be a function that makes the optimiser, got one that is made. "
                "Leave out the parentheses: optimizer=convjax.sgd."
            )
        check_function("optimizer", optimizer, "that makes the optimiser, such as convjax.sgd")
        self.data, (train, test) = data, splits_of(data)
        self.class_names = data.class_names if isinstance(data, Dataset) else ()
        self._train, self._test = train, test
        self._images: tuple[Images, Images] | None = None
        self._seed = check_whole("seed", seed, 0)
        self._batch_size = min(check_whole("batch_size", batch_size, 1), len(train.labels))
        mean, std = normalization_of(train) if normalize else (0.0, 1.0)
        self._input = jax.ShapeDtypeStruct((2, *train.images.shape[1:]), jnp.float32)
        if isinstance(model, linen.Module):
            model = LinenModel(model, self._input, rngs=nnx.Rngs(seed))
        fix = "Pass an NNX or Linen module, such as net() of a function net that makes one."
        check_type("model", model, nnx.Module, fix)
        self.model: nnx.Module = nnx.clone(model)
        self.model.train()
        self._settings: dict[str, Any] = {
            "loss": loss_for(train) if loss is None else loss,
            "metrics": metrics,
            "mean": mean,
            "std": std,
            "watch": Watch.everything() if watch is None else watch,
            "augment": augment,
            "devices": devices,
        }
        if self.class_names and self._settings["loss"] is cross_entropy:
            check_outputs(self.model, self._input, len(self.class_names))
        self._make_optimizer, self._wd, self._lr, self._moms = optimizer, wd, lr, moms
        self._group_of = last_layer_apart(self.model, self._input) if group_of is None else group_of
        self._frozen_below, self._trainers = 0, dict[tuple[float, ...], Trainer]()
        self._epochs, self._show, self._axes = 0, show, check_layout(axes)
        self._steps, self._writer = 0, writer
        self._recorder: Recorded | None = None

    def __repr__(self) -> str:
        return (
            f"Learner({type(self.model).__name__}, {len(self._train.labels):,} training and "
            f"{len(self._test.labels):,} validation examples, {self._epochs} epochs trained)"
        )

    def __getattr__(self, name: str) -> Any:
        raise explain_missing(name)

    # --- training ------------------------------------------------------------------------------

    def fit(self, epochs: int, lr: LearningRate | None = None) -> None:
        """Trains at one learning rate and prints a line per epoch.

        Each training begins with a new state of the optimiser.

        Args:
          epochs: number of epochs.
          lr: a number, or one for each layer group, or a slice as for `convjax.group_rates`.
        """
        rates = self._rates(self._lr if lr is None else lr)
        self._fit(epochs, rates, lambda steps, rate: constant(rate).table(steps))

    def fit_one_cycle(
        self,
        epochs: int,
        lr_max: LearningRate | None = None,
        *,
        div: int | float = 25.0,
        div_final: int | float = 1e5,
        pct_start: int | float = 0.25,
        moms: tuple[float, float, float] | None = None,
    ) -> None:
        """Trains with one cycle of rate and momentum, see `convjax.one_cycle`.

        Args:
          epochs: number of epochs.
          lr_max: the highest rate: a number, or one for each layer group, or a slice.
          div, div_final, pct_start: as for `convjax.one_cycle`.
          moms: momentum at the start, at the highest rate and at the end.
        """
        rates = self._rates(self._lr if lr_max is None else lr_max)
        momentum = self._moms if moms is None else moms

        def table(steps: int, rate: float) -> Any:
            return one_cycle(
                steps, rate, div=div, div_final=div_final, pct_start=pct_start, momentum=momentum
            ).table(steps)

        self._fit(epochs, rates, table)

    def fine_tune(
        self,
        epochs: int,
        base_lr: int | float = 2e-3,
        *,
        freeze_epochs: int = 1,
        lr_mult: int | float = 100,
    ) -> None:
        """Trains the last layer group alone, and then all of them at rates that grow to the last.

        Args:
          epochs: with all groups.
          base_lr: the highest rate of the head alone; half of it afterwards.
          freeze_epochs: with the last group alone.
          lr_mult: the rate of the last group over that of the first.
        """
        self.freeze()
        self.fit_one_cycle(freeze_epochs, base_lr, pct_start=0.99)
        self.unfreeze()
        rates = slice(base_lr / 2 / lr_mult, base_lr / 2)
        self.fit_one_cycle(epochs, rates, div=5.0, pct_start=0.3)

    def freeze_to(self, group: int) -> None:
        """Trains layer groups from this one on; negative numbers count from the last."""
        groups = self._groups
        if not -groups <= group < groups:
            raise ValueError(f"group must be from {-groups} to {groups - 1}, got {group}.")
        self._frozen_below = group % groups

    def freeze(self) -> None:
        """Trains the last layer group alone from here on."""
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Trains all layer groups from here on."""
        self.freeze_to(0)

    def lr_find(
        self, *, steps: int = 100, start: int | float = 1e-7, end: int | float = 10.0
    ) -> LRFind:
        """Returns losses at growing rates, with suggestions; the model is not changed.

        Args:
          steps, start, end: as for `convjax.lr_find`.
        """
        order = np.concatenate(
            [self._order(epoch) for epoch in range(-(-steps // len(self._order(0))))]
        )[:steps]
        train, _ = self._on_device
        trainer = self._trainer(self._factors((1.0,) * self._groups))
        return lr_find(trainer, self.model, train, order, start=start, end=end)

    @property
    def recorder(self) -> Recorded:
        """Loss, rate, momentum and metrics of the last training.

        Raises:
          ValueError: before a training.
        """
        if self._recorder is None:
            raise ValueError("nothing is recorded before a training: call fit or fit_one_cycle.")
        return self._recorder

    @property
    def activation_stats(self) -> RecordedActivations:
        """Statistics of the layers in the last training; raises as `recorder`."""
        return RecordedActivations(self.recorder.record)

    def diagnose(self) -> Diagnosis:
        """Returns what is wrong with the last training, see `convjax.diagnose`."""
        return diagnose(self.recorder.record)

    # --- the network ---------------------------------------------------------------------------

    def summary(self) -> Summary:
        """Returns the table of all layers, also of those without parameters."""
        shape = (self._batch_size, *self._train.images.shape[1:])
        images = jax.ShapeDtypeStruct(shape, jnp.float32)
        return replace(summary(self.model, images, select=is_leaf), axes=self._axes)

    def outputs(
        self, images: Num[Array | np.ndarray, "N ..."], select: Any = None
    ) -> dict[str, Array]:
        """Returns the outputs of the layers for images as they are in the data.

        Args:
          images: as in a split, before normalisation.
          select: which layers, as for `convjax.capture`.

        Returns:
          By name; maps in the order `axes`.
        """
        x = self._any_trainer.step.normalize(jnp.asarray(self._checked(images)))
        self.model.eval()
        chosen = {} if select is None else {"select": select}
        found = capture(self.model, x, **chosen)[1]
        self.model.train()
        source = getattr(self.model, "layout", "NHWC")
        return {
            name: images_to(y, self._axes, source=source) if y.ndim == 4 else y
            for name, y in found.items()
        }

    def kernels(self, layer: int) -> Array:
        """Returns the kernel of a convolution: (H, W, I, O), or (O, I, H, W) with axes "NCHW".

        Args:
          layer: number of the convolution, from 0; negative from the last.
        """
        if isinstance(self.model, LinenModel):
            raise ValueError(
                "kernels are those of NNX modules; learn.model.module has those of a Linen module."
            )
        modules = layer_names(self.model)
        owned = (
            getattr(modules.get(name), "kernel", _NONE)
            for name in called_layers(self.model, self._input)
        )
        found = [kernel for kernel in owned if kernel.ndim == 4]
        if not -len(found) <= layer < len(found):
            raise IndexError(f"layer must be from 0 to {len(found) - 1}, got {layer}.")
        return kernel_to(found[layer][...], self._axes, source="NHWC")

    def save(self, file: str | os.PathLike[str]) -> None:
        """Writes the weights to a .npz file, which loads into any layout."""
        weights.save_weights(file, self.model)

    def load(self, file: str | os.PathLike[str]) -> "Learner":
        """Reads weights that `save` wrote, and returns the learner."""
        self.model = weights.load_weights(file, self.model)
        return self

    # --- looking -------------------------------------------------------------------------------

    def one_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images and labels of the first batch of the next epoch."""
        rows = self._order(self._epochs)[0]
        return self._train.images[rows], self._train.labels[rows]

    def show_batch(self, max_n: int = 9, figsize: Size = None) -> "matplotlib.figure.Figure":
        """Draws images of a shuffled batch with their classes, augmented as in a training.

        Args:
          max_n: the most images.
          figsize: width and height, inches.
        """
        images, labels = self.one_batch()
        if self._settings["augment"] is not None:
            seed = self._seed + self._epochs
            images = self._any_trainer.augmented(images, labels, seed=seed).pixels
        return plots.show_batch(images, labels, self._names, max_n, figsize=figsize)

    def show_results(self, max_n: int = 9, figsize: Size = None) -> "matplotlib.figure.Figure":
        """Draws validation images with their class and, below it, the answer."""
        rows = np.random.default_rng(self._seed).permutation(len(self._test.labels))[:max_n]
        images, labels = self._test.images[rows], self._test.labels[rows]
        shares = self._probabilities(self._logits(images))
        if shares is None:
            raise ValueError("outputs that are not classes cannot be shown as names.")
        pairs = zip(labels, shares.argmax(-1), strict=True)
        names = [f"{self._names[label]}\n{self._names[answer]}" for label, answer in pairs]
        return plots.show_batch(images, np.arange(len(names)), names, max_n, figsize=figsize)

    def validate(self) -> Scores:
        """Returns the loss and the metrics on the validation split."""
        _, test = self._on_device
        return self._any_trainer.evaluate(self._any_trainer.start(self.model), test)

    def predict(self, image: Num[Array | np.ndarray, "..."]) -> Any:
        """Returns the answer to one image, a `Prediction`; of several images their outputs.

        Args:
          image: (H, W, C) as in a split, or several, (N, H, W, C).
        """
        image = np.asarray(image)
        if image.ndim == self._train.images.ndim:
            return self._logits(image)
        logits = self._logits(image[None])
        shares = self._probabilities(logits)
        if shares is None:
            return logits[0]
        label = int(shares[0].argmax())
        return Prediction(self._names[label], label, shares[0])

    # --- parts ---------------------------------------------------------------------------------

    @property
    def _names(self) -> Sequence[str]:
        if self.class_names:
            return self.class_names
        labels = self._train.labels
        if labels.ndim > 1 or labels.dtype != np.int32:
            raise ValueError("labels that are not classes cannot be shown as names.")
        return [str(i) for i in range(int(max(labels.max(), self._test.labels.max())) + 1)]

    @property
    def _on_device(self) -> tuple[Images, Images]:
        if self._images is None:
            devices = self._settings["devices"]
            self._images = Images.put(self._train, devices), Images.put(self._test, devices)
        return self._images

    @property
    def _groups(self) -> int:
        paths = jax.tree_util.tree_flatten_with_path(nnx.state(self.model, nnx.Param))[0]
        return 1 + max(self._group_of(path_name(path)) for path, _ in paths)

    @property
    def _any_trainer(self) -> Trainer:
        """A trainer, whose optimiser does not matter."""
        return next(iter(self._trainers.values()), None) or self._trainer((1.0,) * self._groups)

    def _rates(self, lr: LearningRate) -> tuple[float, ...]:
        return group_rates(lr, self._groups)

    def _factors(self, rates: tuple[float, ...]) -> tuple[float, ...]:
        """Returns the rate of each group over that of the last; 0 for frozen ones."""
        return tuple(
            0.0 if i < self._frozen_below else rate / rates[-1] for i, rate in enumerate(rates)
        )

    def _trainer(self, factors: tuple[float, ...]) -> Trainer:
        if factors not in self._trainers:
            settings: dict[str, Any] = {} if self._wd is None else {"weight_decay": self._wd}
            if any(factor != 1 for factor in factors):
                if self._make_optimizer is not adam and "group_scale" not in arguments(
                    self._make_optimizer
                ):
                    raise ValueError(
                        "lr must be one number, and no group frozen, for an optimiser of Optax, "
                        f"which has no layer groups; got {factors}. convjax.adam and sgd have them."
                    )
                settings["group_scale"] = group_scale(factors, self._group_of)
            made = self._make_optimizer
            optimizer: Any = made(**settings) if "group_scale" in arguments(made) else made
            if settings and not isinstance(optimizer, Optimizer):
                raise ValueError(
                    "wd must be None for an optimiser of Optax: pass optimizer=lambda "
                    "learning_rate: optax.adamw(learning_rate, weight_decay=0.01)."
                )
            self._trainers[factors] = Trainer(self.model, optimizer, **self._settings)
        return self._trainers[factors]

    def _order(self, epoch: int) -> Any:
        size = len(self._train.labels)
        return epoch_order(size, self._batch_size, seed=self._seed, epoch=epoch)

    def _fit(
        self, epochs: int, rates: tuple[float, ...], table: Callable[[int, float], Any]
    ) -> None:
        first = self._epochs
        steps = check_whole("epochs", epochs, 1) * len(self._order(0))
        plan = Plan(
            epochs,
            lambda epoch: self._order(first + epoch),
            table(steps, rates[-1]),
            seed=self._seed + first,  # other augmentations than in the trainings before
        )
        trainer = self._trainer(self._factors(rates))
        shown = EpochTable(steps) if self._show else None
        output = MetricOutput(self._writer, self._steps)
        result = fit(trainer, self.model, *self._on_device, plan, callback=shown, writer=output)
        self.model = trainer.model(result.state)
        self.model.train()
        self._epochs, self._steps = self._epochs + epochs, self._steps + steps
        self._recorder = Recorded(result.record, result.metrics)

    def _probabilities(self, outputs: np.ndarray) -> np.ndarray | None:
        """Returns the probability of each class; of one logit those of no and yes.

        None if the labels are not classes, or outputs are not one for each.
        """
        labels = self._train.labels
        if labels.ndim > 1 or labels.dtype != np.int32:
            return None
        if outputs.ndim == 2 and outputs.shape[1] == 1 and len(self._names) == 2:
            yes = np.asarray(jax.nn.sigmoid(outputs))
            return np.concatenate([1 - yes, yes], 1)
        if outputs.ndim != 2 or outputs.shape[1] != len(self._names):
            return None
        return np.asarray(jax.nn.softmax(outputs))

    def _checked(self, images: Any) -> np.ndarray:
        images, like = np.asarray(images), self._train.images
        if (images.dtype == np.uint8) != (like.dtype == np.uint8):
            raise TypeError(
                f"images must be {like.dtype} as those of the data, got {images.dtype}: pixels of "
                "uint8 are divided by 255, and others are not."
            )
        return images

    def _logits(self, images: Any) -> np.ndarray:
        images = self._checked(images)
        trainer = self._any_trainer
        return np.asarray(trainer.predict(trainer.start(self.model), images))
