"""Mistakes in Python: wrong arguments of public functions, and files with wrong content."""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import convjax
from convjax.data import DataError, Split, load
from convjax.nn.weights import WeightsError
from convjax.runs.config import RunError
from convjax.stats.record_file import RecordError
from tests.helpers import make_record
from tests.mistakes import Mistake


@cache
def names() -> dict[str, Any]:
    """Returns the names that the expressions use: small objects, made once."""
    network = convjax.ConvNet((1, 2, 10), rngs=nnx.Rngs(0))
    trainer = convjax.Trainer(network, convjax.adam(), watch=None)
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (8, 4, 4, 1), np.uint8), np.arange(8, dtype=np.int32))
    return {
        **{name: getattr(convjax, name) for name in convjax.__all__},
        "convjax": convjax,
        "np": np,
        "jnp": jnp,
        "jax": jax,
        "nnx": nnx,
        "Path": Path,
        "load": load,
        "Split": Split,
        "x": jnp.ones((2, 8, 8, 3)),
        "kernel": jnp.ones((3, 3, 3, 4)),
        "network": network,
        "one_hot": jax.nn.one_hot(split.labels, 10),
        "linear": nnx.Linear(2, 3, rngs=nnx.Rngs(0)),
        "trainer": trainer,
        "state": trainer.start(network),
        "split": split,
        "images": convjax.Images.put(split),
        "order": np.arange(8).reshape(2, 4),
        "table": convjax.constant(0.1).table(2),
        "record": make_record(steps=5, layers=2),
    }


def make_files(folder: Path) -> None:
    """Makes the files that the expressions name."""
    (folder / "text.txt").write_text("hello")
    (folder / "folder").mkdir()
    np.savez(folder / "other.npz", x=np.arange(3))


def run(what: str) -> Any:
    """Evaluates one of the expressions of this file."""
    return eval(what, dict(names()))


T, V, D, W = TypeError, ValueError, DataError, WeightsError
LAYOUTS = "one of 'NHWC', 'NCHW', 'CHWN'"
ROWS = [
    # --- flags, for which text would count as True --------------------------------------------
    Mistake(
        "conv(1, 8, act='tanh')",
        T,
        ("act must be True or False", "got str: 'tanh'", "act=False), jax.nn.tanh)"),
    ),
    Mistake(
        "convjax.nn.Conv(1, 2, use_bias='no', rngs=nnx.Rngs(0))",
        T,
        ("use_bias must be True or False", "got str: 'no'"),
    ),
    Mistake(
        "convjax.nn.BatchNorm(2, torch_statistics='flax')",
        T,
        ("torch_statistics must be True or False", "got str: 'flax'"),
    ),
    Mistake(
        "ConvNet((1, 2), norm_last=None, rngs=nnx.Rngs(0))",
        T,
        ("norm_last must be True or False", "got NoneType: None"),
    ),
    Mistake(
        "convjax.nn.BasicBlock(4, 4, zero_init=2, rngs=nnx.Rngs(0))",
        T,
        ("zero_init must be True or False", "got int: 2"),
    ),
    Mistake("Watch(units='dead')", T, ("units must be True or False", "got str: 'dead'")),
    Mistake(
        "Learner((split, split), network, normalize=(0.5, 0.2))",
        T,
        ("normalize must be True or False", "got tuple: (0.5, 0.2)"),
    ),
    # --- convolution -------------------------------------------------------------------------
    Mistake("conv2d([[1.0, 2.0]], kernel)", T, ("x must be an array", "got list: [[1.0, 2.0]]")),
    Mistake("conv2d(x, None)", T, ("kernel must be an array", "got NoneType: None")),
    Mistake("conv2d(x, kernel, 1.0)", T, ("bias must be an array", "got float: 1.0")),
    Mistake("conv2d(kernel, x)", V, ("x must have 8 channels", "got 4", "(2, 8, 8, 3)")),
    Mistake(
        "conv2d(x.astype(jnp.uint8), kernel)",
        T,
        ("x, kernel and bias must have one dtype", "x uint8, kernel float32", "astype"),
    ),
    Mistake("conv2d(x, kernel, stride=0)", V, ("stride must be at least 1", "got 0")),
    Mistake("conv2d(x, kernel, stride=2.0)", T, ("stride must be an int or a pair", "got 2.0")),
    Mistake("conv2d(x, kernel, stride='2')", V, ("stride must be an int or a pair", "got '2'")),
    Mistake("conv2d(x, kernel, padding='full')", V, ('"same", "valid" or numbers', "got 'full'")),
    Mistake("conv2d(x, kernel, padding=-1)", V, ("padding must be at least 0", "got -1")),
    Mistake("conv2d(x, kernel, layout='HWC')", V, ("layout must be", LAYOUTS, "got 'HWC'")),
    Mistake("conv2d(x, kernel, method='fft')", V, ("method must be", '"matmul"', "got 'fft'")),
    Mistake("conv2d(x, kernel, groups=3)", V, ("groups must divide the 4 output", "groups=3")),
    Mistake(
        "conv2d(x, kernel, jnp.ones(3))", V, ("bias must have one number per", "got the shape")
    ),
    Mistake(
        "conv2d(x, kernel.transpose(3, 2, 0, 1), layout='NCHW')",
        V,
        ("x must have 3 channels", "got 8", "In NHWC it has 3", "layout='NHWC'", "transpose"),
    ),
    Mistake("conv2d(x[:, :2, :2], kernel)", V, ("larger than the padded input", "Pad more")),
    # --- networks ----------------------------------------------------------------------------
    Mistake("digits_net(rngs=0)", T, ("rngs must be Rngs, got int: 0", "nnx.Rngs(0) makes one")),
    Mistake("digits_net(classes=0, rngs=nnx.Rngs(0))", V, ("channels must be at least 1, got 0",)),
    Mistake("digits_net(norm='batchnorm', rngs=nnx.Rngs(0))", V, ("norm must be", "'batchnorm'")),
    Mistake("digits_net(layout='nhwc', rngs=nnx.Rngs(0))", V, ("layout must be", "'auto'")),
    Mistake("LinearNet((784,), rngs=nnx.Rngs(0))", V, ("features must be", "got (784,)")),
    Mistake(
        "Learner((split, split), network, optimizer='adam')",
        T,
        ("optimizer must be a function that makes the optimiser", "convjax.sgd", "got str: 'adam'"),
    ),
    Mistake(
        "Learner((split, split), lambda: network)", T, ("model must be Module", "such as net()")
    ),
    Mistake(
        "convjax.report.comparison('runs/mine')",
        T,
        ("paths must be a sequence of folders", "got 'runs/mine'", "Pass two or more in a list"),
    ),
    # --- trainer -----------------------------------------------------------------------------
    Mistake("Trainer(network, adam(), watch=True)", T, ("watch must be Watch, got bool: True",)),
    Mistake("Trainer(network, adam)", T, ("optimizer must be Optimizer", "convjax.adam()")),
    Mistake("Trainer(ConvNet, adam())", T, ("model must be Module", "Make a Flax NNX module")),
    Mistake("Trainer('digits', adam())", T, ("model must be Module, got str: 'digits'",)),
    Mistake(
        "Trainer(network, adam(), std=0)", V, ("mean must be finite, and std positive", "and 0")
    ),
    Mistake("Trainer(network, adam(), std='0.3')", T, ("std must be numbers, got str: '0.3'",)),
    Mistake(
        "Trainer(network, adam(), loss='cross_entropy')",
        T,
        ("loss must be a function from logits and labels", "got str: 'cross_entropy'"),
    ),
    Mistake("Trainer(network, adam(), devices=2)", T, ("devices must be a sequence", "got 2")),
    Mistake("trainer.start(linear)", V, ("model must have the structure of the model",)),
    Mistake("trainer.start('network')", T, ("model must be Module, got str: 'network'",)),
    Mistake(
        "trainer.run(None, images, order, table)", T, ("state must be", "got NoneType", "start")
    ),
    Mistake(
        "trainer.run(state, images, order, table, writer=print)",
        T,
        ("writer must have a method write_scalars(step, scalars)", "got builtin", "a CLU writer"),
    ),
    Mistake("trainer.run(state, split, order, table)", T, ("data must be Images", "Images.put(sp")),
    Mistake(
        "trainer.run(state, images, np.arange(8), table)",
        V,
        ("order must have the shape (steps, batch), got (8,)", "epoch_order"),
    ),
    Mistake(
        "trainer.run(state, images, order / 2, table)", T, ("order must hold indices", "float64")
    ),
    Mistake("trainer.run(state, images, order + 1, table)", V, ("from 0 to 7, got 1 to 8",)),
    Mistake(
        "trainer.run(state, images, order, constant(0.1))", T, ("table must be Mapping", ".table(")
    ),
    Mistake(
        "trainer.run(state, images, order, constant(0.1).table(3))",
        V,
        ("table['learning_rate'] must have one number per step (2)", "(3,)"),
    ),
    Mistake(
        "trainer.run(state, images, order, {'lr': [0.1, 0.1]})",
        V,
        ("table must hold learning_rate and momentum, got lr",),
    ),
    Mistake(
        "trainer.run(state, images, order, {'learning_rate': ['a', 'b'], 'momentum': [0.9, 0.9]})",
        T,
        ("table['learning_rate'] must hold numbers, got <U1",),
    ),
    Mistake(
        "trainer.run(state, Images(images.images, one_hot.astype(int)), order, table)",
        V,
        ("one probability per logit, got int32 of the shape (8, 10)", "argmax"),
    ),
    Mistake(
        "trainer.run(state, Images(images.images, 3 * one_hot), order, table)",
        V,
        ("labels of the shape of the logits must be probabilities", "binary_cross_entropy"),
    ),
    Mistake(
        "trainer.run(state, Images(images.images, images.labels - 5), order, table)",
        V,
        ("labels must be 0 or above, got -5",),
    ),
    Mistake(
        "trainer.run(state, Images(images.images, images.labels + 5), order, table)",
        V,
        ("labels must be below the model's 10 logits, got 12",),
    ),
    Mistake(
        "Images.put(load('mnist5k'))", T, ("split must have images and labels", "dataset.train")
    ),
    Mistake("Images.put((split.images, split.labels))", T, ("split must have", "got tuple")),
    Mistake(
        "trainer.run(state, Images(images.images.astype(int), images.labels), order, table)",
        T,
        ("data.images must be uint8 from 0 to 255 or of floating point, got int32", "astype"),
    ),
    Mistake(
        "trainer.run(state, Images(images.labels, images.images), order, table)",
        T,
        ("data.images must be uint8", "got int32"),
    ),
    Mistake(
        "trainer.run(state, Images(images.images, images.labels[:3]), order, table)",
        V,
        ("as many labels as images, got the shapes (3,) and (8, 4, 4, 1)",),
    ),
    Mistake("trainer.evaluate(state, split)", T, ("data must be Images, got Split",)),
    Mistake("trainer.evaluate(state, images, batch_size=0)", V, ("batch_size must be", "got 0")),
    Mistake(
        "trainer.predict(state, split.images.astype(int))",
        T,
        ("images must be uint8 from 0 to 255 or of floating point, got int64", "astype"),
    ),
    Mistake("trainer.predict(state, split.images[0])", V, ("images of uint8 must", "(4, 4, 1)")),
    Mistake(
        "Trainer(network, adam(), std=1e300)", V, ("positive and finite in float32", "and 1e+300")
    ),
    Mistake(
        "Trainer(network, adam(), watch=None, mean=33.3, std=78.6).predict(state, split.images)",
        V,
        ("mean and std must be on the scale p/255", "got 33.3 and 78.6", "by 255"),
    ),
    Mistake(
        "trainer.run(state, images, order, {'learning_rate': [0.1, np.nan], 'momentum': [0, 0]})",
        V,
        ("table['learning_rate'] must be at least 0 and finite, got nan at step 1",),
    ),
    Mistake(
        "Trainer(network, sgd(), watch=None).run(state, images, order, table)",
        V,
        ("state must be that of the trainer's optimiser", "trainer.start(other.model(state))"),
    ),
    Mistake(
        "Trainer(network, adam(), watch=None, loss=lambda o, y: o.argmax(-1) != y).run("
        "state, images, order, table)",
        T,
        ("loss must return numbers of floating point, got bool", "one of the metrics"),
    ),
    Mistake(
        "Trainer(network, adam(), watch=None, loss=lambda o, y: jnp.sum((o - y[:, None]) ** 2))"
        ".evaluate(state, images)",
        V,
        ("loss must return one number per example", "Leave out the mean or sum"),
    ),
    Mistake(
        "trainer.evaluate(state, Images(images.images / jnp.nan, images.labels))",
        V,
        ("data.images must be finite, got NaN",),
    ),
    # --- what is watched ---------------------------------------------------------------------
    Mistake("Watch(every=0)", V, ("every must be a whole number of steps, at least 1, got 0",)),
    Mistake("Watch(every=2.5)", V, ("every must be a whole number of steps", "got 2.5")),
    Mistake("Watch(select=3)", T, ("select must be a function", '"*conv"', "got 3")),
    Mistake("Watch(activations=False)", V, ("one quantity or more", "watch=None")),
    Mistake(
        "capture(ConvNet, x)",
        T,
        (
            "model must be",
            "got the class ConvNet. Construct",
        ),
    ),
    Mistake("capture(None, x)", T, ("model must be a Flax module or a function, got NoneType",)),
    Mistake(
        "capture(network, x[..., :1], select='nothing')",
        V,
        ("select must match a layer", "blocks.0.conv"),
    ),
    Mistake("layer_stats([x])", T, ("outputs must be Mapping, got list", "convjax.capture")),
    Mistake("layer_stats({'conv': 3.0})", T, ("outputs['conv'] must be an array, got float: 3.0",)),
    Mistake(
        "layer_stats({'conv': x}, units=True, channel_axes={'conv': 4})",
        V,
        ("channel_axes['conv'] must be an axis of the shape (2, 8, 8, 3), got 4",),
    ),
    Mistake(
        "parameter_stats({'a': 'text'}, grads={'a': 'text'})", T, ("params['a'] must be an arr",)
    ),
    Mistake("parameter_stats({'a': x}, grads={'b': x})", V, ("grads must have the structure of",)),
    Mistake("parameter_stats({'a': x})", V, ("grads or updated must be given, got neither",)),
    Mistake("Recorder(rows='10')", T, ("rows must be a whole number, got str: '10'",)),
    Mistake("Recorder().add(None)", T, ("loss must be a number, got NoneType",)),
    Mistake("Recorder().watch(3)", T, ("step must be a function that takes one training step",)),
    Mistake("Recorder().watch(print, watch=8)", T, ("watch must be Watch, got int: 8",)),
    Mistake("watch_step(print, watch=8)", T, ("watch must be Watch, got int: 8",)),
    Mistake("Recorder().add(0.3, {'conv': x})", T, ("layers must be what layer_stats(outputs)",)),
    Mistake(
        "Recorder().add(0.3, learning_rate='0.1')", T, ("learning_rate must be a number", "'0.1'")
    ),
    Mistake("Recorder().record()", V, ("the recorder has no steps", "Call the watched", "add(")),
    # --- schedules and optimisers --------------------------------------------------------------
    Mistake("one_cycle(0, 0.1)", V, ("steps must be at least 1, got 0",)),
    Mistake("one_cycle(0.1, 100)", T, ("steps must be a whole number, got float: 0.1",)),
    Mistake("one_cycle('100', 0.1)", T, ("steps must be a whole number, got str: '100'",)),
    Mistake("one_cycle(100, '0.1')", T, ("lr_max must be a number, got str: '0.1'",)),
    Mistake("one_cycle(100, float('nan'))", V, ("lr_max must be positive and finite, got nan",)),
    Mistake("one_cycle(100, -0.1)", V, ("lr_max must be positive and finite, got -0.1",)),
    Mistake(
        "one_cycle(100, 0.1, pct_start=25)", V, ("pct_start must be a share from 0 to 1, got 25",)
    ),
    Mistake("one_cycle(100, 0.1, momentum=0.9)", V, ("momentum must be three numbers", "got 0.9")),
    Mistake(
        "one_cycle(100, 0.1, anneal='cosine')", V, ('anneal must be "cos" or "linear"', "'cosine'")
    ),
    Mistake("constant(None)", T, ("learning_rate must be a number, got NoneType: None",)),
    Mistake("constant(0.1, 1.0)", V, ("momentum must be at least 0 and below 1, got 1.0",)),
    Mistake("constant(0.1).table(2.5)", T, ("steps must be a whole number, got float: 2.5",)),
    Mistake("adam(b2=1.5)", V, ("b2 must be at least 0 and below 1, got 1.5",)),
    Mistake("adam(eps=float('nan'))", V, ("eps must be 0 or above and finite, got nan",)),
    Mistake("adam(weight_decay='0.1')", T, ("weight_decay must be a number, got str: '0.1'",)),
    Mistake("sgd(weight_decay=-1)", V, ("weight_decay must be 0 or above", "got -1")),
    Mistake(
        "adam(group_scale=[0.1, 1])", T, ("group_scale must be a function", "got list: [0.1, 1]")
    ),
    Mistake("group_rates('0.1', 3)", T, ("lr_max must be a number, got str: '0.1'",)),
    Mistake("group_rates([0.1, 0.2], 3)", V, ("one rate per layer group (3), got 2",)),
    # --- diagnosis, finder and sweeps ----------------------------------------------------------
    Mistake(
        "diagnose(Recorder())", T, ("record must be Record, got Recorder", "Recorder.record()")
    ),
    Mistake("diagnose(Path('runs/seed-0'))", T, ("record must be Record", "Record.load reads one")),
    Mistake(
        "diagnose(record, classes='10')", T, ("classes must be a whole number, got str: '10'",)
    ),
    Mistake("diagnose(record, classes=1)", V, ("classes must be at least 2", "got 1")),
    Mistake("diagnose(record, nonlinearity='Relu')", V, ("nonlinearity must be one of", "'Relu'")),
    Mistake(
        "lr_find(network, trainer, images, order)", T, ("trainer must be Trainer, got ConvNet",)
    ),
    Mistake(
        "lr_find(trainer, network, images, order, start=1, end=0.1)", V, ("start must be below",)
    ),
    Mistake("lr_find(trainer, network, images, 100)", V, ("order must have the shape", "got ()")),
    Mistake(
        "sweep(trainer, network, images, [order], [table], test=images)",
        T,
        ("models must be Sequence, got ConvNet", "one network per seed: [model]"),
    ),
    Mistake(
        "sweep(trainer, [network], images, [order], table, test=images)",
        T,
        ("tables must be Sequence, got dict", "one per setting"),
    ),
    Mistake(
        "sweep(trainer, [network], images, [order], [table], test=images, scalars={'wd': [0.1]})",
        V,
        ("scalars must be among eps, weight_decay", "got wd"),
    ),
    Mistake(
        "sweep(trainer, [network], images, [order], [table], test=images, "
        "scalars={'weight_decay': ['0.1']})",
        T,
        ("scalars['weight_decay'][0] must be a number, got str: '0.1'",),
    ),
    Mistake(
        "sweep(trainer, [network], images, [order], [table], "
        "test=Images(images.images, images.labels[:3]))",
        V,
        ("test must hold as many labels as images, got the shapes (3,) and (8, 4, 4, 1)",),
    ),
    # --- runs ------------------------------------------------------------------------------------
    Mistake("Plan(0, lambda epoch: order, table)", V, ("epochs must be at least 1, got 0",)),
    Mistake("Plan(1, order, table)", T, ("order must be a function from an epoch to the indices",)),
    Mistake(
        "fit(trainer, network, images, images, Plan(1, lambda epoch: order[0], table))",
        V,
        ("order must have the shape (steps, batch), got (4,)", "epoch_order"),
    ),
    Mistake(
        "fit(trainer, network, split, images, Plan(1, lambda epoch: order, table))",
        T,
        ("train must be Images, got Split", "Images.put(split) copies"),
    ),
    Mistake(
        "fit(trainer, network, images, images._replace(labels=images.labels + 9), "
        "Plan(1, lambda epoch: order, table))",
        V,
        ("labels must be below the model's 10 logits, got 16",),
    ),
    Mistake("fit(trainer, network, images, images, 3)", T, ("plan must be Plan, got int: 3",)),
    Mistake("Checkpoints('new', keep='2')", T, ("keep must be a whole number, got str: '2'",)),
    Mistake("Checkpoints('new', keep=0)", V, ("keep must be at least 1, got 0",)),
    Mistake("Keeping('new')", T, ("folder must be RunFolder, got str: 'new'",)),
    # --- pictures and receptive fields -----------------------------------------------------------
    Mistake("plots.color_dim(Recorder(), 0)", T, ("records must be Record, got Recorder",)),
    Mistake("plots.color_dim(record, 'conv9')", KeyError, ("got 'conv9'", "blocks.0.conv")),
    Mistake(
        "plots.color_dim(record, 1.5)", T, ("layer must be a name or an index, got float: 1.5",)
    ),
    Mistake(
        "plots.plot_layer_stats(record, 9)",
        IndexError,
        ("an index of the record's 2 layers", "got 9"),
    ),
    Mistake("plots.plot_loss([2.3, 2.2])", T, ("record must be Record, got list: [2.3, 2.2]",)),
    Mistake("plots.plot_sched(one_cycle(100, 0.1))", T, ("record must be Record, got Schedules",)),
    Mistake(
        "plots.plot_lr_find(record)", T, ("found must be LRFind, got Record", "lr_find returns")
    ),
    Mistake("plots.plot_sweep(record, {})", T, ("found must be Sweep, got Record",)),
    Mistake(
        "plots.mark(plots.new_figure(1, 1), diagnose(record))",
        T,
        ("findings must be a sequence of findings, got Diagnosis", "diagnose(record).findings"),
    ),
    Mistake(
        "receptive_fields(network)",
        T,
        ("images must be an array and the last argument", "got none"),
    ),
    Mistake(
        "receptive_fields(network, (1, 28, 28, 1))",
        T,
        ("images must be an array and the last argument", "got tuple"),
    ),
    Mistake(
        "receptive_fields(network, jnp.ones((28, 28, 1)))", V, ("four axes NHWC", "(28, 28, 1)")
    ),
    # --- data ------------------------------------------------------------------------------------
    Mistake(
        "load('nmist')", D, ("name_or_path must be one of mnist5k", "got 'nmist'; did you mean")
    ),
    Mistake("load(5)", D, ("name_or_path must be a path", "got int: 5", "pathlib.Path")),
    Mistake(
        "load('./absent')", D, ("absent is not a folder", "train/CLASS/*.png", "Give the path")
    ),
    Mistake(
        "load('mnist', data_dir='absent')", D, ("absent is not a folder", "leave data_dir out")
    ),
    Mistake(
        "load('mnist5k', data_dir='.')",
        D,
        ("data_dir must go with mnist", "got '.' with 'mnist5k'", "Leave it out"),
    ),
    Mistake("load('mnist5k', classes=3)", D, ("classes must be a sequence", "got int: 3", "(3,)")),
    Mistake("load('mnist5k', classes='37')", D, ("got the string '37'", "Write classes=('37',)")),
    Mistake("load('mnist5k', classes=(3, 70))", D, ("classes must be among 0, 1, 2", "got '70'")),
    Mistake(
        "Split(split.images / 255, split.labels)",
        D,
        ("images must be uint8", "got float64 of shape (8, 4, 4, 1)", "astype"),
    ),
    Mistake(
        "Split(split.images, np.eye(10)[split.labels])",
        D,
        ("labels must be int32", "or float32, got float64 of shape (8, 10)", "astype(np.float32)"),
    ),
    Mistake(
        "Split(split.images[..., 0], split.labels)",
        D,
        ("images must be uint8 with axes (N, H, W, C)", "got uint8 of shape (8, 4, 4)"),
    ),
    Mistake(
        "Split(split.images[:0], split.labels[:0])", D, ("images must have at least one entry",)
    ),
    Mistake(
        "Split(split.images, split.labels[:3])",
        D,
        ("labels must be one for each of the 8 images, got 3 labels",),
    ),
    Mistake(
        "convjax.data.epoch_order(8, 2.0, seed=0, epoch=0)",
        T,
        ("batch_size must be a whole number, got float: 2.0",),
    ),
    Mistake(
        "convjax.data.epoch_order(8, 64, seed=0, epoch=0)",
        D,
        ("batch_size must be at most the number of examples, 8, got 64",),
    ),
    # --- files -----------------------------------------------------------------------------------
    Mistake("weights.load_weights('absent.npz', network)", FileNotFoundError, ("absent.npz",)),
    Mistake(
        "weights.load_weights('text.txt', network)", W, ("text.txt is not a complete weights file",)
    ),
    Mistake(
        "weights.load_weights('folder', network)",
        W,
        ("folder is not a complete weights file", "it is a folder"),
    ),
    Mistake(
        "weights.load_weights('other.npz', network)", W, ("other.npz contains the weights of anot",)
    ),
    Mistake("weights.load_weights('text.txt', 'network')", T, ("model must be Module, got str",)),
    Mistake("weights.save_weights('out.npz', 'network')", T, ("model must be Module, got str",)),
    Mistake(
        "weights.save_weights('absent/model.npz', network)",
        OSError,
        ("'absent/model.npz'", "No such"),
    ),
    Mistake("Record.load('absent.npz')", FileNotFoundError, ("absent.npz",)),
    Mistake(
        "Record.load('text.txt')", RecordError, ("text.txt is not a complete record", "train again")
    ),
    Mistake("Record.load('other.npz')", RecordError, ("other.npz is not a", "format is missing")),
    Mistake("Record.load(None)", T, ("path must be a file's path, got NoneType: None",)),
    Mistake("runs.load_run('absent')", RunError, ("absent does not exist", "config.json")),
    Mistake("runs.load_run('text.txt')", RunError, ("text.txt",)),
]
