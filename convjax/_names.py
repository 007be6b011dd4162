"""Names and numbers that options share with the library, readable without JAX."""

# Normalisation layers, see `convjax.nn.models.norm_layer`.
NORMS = ("batch", "layer", "group", "instance")

# Steps of a piece of a `convjax.Plan`, at whose end a training can be stopped. Long enough that the
# check costs nothing.
PIECE = 512
