"""The pure training step: normalise, forward with watched layers, backward, update."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key, Num, Shaped

from convjax._checks import check_function, check_type, describe_value
from convjax._display import array_text, tree_text
from convjax._precision import at_least_float32
from convjax.nn.outputs import LayerKind
from convjax.nn.sync_batch_norm import check_splits, set_axis_name
from convjax.optim.optimizers import Optimizer
from convjax.parallel.mesh import AXIS, mean_over_devices
from convjax.stats.activations import ActivationStats
from convjax.stats.facts import batch_facts
from convjax.stats.parameters import Described, Norms, describe
from convjax.stats.watch import Watch
from convjax.train.augmentation import AugmentedBatch, Augmenter, ImageFunction, Mixup
from convjax.train.losses import (
    PerExample,
    accuracy,
    answers_classes,
    named_metrics,
    per_example,
)

# One number per channel, or one for all.
PerChannel = int | float | Sequence[float] | Num[Array | np.ndarray, "..."]


class TrainState(NamedTuple):
    """Everything that a training changes, as pure trees of arrays."""

    params: Any
    variables: Any  # the model's other variables: running statistics of batch norm
    opt_state: Any

    def __repr__(self) -> str:
        return (
            f"TrainState({tree_text(self.params, 'parameters')}, "
            f"{tree_text(self.variables, 'other variables')}, "
            f"{tree_text(self.opt_state, 'numbers of the optimiser')})"
        )


class StepMetrics(NamedTuple):
    """The metrics of every step: scalars, or one row per step."""

    loss: Any
    learning_rate: Any
    momentum: Any

    def __repr__(self) -> str:
        fields = (f"{name}={array_text(value)}" for name, value in self._asdict().items())
        return f"StepMetrics({', '.join(fields)})"


class StepStats(NamedTuple):
    """The statistics of a watched step; those that are not watched are empty or None."""

    layers: tuple[ActivationStats, ...] = ()
    parameters: Norms | None = None
    eval_loss: Any = None
    facts: dict[str, Any] | None = None  # of the output and the labels, with those in `inputs`

    def __repr__(self) -> str:
        parts = [f"{len(self.layers):,} layers"]
        if self.parameters is not None:
            norms = np.shape(self.parameters.weight_norm)
            parts.append(f"{norms[-1]:,} parameters" if norms else "parameters")
        if self.eval_loss is not None:
            parts.append(f"eval_loss={array_text(self.eval_loss)}")
        return f"StepStats({', '.join(parts)})"


class WatchedNames(NamedTuple):
    """The watched layers, in the order of their calls, and the parameters.

    Attributes:
      names: of the layers.
      sizes: number of values of each layer per step.
      parameters: their names and sizes.
      kinds: of the layers.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    parameters: Described
    kinds: tuple[LayerKind, ...] = ()

    def __repr__(self) -> str:
        parameters = len(self.parameters.names)
        return f"WatchedNames({len(self.names):,} layers, {parameters:,} parameters)"


class TrainStep:
    """One training step as a pure function, so that jit, scan and vmap apply to it.

    Args:
      model, optimizer, mean, std, loss, metrics, watch, augment: as for `convjax.Trainer`.
      synchronized: whether the step takes one part of a batch while other devices take the other
        parts. It must then run in `convjax.parallel.mesh.on_devices`.

    Attributes:
      mean, std: per channel, as NumPy arrays in float64.
      structure: of the model, in training mode and for a whole batch.
      augmenter: of the training images; None leaves them as they are.

    Raises:
      TypeError: if the model, mean, std, loss or watch are of another type.
      ValueError: if the std is not positive, or a synchronised model cannot be split, see
        `convjax.nn.sync_batch_norm.check_splits`.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: Optimizer,
        *,
        mean: PerChannel,
        std: PerChannel,
        loss: PerExample,
        metrics: Mapping[str, PerExample] | Sequence[PerExample] | None,
        watch: Watch | None,
        synchronized: bool,
        augment: Sequence[ImageFunction | Mixup] | None = None,
    ):
        check_function("loss", loss, "from logits and labels to one loss per example")
        if watch is not None:
            check_type("watch", watch, Watch, "Pass Watch(), or None to watch nothing.")
        for name, value in (("mean", mean), ("std", std)):
            if np.asarray(value).dtype.kind not in "fiu":
                raise TypeError(f"{name} must be numbers, got {describe_value(value)}.")
        self.mean, self.std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        with np.errstate(over="ignore", under="ignore"):
            # As the step has them: 1e300 is infinite.
            center, scale = (x.astype(np.float32) for x in (self.mean, self.std))
        if not (np.isfinite(center).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError(
                f"mean must be finite, and std positive and finite in float32, got {mean!r} and "
                f"{std!r}. std=1 leaves the scale as it is."
            )
        self._optimizer, self.loss, self._watch = optimizer, loss, watch
        self._metrics = named_metrics(metrics, loss)
        self._synchronized = synchronized
        self.augmenter = (
            None if augment is None else Augmenter(augment, AXIS if synchronized else None)
        )
        # Structures of one model. Batch norm uses the batch in training and running statistics in
        # evaluation; in a step on several devices it is synchronised.
        training = _whole(model)
        self.structure = nnx.graphdef(training)
        _, *trees = _split(training)
        self._shapes = _shapes(tuple(trees))
        self._optimizer_shapes = _shapes(jax.eval_shape(optimizer.transform.init, trees[0]))
        if synchronized:
            check_splits(training)
            set_axis_name(training, AXIS)
        self._training = nnx.graphdef(training)
        training.eval()
        self._evaluating = nnx.graphdef(training)

    def __call__(
        self,
        state: TrainState,
        images: Num[Array, "N ..."],
        labels: Num[Array, "N ..."],
        learning_rate: Num[Array, ""],
        momentum: Num[Array, ""],
        *,
        watched: bool = True,
        key: Key[Array, ""] | None = None,
    ) -> tuple[TrainState, StepMetrics, StepStats]:
        """Takes one step.

        Args:
          state: before the step.
          images, labels: of the batch, or of one part of it.
          learning_rate, momentum: written into the optimiser's state for this step.
          watched: False takes no statistics, and the compiler drops what only they need.
          key: of the step's random draws; needed with augmentations.

        Returns:
          The state after the step, its metrics, and its statistics. In a synchronised step the
          statistics of layers are those of this part of the batch alone.

        Raises:
          TypeError: without a key that is needed.
        """
        seen: Any = images
        batch: AugmentedBatch | None = None
        if self.augmenter is not None:
            if key is None:
                raise TypeError(
                    "key must be given to a step with augmentations, got None. "
                    "convjax.train.augmentation.step_key(seed, step) makes one."
                )
            batch = self.augmented(key, images, labels, jax.tree.leaves(state.params)[0].dtype)
            seen = batch.images
        channels: dict[str, int] = {}  # axis of each watched layer, filled by the trace below

        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            logits, outputs, axes, variables = self._forward(
                self._training, params, state.variables, seen, labels
            )
            channels.update(axes)
            # A tuple keeps the order of the calls; JAX sorts the keys of a dictionary.
            aux = variables, tuple(outputs.values()), logits
            losses = self.losses(logits, labels)
            if batch is not None and batch.share is not None:
                share, mixed_labels = jnp.asarray(batch.share), jnp.asarray(batch.mixed_labels)
                losses = share * losses + (1 - share) * self.losses(logits, mixed_labels)
            return jnp.mean(losses), aux

        (loss, (variables, outputs, logits)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params
        )
        if self._synchronized:
            loss, grads = mean_over_devices((loss, grads))
        eval_loss = None
        if self._watch is not None and watched:
            eval_loss = self._eval_loss(state._replace(variables=variables), images, labels)
        if eval_loss is not None:
            # Before the update, which then overwrites what both read: else a GPU copies it.
            grads, eval_loss = jax.lax.platform_dependent(
                grads, eval_loss, cpu=lambda *both: both, default=_in_this_order
            )
        opt_state = self._optimizer.set(state.opt_state, learning_rate, momentum)
        updates, opt_state = self._optimizer.transform.update(grads, opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = StepMetrics(loss, *self._optimizer.applied(opt_state))
        stats = StepStats()
        if self._watch is not None and watched:
            of_layers = dict(zip(channels, outputs, strict=True))
            stats = StepStats(
                self._watch.stats(of_layers, channels),
                self._watch.parameter_stats(state.params, grads, params),
                eval_loss,
                batch_facts(logits, labels) if self._watch.inputs else None,
            )
        return TrainState(params, variables, opt_state), metrics, stats

    def _eval_loss(
        self, state: TrainState, images: jax.Array, labels: jax.Array
    ) -> jax.Array | None:
        if self._watch is None or not self._watch.evaluation:
            return None
        loss = jnp.mean(self.losses(self.logits(state, images), labels))
        return mean_over_devices(loss) if self._synchronized else loss

    def normalize(
        self, images: Num[Array | np.ndarray, "N ..."], dtype: Any = jnp.float32
    ) -> Float[Array | np.ndarray, "N ..."]:
        """Returns the model's input: (p/255 − mean)/std of pixels, (x − mean)/std of others."""
        scaled = _scaled(images, dtype)
        wide = scaled.dtype
        return ((scaled - self.mean.astype(wide)) / self.std.astype(wide)).astype(dtype)

    def augmented(
        self,
        key: Key[Array, ""],
        images: Num[Array | np.ndarray, "N H W C"],
        labels: Int[Array, " N"],
        dtype: Any = jnp.float32,
        augmenter: Augmenter | None = None,
    ) -> AugmentedBatch:
        """Returns the training batch of a step before its normalisation, a pure function.

        Args:
          key: of the step.
          images, labels: of the batch.
          dtype: of the model.
          augmenter: instead of the step's own, which may be one for a part of a batch.
        """
        scaled, chosen = _scaled(images, dtype), augmenter or self.augmenter
        if chosen is not None and images.dtype != jnp.uint8:
            chosen.check_unbounded()
        return AugmentedBatch(scaled, labels) if chosen is None else chosen(key, scaled, labels)

    def split(self, model: nnx.Module) -> tuple[Any, Any]:
        """Returns a model's parameters and its other variables.

        Raises:
          TypeError: if it is not a Flax NNX module.
          ValueError: if its structure differs from that of the step's model.
        """
        structure, params, variables = _split(_whole(model))
        if structure != self.structure:
            raise ValueError(
                "model must have the structure of the model that the trainer was made with."
            )
        return params, variables

    def check_state(self, state: TrainState, *, optimizer: bool) -> None:
        """Checks that a state is of the model, and of the optimiser where that matters.

        Raises:
          ValueError: if its arrays are others.
        """
        if _shapes((state.params, state.variables)) != self._shapes:
            raise ValueError(
                "state must be that of a model of the trainer's structure, got "
                f"{tree_text(state.params, 'parameters')} of another. Pass what this trainer's "
                "start or run returned."
            )
        if optimizer and _shapes(state.opt_state) != self._optimizer_shapes:
            raise ValueError(
                "state must be that of the trainer's optimiser, got that of another. Begin with a "
                "new one: trainer.start(other.model(state))."
            )

    def check_channels(self, shape: tuple[int, ...], name: str) -> None:
        """Raises ValueError if mean and std do not have one number per channel of images.

        Args:
          shape: of an image.
          name: of the argument, for messages.
        """
        for argument, value in (("mean", self.mean), ("std", self.std)):
            try:
                same = np.broadcast_shapes((1, *shape), value.shape) == (1, *shape)
            except ValueError:
                same = False
            if not same:
                raise ValueError(
                    f"{argument} must be one number, or one per channel of {name}, got the shape "
                    f"{value.shape} for images of the shape {shape}."
                )

    def check_pixel_scale(self) -> None:
        """Raises ValueError if mean and std cannot be those of pixels on the scale p/255."""
        low, high, wide = self.mean.min(), self.mean.max(), self.std.max()
        if low < 0 or high > 1 or wide > 1:
            raise ValueError(
                "mean and std must be on the scale p/255 for images of uint8, from 0 to 1, got "
                f"{self.mean.tolist()} and {self.std.tolist()}. Divide those of pixels from 0 to "
                "255 by 255; convjax.data.normalization(images) returns both."
            )

    def model(self, params: Any, variables: Any) -> nnx.Module:
        """Returns the model in evaluation mode."""
        # Copied as in `_forward`: some modules count their calls in evaluation, too.
        return nnx.merge(self._evaluating, params, variables, copy=True)

    def logits(
        self, state: TrainState, images: Num[Array | np.ndarray, "N ..."]
    ) -> Float[Array, "N ..."]:
        """Returns the model's outputs for images, in evaluation mode."""
        return self.model(state.params, state.variables)(self._input(state.params, images))

    def scores(
        self, state: TrainState, images: Num[Array, "N ..."], labels: Num[Array, "N ..."]
    ) -> tuple[Float[Array, " N"], dict[str, Shaped[Array, " N"]]]:
        """Returns the loss of each example and its metrics by name, in evaluation mode."""
        outputs = self.logits(state, images)
        metrics = self._chosen_metrics(outputs, labels).items()
        return self.losses(outputs, labels), {
            name: per_example(of(outputs, labels)) for name, of in metrics
        }

    def compared(self, outputs: Any, labels: Any) -> dict[str, PerExample]:
        """Returns the loss and the metrics by what messages call them."""
        metrics = self._chosen_metrics(outputs, labels)
        return {"loss": self.loss} | {f"metrics[{name!r}]": of for name, of in metrics.items()}

    def _chosen_metrics(self, outputs: Any, labels: Any) -> dict[str, PerExample]:
        if self._metrics is None:
            return {"accuracy": accuracy} if answers_classes(outputs, labels) else {}
        return self._metrics

    def losses(
        self, logits: Float[Array, "N ..."], labels: Num[Array, "N ..."]
    ) -> Float[Array, " N"]:
        """Returns the loss of each example, in float32 or wider whatever the model computes in."""
        found = at_least_float32(self.loss(at_least_float32(logits), labels))
        return per_example(found)

    def layers(
        self, state: TrainState, images: jax.ShapeDtypeStruct, labels: jax.ShapeDtypeStruct
    ) -> WatchedNames:
        """Returns the watched layers and parameters for a whole batch, without computing."""
        names: list[str] = []
        kinds: dict[str, LayerKind] = {}

        def forward(params: Any, variables: Any, images: jax.Array, labels: jax.Array) -> Any:
            _, outputs, _, _ = self._forward(self.structure, params, variables, images, labels)
            names.extend(outputs)
            kinds.update(getattr(outputs, "kinds", {}))
            return tuple(outputs.values())

        outputs = jax.eval_shape(forward, state.params, state.variables, images, labels)
        sizes = tuple(x.size for x in outputs)
        of_layers = tuple(kinds.get(name, LayerKind()) for name in names)
        return WatchedNames(tuple(names), sizes, describe(state.params), of_layers)

    def _forward(
        self, structure: Any, params: Any, variables: Any, images: jax.Array, labels: jax.Array
    ) -> tuple[Any, Any, Any, Any]:
        """Returns logits, outputs and channel axes of the watched layers, and new variables."""
        # copy=True: the variables belong to this trace, so that batch norm may update them.
        model = nnx.merge(structure, params, variables, copy=True)
        x = self._input(params, images)
        if self._watch is None:
            logits, outputs, axes = model(x), dict[str, jax.Array](), dict[str, int]()
        else:
            logits, outputs, axes = self._watch.outputs(model, x, labels)
        return logits, outputs, axes, _split(model)[2]

    def _input(self, params: Any, images: Any) -> jax.Array:
        # A model computes in the dtype of its parameters.
        x: Any = self.normalize(images, jax.tree.leaves(params)[0].dtype)
        return x


def _scaled(images: Any, dtype: Any) -> Any:
    """Returns pixels as p/255, and others as they are."""
    wide: Any = jnp.promote_types(dtype, jnp.float32)  # half precision has 8 bits of a pixel
    scaled = images.astype(wide)
    return scaled / 255 if images.dtype == jnp.uint8 else scaled


def _in_this_order(*values: Any) -> tuple[Any, ...]:
    """Returns the values, which are all computed before anything that uses one of them."""
    return tuple(jax.lax.optimization_barrier(values))


def _shapes(trees: Any) -> Any:
    leaves, structure = jax.tree.flatten(trees)
    return [np.shape(leaf) for leaf in leaves], structure


def _whole(model: nnx.Module) -> nnx.Module:
    """Returns a copy in training mode for whole batches; the caller's model is not changed."""
    check_type(
        "model",
        model,
        nnx.Module,
        "Make a Flax NNX module, such as digits_net(rngs=…), an instance of its class; "
        "convjax.nn.LinenModel makes one of a Linen module.",
    )
    training = nnx.clone(model)
    training.train()
    set_axis_name(training, None)
    return training


def _split(model: nnx.Module) -> tuple[Any, Any, Any]:
    """Returns (structure, parameters, all other variables)."""
    structure, params, *others = nnx.split(model, nnx.Param, ...)
    return structure, params, others[0]
