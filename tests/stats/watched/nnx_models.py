"""Models of Flax NNX as people write them, with few numbers."""

import jax
import jax.numpy as jnp
from flax import linen, nnx


class Mlp(nnx.Module):
    def __init__(self, rngs, din=6, dout=3, **kinds):
        self.hidden = nnx.Linear(din, 8, rngs=rngs, **kinds)
        self.head = nnx.Linear(8, dout, rngs=rngs, **kinds)

    def __call__(self, x):
        return self.head(nnx.relu(self.hidden(x)))


class LinenMlp(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3, name="head")(linen.relu(linen.Dense(8, name="hidden")(x)))


class ResidualBlock(nnx.Module):
    def __init__(self, features, *, rngs):
        self.conv1 = nnx.Conv(features, features, (3, 3), use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(features, rngs=rngs)
        self.conv2 = nnx.Conv(features, features, (3, 3), use_bias=False, rngs=rngs)
        self.bn2 = nnx.BatchNorm(features, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        h = self.dropout(nnx.relu(self.bn1(self.conv1(x))))
        return nnx.relu(x + self.bn2(self.conv2(h)))


class ResNet(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.blocks = nnx.List([ResidualBlock(4, rngs=rngs) for _ in range(2)])
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


class Transformer(nnx.Module):
    def __init__(self, features, *, rngs):
        self.norm1 = nnx.LayerNorm(features, rngs=rngs)
        # Without biases: that of the keys has the gradient 0 but for rounding, which Adam scales
        # to whole steps, so that two programs that round differently would not be comparable.
        self.attention = nnx.MultiHeadAttention(
            2, features, use_bias=False, decode=False, rngs=rngs
        )
        self.norm2 = nnx.LayerNorm(features, rngs=rngs)
        self.mlp = Mlp(rngs, features, features)

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nnx.Module):
    def __init__(self, rngs):
        self.patch = nnx.Conv(1, 8, (4, 4), strides=4, rngs=rngs)
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, 4, 8)))
        self.block = Transformer(8, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = self.patch(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1]) + self.position[...]
        return self.head(self.norm(self.block(x)).mean(1))


class Autoencoder(nnx.Module):
    def __init__(self, rngs):
        self.down = nnx.Conv(1, 4, (3, 3), strides=2, rngs=rngs)
        self.up = nnx.ConvTranspose(4, 1, (3, 3), strides=2, rngs=rngs)

    def __call__(self, x):
        return self.up(nnx.relu(self.down(x)))


class Recurrent(nnx.Module):
    def __init__(self, cell, rngs):
        self.rnn = nnx.RNN(cell(6, 5, rngs=rngs))
        self.head = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.rnn(x)[:, -1])


class Vae(nnx.Module):
    """Has no `__call__`: the loss uses its methods."""

    def __init__(self, rngs):
        self.encoder = nnx.Linear(6, 8, rngs=rngs)
        self.mean = nnx.Linear(8, 2, rngs=rngs)
        self.deviation = nnx.Linear(8, 2, rngs=rngs)
        self.decoder = nnx.Linear(2, 6, rngs=rngs)
        self.rngs = nnx.Rngs(noise=1)

    def encode(self, x):
        h = nnx.relu(self.encoder(x))
        return self.mean(h), self.deviation(h)

    def decode(self, z):
        return self.decoder(z)


def vae_loss(model, x):
    mean, log_deviation = model.encode(x)
    noise = jax.random.normal(model.rngs.noise(), mean.shape)
    decoded = model.decode(mean + jnp.exp(log_deviation) * noise)
    kl = jnp.mean(mean**2 + jnp.exp(2 * log_deviation) - 2 * log_deviation - 1)
    return jnp.mean((decoded - x) ** 2) + 0.1 * kl


class Mixer(nnx.Module):
    """Returns its output and a state, as a state space layer."""

    def __init__(self, rngs):
        self.decay = nnx.Param(jax.random.uniform(rngs.params(), (6,)))

    def __call__(self, x):
        state = jnp.cumsum(x * self.decay[...], axis=0)
        return nnx.tanh(state), {"state": state[-1], "length": len(x)}


class Tuples(nnx.Module):
    def __init__(self, rngs):
        self.mixer = Mixer(rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        y, _ = self.mixer(x)
        return self.head(y)


class Owner(nnx.Module):
    def __init__(self, rngs):
        self.kernel = nnx.Param(0.3 * jax.random.normal(rngs.params(), (6, 3)))
        self.bias = nnx.Param(jnp.zeros(3))

    def __call__(self, x):
        return x @ self.kernel[...] + self.bias[...]


class Shared(nnx.Module):
    def __init__(self, rngs):
        self.shared = nnx.Linear(6, 6, rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.shared(nnx.relu(self.shared(x))))


class Language(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(7, 6, rngs=rngs)
        self.hidden = nnx.Linear(6, 6, rngs=rngs)

    def __call__(self, tokens):
        return self.embed.attend(nnx.relu(self.hidden(self.embed(tokens))))


class LoRA(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.LoRALinear(6, 8, lora_rank=2, rngs=rngs)
        self.head = nnx.LoRALinear(8, 3, lora_rank=2, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.hidden(x)))


class Sowing(Mlp):
    def __call__(self, x):
        h = nnx.relu(self.hidden(x))
        self.sow(nnx.Intermediate, "activations", h)
        return self.head(h)


class Counting(Mlp):
    """Counts its calls in an attribute: of traces, in a compiled step."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return super().__call__(x)


class Caching(Mlp):
    """Keeps the last activations and a running mean."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.mean = nnx.BatchStat(jnp.zeros(8))
        self.last = nnx.Cache(jnp.zeros((4, 8)))

    def __call__(self, x):
        h = nnx.relu(self.hidden(x))
        self.mean[...] = 0.9 * self.mean[...] + 0.1 * h.mean(0)
        self.last[...] = h
        return self.head(h - self.mean[...])


class Layer(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(6, 6, rngs=rngs)

    def __call__(self, x):
        return nnx.tanh(self.linear(x))


def _layers(rngs, count=3):
    @nnx.split_rngs(splits=count)
    @nnx.vmap(in_axes=0, out_axes=0)
    def make(rngs):
        return Layer(rngs)

    return make(rngs)


class Scanned(nnx.Module):
    def __init__(self, rngs):
        self.layers = _layers(rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def forward(layer, x):
            return layer(x)

        return self.head(forward(self.layers, x))


class ScannedPart(Scanned):
    """Its scan names the parameters alone: other variables would be an error."""

    def __call__(self, x):
        axes = nnx.StateAxes({nnx.Param: 0})

        @nnx.scan(in_axes=(axes, nnx.Carry), out_axes=nnx.Carry)
        def forward(layer, x):
            return layer(x)

        return self.head(forward(self.layers, x))


class Remat(Mlp):
    def __call__(self, x):
        @nnx.remat
        def hidden(model, x):
            return nnx.relu(model.hidden(x))

        return self.head(hidden(self, x))


class Ensemble(nnx.Module):
    def __init__(self, rngs):
        self.members = _layers(rngs, 2)

    def __call__(self, x):
        together = nnx.vmap(lambda member, x: member(x), in_axes=(0, None))
        return together(self.members, x).mean(0)


class Branching(Mlp):
    """Calls its hidden layer within a transform."""

    def __init__(self, kind, rngs):
        super().__init__(rngs)
        self.kind = kind

    def __call__(self, x):
        return self.head(nnx.relu(getattr(self, f"_{self.kind.replace('.', '_')}")(x)))

    def _cond(self, x):
        def other(layer, x):
            return jnp.ones((len(x), 8))

        return nnx.cond(x.sum() > -1e3, lambda layer, x: layer(x), other, self.hidden, x)

    def _switch(self, x):
        branches = [lambda layer, x: layer(x), lambda layer, x: 2 * layer(x)]
        return nnx.switch(jnp.int32(x.sum() > 0), branches, self.hidden, x)

    def _while_loop(self, x):
        # The number of iterations depends on values, so that there is no gradient through them.
        def body(state):
            layer, total, i = state
            return layer, total + layer(jax.lax.stop_gradient(x)), i + 1

        first = self.hidden, jnp.zeros((len(x), 8)), 0
        _, total, _ = nnx.while_loop(lambda state: state[2] < 2, body, first)
        return jax.lax.stop_gradient(total)

    def _checkpoint(self, x):
        return jax.checkpoint(lambda x: self.hidden(x))(x)

    def _vmap(self, x):
        return jax.vmap(self.hidden)(x)

    def _lax_scan(self, x):
        return jax.lax.scan(lambda _, row: (None, self.hidden(row)), None, x)[1]

    def _lax_cond(self, x):
        return jax.lax.cond(x.sum() > -1e3, self.hidden, lambda x: jnp.ones((len(x), 8)), x)
