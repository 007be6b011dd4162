"""The architectures of the zoo, with the rates at which they train."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from flax import nnx

from experiments.diagnosis_study.healthy import convolutional_nets as convolutional
from experiments.diagnosis_study.healthy import map_nets, sequence_models
from experiments.diagnosis_study.healthy import residual_nets as residual
from experiments.diagnosis_study.healthy.layer_maker import LayerMaker, Style
from experiments.diagnosis_study.healthy.pure_nets import DenseLayers, LinenCNN, LinenNormCNN

# What a network maps images or tokens to.
VECTOR, MAP, TOKENS = "outputs of an image", "outputs of each pixel", "outputs of each token"


@dataclass(frozen=True)
class ZooArchitecture:
    """A network of the zoo.

    Attributes:
      name: of it.
      make: returns the network, given the number of outputs and the maker of its layers.
      adam: healthy learning rate for Adam.
      sgd: healthy learning rate for SGD with a momentum of 0.9.
      kind: what it maps to.
      batch_norm: whether it has running statistics.
      recurrent: whether it is slow to compute for one more step.
      library: "nnx", "linen" or "optax".
    """

    name: str
    make: Callable[[int, LayerMaker], Any]
    adam: float = 3e-3
    sgd: float = 0.05
    kind: str = VECTOR
    batch_norm: bool = False
    recurrent: bool = False
    library: str = "nnx"

    def build(self, outputs: int, style: Style, seed: int) -> Any:
        """Returns the network with the initial parameters of a seed."""
        return self.make(outputs, LayerMaker(style, seed))


def _mlp(function: convolutional.Function) -> Callable[[int, LayerMaker], nnx.Module]:
    return partial(convolutional.MLP, function=function)


_normed = partial(ZooArchitecture, adam=1e-2, sgd=0.1, batch_norm=True)
_strided = convolutional.StridedNet
_rows, _reader = sequence_models.RowReader, sequence_models.TokenReader

ARCHITECTURES: tuple[ZooArchitecture, ...] = (
    ZooArchitecture("mlp", _mlp(nnx.relu)),
    ZooArchitecture("mlp, tanh", _mlp(nnx.tanh)),
    ZooArchitecture("mlp, gelu", _mlp(nnx.gelu)),
    ZooArchitecture("cnn", _strided),
    ZooArchitecture("cnn, silu", partial(_strided, function=nnx.silu)),
    ZooArchitecture("cnn, max pooling", convolutional.PoolingNet),
    _normed("cnn, batch norm", partial(_strided, norm="batch")),
    ZooArchitecture("cnn, group norm", partial(_strided, norm="group"), 5e-3),
    _normed("residual", residual.residual(residual.PostActivationBlock)),
    _normed("pre-activation residual", residual.residual(residual.PreActivationBlock)),
    _normed("squeeze and excitation", residual.residual(residual.squeeze_excitation)),
    _normed("densenet", convolutional.DenseNet),
    _normed("mobilenet", residual.mobilenet),
    ZooArchitecture("convnext", residual.convnext, 4e-3, 0.1),
    ZooArchitecture("vit", sequence_models.VisionTransformer, 2e-3, 0.05),
    ZooArchitecture("mixer", sequence_models.Mixer, 2e-3, 0.05),
    ZooArchitecture("gru", partial(_rows, cell=nnx.GRUCell), 5e-3, 0.1, recurrent=True),
    ZooArchitecture("lstm", partial(_rows, cell=nnx.LSTMCell), 5e-3, 0.2, recurrent=True),
    ZooArchitecture("linen cnn", LinenCNN, library="linen"),
    _normed("linen cnn, batch norm", LinenNormCNN, library="linen"),
    ZooArchitecture("optax mlp", DenseLayers, library="optax"),
    ZooArchitecture("u-net", map_nets.UNet, 1e-2, 0.1, MAP, batch_norm=True),
    ZooArchitecture("u-net, group norm", partial(map_nets.UNet, norm="group"), 5e-3, 0.1, MAP),
    ZooArchitecture("fully convolutional", map_nets.FullyConvolutional, 5e-3, 0.1, MAP),
    ZooArchitecture("autoencoder", map_nets.Autoencoder, 2e-3, 0.5, MAP),
    ZooArchitecture("conv autoencoder", map_nets.ConvAutoencoder, 1e-2, 0.5, MAP),
    ZooArchitecture("gpt", sequence_models.GPT, 3e-3, 0.1, TOKENS),
    ZooArchitecture("gru over tokens", partial(_reader, cell=nnx.GRUCell), 5e-3, 0.5, TOKENS),
    ZooArchitecture("lstm over tokens", partial(_reader, cell=nnx.LSTMCell), 1e-2, 0.5, TOKENS),
    ZooArchitecture("causal convolutions", sequence_models.CausalConvolutions, 3e-3, 0.2, TOKENS),
)
