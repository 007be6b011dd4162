import jax.numpy as jnp
import numpy as np
import pytest

from convjax.analysis._effective_field import effective_field
from convjax.analysis.receptive_field import ReceptiveField, receptive_fields
from convjax.ops.conv import conv2d
from convjax.plots import plot_effective_field


def network(x):
    kernel = jnp.arange(1.0, 10.0).reshape(3, 3, 1, 1)
    return conv2d(x, kernel, stride=2, padding=1), {"x": x}


def test_plot_effective_field_frames_the_receptive_field():
    images = jnp.zeros((1, 12, 10, 1))
    field = receptive_fields(network, images)["(output)"]
    effective = effective_field(network, images, layer="(output)", cell=(2, 0))
    figure = plot_effective_field(effective, field)
    axes = figure.axes[0]
    (frame,) = axes.patches
    # Rows 3 to 5; columns −1 to 1, of which the first lies beyond the border. Pixels are centred.
    assert frame.get_bbox().bounds == (-0.5, 2.5, 2, 3)
    (picture,) = axes.images
    np.testing.assert_array_equal(
        picture.get_array(), effective.magnitude / effective.magnitude.max()
    )
    assert axes.get_title() == "(output), cell (2, 0)"
    assert "3×3 pixels" in figure.get_supxlabel().replace("\n", " ")


def test_plot_effective_field_rejects_an_unknown_field():
    effective = effective_field(network, jnp.zeros((1, 8, 8, 1)), layer="(output)")
    with pytest.raises(TypeError, match="field must be ReceptiveField, got dict"):
        plot_effective_field(effective, {})
    with pytest.raises(ValueError, match="field must be known, got one that is lost at: rev"):
        plot_effective_field(effective, ReceptiveField(None, None, "rev"))
