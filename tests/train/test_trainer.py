import jax
import numpy as np
import optax
import pytest
from flax import nnx

from convjax.data import Split
from convjax.nn._capture import capture
from convjax.nn.models import ConvNet, LinearNet
from convjax.optim.optimizers import adam, sgd
from convjax.optim.schedules import one_cycle
from convjax.stats.watch import Watch
from convjax.train.trainer import Trainer
from tests.helpers import assert_trees_close
from tests.trainings import (
    BATCH,
    CLASSES,
    EXAMPLES,
    MEAN,
    STD,
    STEPS,
    batches,
    conv_net,
    normalised,
    pixels,
    split,
    table,
)

pytestmark = pytest.mark.usefixtures("small_chunks")


def test_run_records_every_step_once(run):
    assert run.arrived == [4, 4, 1]
    assert run.record.steps == STEPS
    assert run.record.layers == (
        "blocks.0.conv",
        "blocks.0.norm",
        "blocks.1.conv",
        "blocks.1.norm",
    )
    # 5 examples with 3 maps of 2×2, then 3 of 1×1.
    assert run.record.sizes.tolist() == [60, 60, 15, 15]
    assert not run.record.nan().any()
    assert len(np.unique(run.record.loss)) == STEPS
    for name in ("learning_rate", "momentum"):
        np.testing.assert_array_equal(
            getattr(run.record, name), np.asarray(run.table[name], np.float32), strict=True
        )
        assert len(np.unique(run.table[name])) > STEPS // 2  # so that a wrong row would show


def test_run_statistics_equal_those_of_the_outputs(run):
    # The first step sees the initial model in training mode, on the first batch.
    model = conv_net()
    model.train()
    images = normalised(pixels()[run.order[0]]).astype(np.float32)
    _, outputs = capture(model, images)
    assert list(outputs) == list(run.record.layers)
    for layer, output in enumerate(outputs.values()):
        values = np.asarray(output, np.float64).ravel()
        # float32 outputs of order 1, computed in another program.
        assert run.record.mean[0, layer] == pytest.approx(values.mean(), abs=1e-5)
        assert run.record.std[0, layer] == pytest.approx(values.std(ddof=1), abs=1e-5)
        assert run.record.near_zero[0, layer] == pytest.approx((values <= 0.05).mean(), abs=1e-6)
        assert run.record.abs_near_zero[0, layer] == pytest.approx(
            (np.abs(values) <= 0.05).mean(), abs=1e-6
        )
        assert run.record.hist[0, layer].tolist() == np.histogram(values, 40, (0, 10))[0].tolist()
        assert run.record.under[0, layer] == (values < 0).sum() > 0


def test_run_updates_running_statistics(run):
    # One step from 0 and 1: a tenth of the batch's mean, 0.9 and a tenth of its unbiased variance.
    trainer = run.trainer
    state, record = trainer.run(
        trainer.start(conv_net()),
        run.data,
        run.order[:1],
        {name: column[:1] for name, column in run.table.items()},
    )
    model = conv_net()
    output = capture(model, normalised(pixels()[run.order[0]]).astype(np.float32))[1]
    channels = np.asarray(output["blocks.1.conv"], np.float64)
    channels = np.moveaxis(channels, model.layout.index("C"), 0).reshape(CLASSES, BATCH)
    norm = trainer.model(state).blocks[1].norm
    # float32 of order 1, computed in another program.
    np.testing.assert_allclose(norm.mean[...], 0.1 * channels.mean(1), atol=1e-6)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * channels.var(1, ddof=1), atol=1e-6)
    # The next steps continue from there.
    later = run.trainer.model(run.state).blocks[1].norm
    assert (np.abs(later.mean[...] - norm.mean[...]) > 1e-4).all()
    assert record.loss[0] == run.record.loss[0]


def test_run_record_has_the_sizes_of_the_layers(run):
    # Another batch size than the last, as in a run at its end.
    trainer = Trainer(LinearNet((32, CLASSES), rngs=nnx.Rngs(0)), sgd())
    state = trainer.start(LinearNet((32, CLASSES), rngs=nnx.Rngs(0)))
    for batch in (BATCH, 2, BATCH):
        state, record = trainer.run(state, run.data, batches(2)[:, :batch], table(2))
        assert record.sizes.tolist() == [batch * CLASSES]
        assert not record.nan().any()


def test_run_lowers_the_training_loss(run):
    before = run.trainer.evaluate(run.trainer.start(conv_net()), run.data)
    state, _ = run.trainer.run(
        run.trainer.start(conv_net()), run.data, batches(60), table(60, lr_max=0.1)
    )
    after = run.trainer.evaluate(state, run.data)
    # 23 images of 32 random pixels each are nearly memorised.
    assert after.loss < 0.7 * before.loss
    assert after.correct > 15


def test_run_records_the_selected_layers():
    model = LinearNet((32, 4, CLASSES), rngs=nnx.Rngs(0))
    trainer = Trainer(model, sgd(), watch=Watch(select=lambda name, module: name == "layers.1"))
    _, record = trainer.run(trainer.start(model), split(), batches(2), table(2))
    assert record.layers == ("layers.1",)
    assert record.sizes.tolist() == [BATCH * CLASSES]
    nothing = Trainer(model, sgd(), watch=Watch(select=lambda name, module: False))
    with pytest.raises(ValueError, match=r"select must match a layer of LinearNet.*layers\.0"):
        nothing.run(nothing.start(model), split(), batches(2), table(2))


def test_compile_seconds_grow_only_with_new_programs():
    model = LinearNet((32, CLASSES), rngs=nnx.Rngs(0))
    trainer, data = Trainer(model, sgd(), watch=None), split()
    before, state = trainer.compile_seconds, None
    assert before == 0
    for call in (
        lambda state: trainer.start(model),
        lambda state: trainer.run(state, data, batches(2), table(2))[0],
        lambda state: (state, trainer.evaluate(state, data))[0],
    ):
        state = call(state)
        first = trainer.compile_seconds
        state = call(state)
        assert before < first == trainer.compile_seconds
        before = first


def test_run_continues_from_the_returned_state(run):
    # The same program on the same numbers: bit for bit.
    state = run.trainer.start(conv_net())
    losses = []
    for rows in (slice(0, 2), slice(2, 7), slice(7, 9)):
        rates = {name: column[rows] for name, column in run.table.items()}
        state, record = run.trainer.run(state, run.data, run.order[rows], rates)
        losses.extend(record.loss)
    np.testing.assert_array_equal(losses, run.record.loss)
    assert_trees_close(state, run.state)


def test_start_does_not_change_the_model(run):
    after = nnx.state(run.model)
    assert_trees_close(jax.tree.map(np.array, after), run.before)
    assert not run.model.blocks[0].norm.use_running_average
    # Its arrays were not donated with the buffers of the training, which did change its copies.
    moved = run.trainer.model(run.state).blocks[0].conv.kernel[...] - after.blocks[0].conv.kernel
    assert np.abs(moved).min() > 0


def test_start_ignores_the_mode_of_the_model(run):
    model = conv_net()
    model.eval()
    trainer = Trainer(model, adam(), mean=MEAN, std=STD)
    state = trainer.start(model)
    _, record = trainer.run(state, run.data, run.order, run.table)
    # The batch statistics are used and not the running ones: the same training.
    np.testing.assert_allclose(record.loss, run.record.loss, rtol=1e-5)
    assert model.blocks[0].norm.use_running_average


def test_model_is_in_evaluation_mode(run):
    model = run.trainer.model(run.state)
    assert all(block.norm.use_running_average for block in model.blocks)
    images = normalised(pixels()).astype(np.float32)
    # An example's logits do not depend on the others.
    np.testing.assert_allclose(model(images)[:2], model(images[:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda rngs: ConvNet((2, 3, 3, CLASSES), norm="batch", rngs=rngs),
        lambda rngs: ConvNet((2, 3, CLASSES), rngs=rngs),
        lambda rngs: ConvNet((2, 3, CLASSES), norm="batch", stride=1, rngs=rngs),
        lambda rngs: ConvNet((2, 3, CLASSES), norm="batch", layout="NCHW", rngs=rngs),
        lambda rngs: LinearNet((32, CLASSES), rngs=rngs),
    ],
    ids=["layers", "norm", "stride", "layout", "class"],
)
def test_start_rejects_another_structure(run, make):
    with pytest.raises(ValueError, match="model must have the structure of the model that the"):
        run.trainer.start(make(nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (np.zeros((0, 5), int), r"order must have the shape \(steps, batch\), got \(0, 5\)"),
        (np.zeros((9, 0), int), r"order must have the shape \(steps, batch\), got \(9, 0\)"),
        (np.zeros(9, int), r"order must have the shape \(steps, batch\), got \(9,\)"),
        (np.full((9, 5), EXAMPLES), "order must hold indices from 0 to 22, got 23 to 23"),
        (batches() - EXAMPLES, "order must hold indices from 0 to 22, got -"),
    ],
)
def test_run_rejects_wrong_orders(run, order, message):
    state = run.trainer.start(conv_net())
    with pytest.raises(ValueError, match=message):
        run.trainer.run(state, run.data, order, run.table)


def test_run_rejects_wrong_tables(run):
    state = run.trainer.start(conv_net())
    message = r"table\['momentum'\] must have one number per step \(9\), got the shape \(8,\)"
    with pytest.raises(ValueError, match=message):
        run.trainer.run(
            state, run.data, run.order, run.table | {"momentum": run.table["momentum"][:8]}
        )
    message = r"table\['learning_rate'\] must have one number per step \(9\), got the shape \(\)"
    with pytest.raises(ValueError, match=message):
        run.trainer.run(state, run.data, run.order, run.table | {"learning_rate": 0.1})
    message = r"table must hold learning_rate and momentum, got learning_rate, lr"
    rates = run.table["learning_rate"]
    with pytest.raises(ValueError, match=message):
        run.trainer.run(state, run.data, run.order, {"lr": rates, "learning_rate": rates})


def test_run_rejects_labels_without_a_logit(run):
    model = LinearNet((32, CLASSES), rngs=nnx.Rngs(0))
    trainer = Trainer(model, sgd())
    data = run.data._replace(labels=run.data.labels + 1)
    for _ in range(2):  # the second time after a run that was in order
        with pytest.raises(ValueError, match="labels must be below the model's 3 logits, got 3"):
            trainer.run(trainer.start(model), data, run.order, run.table)
        trainer.run(trainer.start(model), run.data, run.order, run.table)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (
            0.1,
            0.0,
            r"mean must be finite, and std positive and finite in float32, got 0\.1 and 0\.0",
        ),
        (0.0, -1.0, r"got 0\.0 and -1\.0"),
        ((0.1, np.nan), 1.0, r"got \(0\.1, nan\) and 1\.0"),
        (0.0, np.nan, r"got 0\.0 and nan"),
    ],
)
def test_trainer_rejects_wrong_mean_and_std(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Trainer(LinearNet((2, 2), rngs=nnx.Rngs(0)), sgd(), mean=mean, std=std)


def test_run_rejects_a_donated_state(run):
    state = run.trainer.start(conv_net())
    run.trainer.run(state, run.data, run.order, run.table)
    for use in (
        lambda: run.trainer.run(state, run.data, run.order, run.table),
        lambda: run.trainer.evaluate(state, run.data),
        lambda: run.trainer.predict(state, pixels()),
    ):
        with pytest.raises(ValueError, match="state must not have been passed to an earlier run"):
            use()


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            lambda run: Trainer(run.model, optax.adam(1e-3)),
            "optimizer must be a function of the learning rate, got Grad.*from_optax",
        ),
        (
            lambda run: Trainer(run.model, adam),
            r"optimizer must be Optimizer, got the function adam. Call it: convjax.adam\(\)",
        ),
        (
            lambda run: run.trainer.evaluate(run.state, Split(pixels(), np.zeros(23, np.int32))),
            r"data must be Images, got Split.*Images.put\(split\)",
        ),
        (
            lambda run: run.trainer.run(run.state, pixels(), run.order, run.table),
            "data must be Images, got ndarray",
        ),
        (
            lambda run: run.trainer.run(run.state, run.data, run.order, one_cycle(9, 0.1)),
            r"table must be Mapping, got Schedules.*\.table\(steps\)",
        ),
        (lambda run: Watch(select=3), "select must be a function .*got 3"),
    ],
)
def test_arguments_of_another_kind(run, use, message):
    with pytest.raises(TypeError, match=message):
        use(run)


def test_repr_says_model_and_what_is_watched():
    model = conv_net()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    short = repr(Trainer(model, adam()))
    assert short.startswith(f"Trainer({type(model).__name__} with {parameters:,} parameters in ")
    assert short.endswith("arrays, watching activations, histogram every step)")
    everything = repr(Trainer(model, adam(), watch=Watch.everything(every=8)))
    assert everything.endswith("gradients, updates, evaluation every 8 steps)")
    assert len(everything) < 300
    unwatched = repr(Trainer(model, adam(), watch=None, devices=jax.devices()[:1]))
    assert unwatched.endswith(", watching nothing, 1 device)")


def test_repr_of_images_says_their_shape():
    assert repr(split()).startswith(f"Images(uint8[{EXAMPLES},")
    assert repr(split()).endswith(f"labels int32[{EXAMPLES}])")
