"""The command `explore`, its error messages, and the folder of a run for it."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from typer.testing import CliRunner

from convjax.cli.app import app
from convjax.runs.folder import RunFolder
from tests.helpers import make_record


def invoke(*arguments):
    return CliRunner().invoke(app, ["explore", *map(str, arguments)])


def assert_mistake(result, message, out):
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1
    assert not out.exists()
    assert not list(out.parent.glob(".*"))


def leave_run(lab, setting, path):
    """A run's folder as a training leaves it, with invented weights and statistics."""
    config, image = lab.run_config(setting, 0), lab.device_dataset(setting).dataset.train.images[0]
    classes = len(config["classes"])
    # Without the initial numbers, which take seconds to compile.
    model = nnx.eval_shape(lambda: setting.build(image.shape, classes, lab.layout, 0))
    rng = np.random.default_rng(0)
    for name, variable in nnx.to_flat_state(nnx.state(model)):
        positive = name[-1] == "var"
        shape = variable.shape
        values = rng.uniform(0.5, 2, shape) if positive else rng.normal(scale=0.1, size=shape)
        variable.set_value(jnp.asarray(values, jnp.float32))
    folder = RunFolder(path, config)
    folder.write_metrics([{"epoch": 0, "accuracy": 0.5}])
    folder.write_record(make_record(steps=3, layers=1))
    folder.write_model(model)
    model.eval()
    return model
