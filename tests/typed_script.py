"""A user's script with types of its own, which test_typing.py checks: what the guides use."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import optax
from flax import nnx
from jax import Array

import convjax
from convjax.data import Dataset, Split
from convjax.diagnosis import Diagnosis
from convjax.learner import Recorded
from convjax.nn import BatchNorm, Conv, Linear
from convjax.runs import Run, load_run
from convjax.stats import LayerStats, Record
from convjax.train import FitResult, MetricWriter


class Net(nnx.Module):
    """A network of one's own, of layers of convjax."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = Conv(1, 8, 3, stride=2, rngs=rngs)
        self.norm = BatchNorm(8)
        self.head = Linear(8 * 13 * 13, 10, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = nnx.relu(self.norm(self.conv(x)))
        return self.head(x.reshape(len(x), -1))


model = convjax.digits_net(norm="batch", rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
recorder = convjax.Recorder()


@recorder.watch
def train_step(
    model: convjax.ConvNet,
    optimizer: nnx.Optimizer[convjax.ConvNet],
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int32],
) -> Array:
    """One step of a loop of one's own."""

    def loss_fn(model: convjax.ConvNet) -> Array:
        losses: Array = optax.softmax_cross_entropy_with_integer_labels(model(x), y)
        return losses.mean()

    loss: Array
    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


@recorder.watch(watch=convjax.Watch.everything(every=8))
def rarely(x: Array) -> Array:
    """A step that is watched at every eighth call."""
    return x


@convjax.watch_step
def scanned(x: Array) -> Array:
    """A step inside a larger program."""
    return x


dataset: Dataset = convjax.data.load("mnist5k")
train: Split = dataset.train
images: npt.NDArray[np.uint8] = train.images
loss: Array = train_step(model, optimizer, (images / 255).astype(np.float32), train.labels)
rare: Array = rarely(loss)
again, found_in_step = scanned(rare)
order = convjax.data.epoch_order(4000, 100, seed=0, epoch=0)
record: Record = recorder.record()
diagnosis: Diagnosis = convjax.diagnose(record)
for finding in diagnosis.findings:
    print(finding)
newest: dict[str, float] = convjax.scalars(record)
frame = record.to_frame()
print(frame.columns, frame.shape)


class Printed:
    """A writer of one's own."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Prints the names."""
        print(step, list(scalars))


writer: MetricWriter = Printed()
writer = convjax.runs.EventWriter("events")
mean, std = convjax.data.normalization(train.images)
trainer = convjax.Trainer(
    model, convjax.adam(), mean=mean, std=std, watch=convjax.Watch.everything()
)
plan = convjax.Plan(
    epochs=1,
    order=lambda epoch: convjax.data.epoch_order(4000, 500, seed=0, epoch=epoch),
    table=convjax.one_cycle(8, 0.06).table(8),
)
on_device = convjax.Images.put(train), convjax.Images.put(dataset.test)
result: FitResult = convjax.fit(trainer, model, *on_device, plan, writer=writer)
state, piece = trainer.run(
    trainer.start(model), on_device[0], order, convjax.constant(0.1).table(len(order))
)
accuracy: float = trainer.evaluate(state, on_device[1]).accuracy
answers = trainer.predict(state, dataset.test.images[:2])
trained: nnx.Module = trainer.model(state)

learn = convjax.Learner(dataset, Net(nnx.Rngs(0)), batch_size=500, optimizer=optax.sgd)
learn.fit_one_cycle(1, 0.06)
kept: Recorded = learn.recorder
found: Diagnosis = learn.diagnose()
learn.lr_find()
print(learn.predict(dataset.test.images[0]))

logits, outputs = convjax.capture(model, images[:2])
stats: LayerStats = convjax.layer_stats(outputs)
field = convjax.receptive_fields(model, (1, 28, 28, 1))
print(convjax.summary(model, (1, 28, 28, 1)), field, answers, trained, logits)
maps: Array = convjax.conv2d(np.zeros((1, 5, 5, 1)), np.zeros((3, 3, 1, 2)), padding="same")
figure = convjax.plots.color_dim(record, "blocks.0.conv")
figure.savefig("color-dim.png")
convjax.plots.plot_loss(record).savefig("loss.png")
block = convjax.sequential(convjax.conv(1, 4), convjax.nn.Flatten())
run: Run = load_run("my-run")
print(run.to_frame().columns, run.record.loss)
convjax.report.write_report(record, "report.html")
