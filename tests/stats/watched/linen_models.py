"""Models of Flax Linen, as people write them; they take some vectors, images, series or tokens."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(features=4, kernel_size=(3, 3))(x)
        x = nn.relu(x)
        x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.Dense(features=6)(x)
        x = nn.relu(x)
        return nn.Dense(features=3)(x)


class ResidualNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = True):
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        x = nn.Conv(4, (3, 3), use_bias=False, name="conv_init")(x)
        x = nn.relu(norm(name="bn_init")(x))
        y = nn.Conv(4, (3, 3), use_bias=False)(x)
        y = norm(scale_init=nn.initializers.zeros_init())(y)
        x = nn.relu(x + y).mean((1, 2))
        return nn.Dense(3)(x)


class DroppingMLP(nn.Module):
    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.relu(nn.Dense(6)(x))
        x = nn.Dropout(0.5)(x, deterministic=not train)
        return nn.Dense(3)(x)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, mask=None):
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(y, y, mask=mask)
        y = nn.LayerNorm()(x)
        return x + nn.Dense(8)(nn.gelu(nn.Dense(16)(y)))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, 8)(tokens)
        x = x + self.param("positions", nn.initializers.normal(0.02), (tokens.shape[1], 8))
        x = Block(name="block_0")(x, nn.make_causal_mask(tokens))
        return nn.Dense(11, name="head")(nn.LayerNorm(name="norm")(x))


class Layer(nn.Module):
    width: int = 8

    @nn.compact
    def __call__(self, x, _=None):
        y = nn.LayerNorm(name="norm")(x)
        return x + nn.tanh(nn.Dense(self.width, name="dense")(y)), None


class ScannedNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        layers = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = layers(name="layers")(x, None)
        return nn.Dense(3, name="head")(x)


class RematNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        block = nn.remat(Layer)
        for _ in range(2):
            x, _ = block()(x)
        return nn.Dense(3, name="head")(x)


class Residual(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + nn.tanh(nn.Dense(8, name="dense")(x))


class RematScanNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.remat_scan(Residual, lengths=(2, 2))(name="stack")(x)
        return nn.Dense(3, name="head")(x)


class MLP(nn.Module):
    widths: tuple = (6, 3)

    @nn.compact
    def __call__(self, x):
        for width in self.widths[:-1]:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.widths[-1])(x)


class Ensemble(nn.Module):
    @nn.compact
    def __call__(self, x):
        members = nn.vmap(
            MLP,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            axis_size=2,
        )
        return members(name="members")(x).mean(0)


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.RNN(nn.LSTMCell(features=4))(x)
        return nn.Dense(3)(x[:, -1])


class AutoEncoder(nn.Module):
    def setup(self):
        self.encoder = nn.Dense(3)
        self.decoder = nn.Dense(8)

    def __call__(self, x):
        return self.decoder(self.encode(x))

    def encode(self, x):
        return nn.tanh(self.encoder(x))

    def decode(self, z):
        return self.decoder(z)


class Owner(nn.Module):
    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.lecun_normal(), (x.shape[-1], 3))
        return x @ w + self.param("b", nn.initializers.zeros, (3,))


class Shared(nn.Module):
    @nn.compact
    def __call__(self, x):
        shared = nn.Dense(8, name="shared")
        return nn.Dense(3, name="head")(shared(nn.relu(shared(x))))


class Boxed(nn.Module):
    @nn.compact
    def __call__(self, x):
        init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
        x = nn.relu(nn.Dense(4, kernel_init=init)(x))
        logical = nn.with_logical_partitioning(nn.initializers.lecun_normal(), ("in", "out"))
        return nn.Dense(3, kernel_init=logical)(x)


class Sowing(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.Dense(4)(x)
        self.sow("intermediates", "hidden", h)
        self.sow("losses", "activity", jnp.mean(h**2))
        return nn.Dense(3)(nn.relu(h))


class Branches(nn.Module):
    def setup(self):
        self.one, self.other = nn.Dense(4), nn.Dense(4)
        self.left, self.right = nn.Dense(4), nn.Dense(4)
        self.head = nn.Dense(3)

    def __call__(self, x):
        if self.is_initializing():  # every branch needs its parameters
            for layer in (self.one, self.other):
                y = layer(x)
            for layer in (self.left, self.right):
                layer(y)
        x = nn.cond(x.sum() > 0, lambda m, x: m.one(x), lambda m, x: m.other(x), self, x)
        index = (x.sum() > 0).astype(jnp.int32)
        x = nn.switch(index, [lambda m, x: m.left(x), lambda m, x: m.right(x)], self, x)
        return self.head(x)
