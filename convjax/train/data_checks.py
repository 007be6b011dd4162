"""One set of checks for everything that trains, scores or predicts, before any step.

What nobody can mean is an error. What is unlikely is said once.
"""

import weakref
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from convjax._warnings import warn_user
from convjax.data import Stream
from convjax.train._arguments import check_alive, check_inputs
from convjax.train.device_data import Images, check_data
from convjax.train.loss_checks import (
    array_kind,
    check_finite,
    check_labels,
    check_losses,
    check_shares,
    takes_softmax,
    unlikely_labels,
)
from convjax.train.losses import binary_cross_entropy, cross_entropy
from convjax.train.output_origin import OutputOrigin, output_origin
from convjax.train.step import TrainState, TrainStep

# So many examples, or pixels of examples, tell the scale of images.
SAMPLE, SAMPLE_VALUES = 64, 1 << 22

# Beyond this root mean square of its input a network hardly trains, as `convjax.diagnose` says, and
# with values closer together than this it sees no difference between images.
INPUT_RMS, INPUT_RANGE = 10.0, 0.05


class Outputs(NamedTuple):
    """What a model returns for images of one kind.

    Attributes:
      two: for two examples.
      origin: the operation that computes them.
    """

    two: jax.ShapeDtypeStruct
    origin: OutputOrigin


class DataChecks:
    """The checks of a `convjax.Trainer`.

    The model is traced once for each shape of images, and arrays of JAX, which do not change, are
    read once.

    Args:
      step: the training step.
    """

    def __init__(self, step: TrainStep):
        self._step = step
        self._outputs: dict[Any, Outputs] = {}  # by the kind of images
        self._fitting: set[Any] = set()  # kinds of images and labels that fit together
        self._read: dict[Any, tuple[weakref.ref[Any], ...]] = {}
        self._said: set[str] = set()

    def check(
        self, state: TrainState, data: Images | Stream, name: str = "data", *, training: bool
    ) -> None:
        """As `convjax.Trainer.check`."""
        check_data(data, name)
        self._check_state(state, training)
        outputs = self._model_outputs(state, _kind(data.images), f"{name}.images")
        kinds = _kind(data.images), _kind(data.labels), training
        if kinds not in self._fitting:
            if self._step.loss is cross_entropy:
                check_labels(data.labels, outputs.two.shape)  # says better what is wrong
            check_losses(self._step.compared, _kind(data.labels), outputs.two, training=training)
            self._fitting.add(kinds)
        parts = (data,) if isinstance(data, Stream) else tuple(data)
        if self._was_read(parts, training):
            return
        self._check_values(data.images, f"{name}.images")
        check_finite(f"{name}.labels", data.labels)
        if self._step.loss is cross_entropy:
            check_labels(data.labels, outputs.two.shape)
        if self._step.loss is binary_cross_entropy:
            check_shares(data.labels)
        unlikely = unlikely_labels(
            self._step.loss, data.labels, outputs.two.shape, outputs.origin.maps, training
        )
        if unlikely:
            self._say(unlikely)
        self._check_origin(outputs, data.labels)
        self._check_scale(_sample(data), f"{name}.images")
        self._keep_read(parts, training)

    def check_inputs(self, state: TrainState, images: np.ndarray) -> None:
        """Checks images to predict for, as `check` those of a split."""
        check_inputs(images)
        self._check_state(state, training=False)
        self._model_outputs(state, _kind(images), "images")
        self._check_values(images, "images")
        if len(images):
            self._check_scale(images[: _sample_size(images)], "images")

    def _check_state(self, state: TrainState, training: bool) -> None:
        check_alive(state)
        self._step.check_state(state, optimizer=training)

    def _model_outputs(self, state: TrainState, kind: Any, name: str) -> Outputs:
        """Returns what the model returns, checked to be one array with the examples first."""
        if kind not in self._outputs:
            shape, dtype = kind
            self._step.check_channels(shape, name)
            images = jax.ShapeDtypeStruct((2, *shape), dtype)
            try:
                program, found = jax.make_jaxpr(self._step.logits, return_shape=True)(state, images)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"model must take {name}, {array_kind(images)} for 2 examples: "
                    f"{' '.join(str(error).split())}"
                ) from error
            if not hasattr(found, "shape") or found.shape[:1] != (2,):
                raise ValueError(
                    "model must return one array with the examples first, got "
                    f"{jax.tree.map(array_kind, found)} for 2 examples. Wrap it in a module that "
                    "returns what the loss takes."
                )
            if not jnp.issubdtype(found.dtype, jnp.floating):
                raise TypeError(
                    f"model must return numbers of floating point, got {array_kind(found)} for 2 "
                    "examples, which have no gradient. Return the logits, not the classes."
                )
            self._outputs[kind] = Outputs(found, output_origin(program))
        return self._outputs[kind]

    def _check_origin(self, outputs: Outputs, labels: Any) -> None:
        """Says if a loss of logits gets the result of a softmax or a sigmoid."""
        function, loss = outputs.origin.function, self._step.loss
        shape = outputs.two.shape
        of_logits = loss in (cross_entropy, binary_cross_entropy)
        if not of_logits and function == "softmax" and shape[-1] > 1:
            of_logits = takes_softmax(loss, shape, labels)
        if function and of_logits:
            self._say(
                f"model ends in a {function}, and the loss takes logits, of which it computes "
                f"the probabilities itself. Leave the {function} out of the model, and apply "
                f"jax.nn.{function} to what predict returns."
            )

    def _check_values(self, images: Any, name: str) -> None:
        """Checks pixels against mean and std, and others to be finite."""
        if images.dtype == np.uint8:
            self._step.check_pixel_scale()
        else:
            check_finite(name, images)

    def _check_scale(self, sample: np.ndarray, name: str) -> None:
        """Says if a network sees numbers that are large, or all nearly the same."""
        seen = np.asarray(self._step.normalize(sample), np.float64)
        rms, spread = float(np.sqrt(np.mean(seen**2))), float(np.ptp(seen))
        advice = (
            "Pass mean and std of the training images to the trainer: of pixels of uint8 those "
            "that convjax.data.normalization(images) returns, of floats their own."
        )
        if rms > INPUT_RMS:
            self._say(
                f"{name} have the root mean square {rms:.3g} after (x - mean)/std, and a network "
                f"is made for about 1. {advice}"
            )
        elif spread < INPUT_RANGE and (spread or len(sample) == SAMPLE):
            self._say(
                f"{name} differ by at most {spread:.2g} after (x - mean)/std, and a network is "
                f"made for about 1. {advice}"
            )

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            warn_user(message)

    def _was_read(self, parts: tuple[Any, ...], training: bool) -> bool:
        found = self._read.get((*map(id, parts), training), ())
        return bool(found) and all(ref() is part for ref, part in zip(found, parts, strict=True))

    def _keep_read(self, parts: tuple[Any, ...], training: bool) -> None:
        if all(isinstance(part, jax.Array | Stream) for part in parts):
            self._read = {
                key: refs
                for key, refs in self._read.items()
                if all(ref() is not None for ref in refs)
            }
            self._read[(*map(id, parts), training)] = tuple(map(weakref.ref, parts))


def _kind(array: Any) -> tuple[tuple[int, ...], Any]:
    return tuple(array.shape[1:]), np.dtype(array.dtype)


def _sample(data: Images | Stream) -> np.ndarray:
    """Returns the first images."""
    size = min(_sample_size(data.images), len(data.labels))
    if isinstance(data, Stream):
        return np.asarray(data.read(np.arange(size)))
    return np.asarray(data.images[:size])


def _sample_size(images: Any) -> int:
    return max(1, min(SAMPLE, SAMPLE_VALUES // max(1, int(np.prod(images.shape[1:])))))
