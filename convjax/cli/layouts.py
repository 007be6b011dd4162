"""`convjax layouts`: what NCHW, NHWC and CHWN cost on a chip, there or not."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convjax.terminal.command import NOTHING_WRITTEN, mistakes_reported

if TYPE_CHECKING:
    from collections.abc import Mapping

# Networks by name: the function of `convjax` that makes one, its arguments, and the images.
NETWORKS: "Mapping[str, tuple[str, dict[str, Any], tuple[int, int, int]]]" = {
    "digits": ("digits_net", {"norm": "batch"}, (28, 28, 1)),
    "cifar_resnet20": ("cifar_resnet", {}, (32, 32, 3)),
    "resnet18": ("resnet18", {}, (224, 224, 3)),
    "resnet50": ("resnet50", {}, (224, 224, 3)),
}


def run_layouts(
    network: Annotated[
        str,
        typer.Argument(
            help="digits, cifar_resnet20, resnet18, resnet50, or MODULE:FUNCTION of your own, "
            "which takes the layout and returns a network."
        ),
    ] = "digits",
    target: Annotated[
        list[str] | None,
        typer.Option(help="cpu, a100, h100, h200, v5e or v6e; several times for several."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images of one step.")] = 64,
    image: Annotated[
        str, typer.Option(help="H,W,C of the images of a network of your own.")
    ] = "28,28,1",
) -> None:
    """Compiles a training step in each layout and shows what the compiler made of it."""
    with mistakes_reported(NOTHING_WRITTEN):
        import jax
        import jax.numpy as jnp

        import convjax

        make_network, shape = _network(network, image)
        images = jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32)
        targets = tuple(target or ["cpu"])
        found = convjax.compare_layouts(make_network, images, targets, in_loop=True)
        typer.echo(str(found))  # ends with a recommendation for each target


def _network(name: str, image: str) -> tuple[Callable[[str], Any], tuple[int, int, int]]:
    """Returns a function that makes the network in a layout, and the shape of an image.

    Raises:
      ValueError: if there is no such network, or the image has other than three sizes.
    """
    from flax import nnx

    import convjax

    if name in NETWORKS:
        function, arguments, shape = NETWORKS[name]
        make = getattr(convjax, function)
        return lambda layout: make(**arguments, layout=layout, rngs=nnx.Rngs(0)), shape
    module, colon, attribute = name.partition(":")
    sizes = image.split(",")
    if not colon:
        raise ValueError(f"NETWORK must be {', '.join(NETWORKS)} or MODULE:FUNCTION, got {name!r}.")
    if len(sizes) != 3 or not all(size.strip().isdecimal() for size in sizes):
        raise ValueError(f"--image must be H,W,C, got {image!r}. Write 224,224,3, say.")
    height, width, channels = map(int, sizes)
    try:
        return getattr(import_module(module), attribute), (height, width, channels)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"NETWORK must be MODULE:FUNCTION, got {name!r}: {error}.") from None
