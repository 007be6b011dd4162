"""One of several processes that train together; run by `tests/parallel/test_distributed.py`.

Arguments: the folder for results, the id, how many there are, the port of process 0, the devices of
each process, and the task.
"""

import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from convjax.parallel import distributed, exchange
from convjax.train import scan_loop

# Seconds without a heartbeat after which a process counts as dead: the machine may be busy.
HEARTBEAT = 4.0

STEPS, BATCH, EXAMPLES = 9, 8, 23


def train(devices, *, streamed):
    """Trains in float64, if `streamed` on a stream as well, and returns all results by name."""
    # After the connection: JAX looks for devices when arrays are made.
    from convjax.data import Split, Stream
    from convjax.optim.optimizers import adam
    from convjax.optim.schedules import one_cycle
    from convjax.stats.watch import Watch
    from convjax.train.device_data import Images
    from convjax.train.trainer import Trainer
    from tests.trainings import MEAN, STD, Normed, pixels

    scan_loop.CHUNK_STEPS = 4
    rng = np.random.default_rng(0)
    split = Split(pixels(EXAMPLES), rng.integers(0, 3, EXAMPLES).astype(np.int32))
    order, table = rng.integers(0, EXAMPLES, (STEPS, BATCH)), one_cycle(STEPS, 0.05).table(STEPS)
    trainer = Trainer(Normed(), adam(), mean=MEAN, std=STD, watch=Watch(every=2), devices=devices)
    found = {}
    data = {"": Images.put(split, devices), "streamed ": Stream(split.images, split.labels)}
    for kind, images in list(data.items())[: 1 + streamed]:
        state, record = trainer.run(trainer.start(Normed()), images, order, table)
        scores = trainer.evaluate(state, images, batch_size=7)
        found[f"{kind}loss"] = record.loss
        for name in ("mean", "std", "hist", "under", "over", "active", "near_zero"):
            found[f"{kind}{name}"] = getattr(record, name)
        leaves = jax.tree_util.tree_leaves_with_path(state)
        found |= {f"{kind}state{jax.tree_util.keystr(path)}": np.array(a) for path, a in leaves}
        found[f"{kind}scores"] = np.array(scores[:3])
    found["logits"] = np.array(trainer.predict(state, split.images))
    model = trainer.model(state)
    found["model"] = np.array(model(np.full((2, 4, 4, 2), 0.5)))
    return found


def agree(process):
    """Checks the exchange between processes, each with its own values."""
    flags = [distributed.any_process(flag) for flag in (process == 1, False, True, False)]
    assert flags == [True, False, True, False]
    # Bits that a sum would lose, and an array without any.
    tree = {"a": np.array([-0.0, np.nan, 1]), "b": [np.arange(3, dtype=np.int8), np.zeros((0, 2))]}
    own = jax.tree.map(lambda a: a if process == 0 else np.full_like(a, 7), tree)
    received = distributed.broadcast({**own, "c": 5 if process == 0 else 6})
    for actual, wanted in zip(
        jax.tree.leaves(received), jax.tree.leaves({**tree, "c": 5}), strict=True
    ):
        assert (actual.dtype, actual.shape) == (np.asarray(wanted).dtype, np.shape(wanted))
        assert actual.tobytes() == np.asarray(wanted).tobytes()
    with pytest.raises(ValueError, match="structure, shapes and dtypes of the tree must be"):
        distributed.broadcast(np.zeros(2 if process == 0 else 3))


def compare(process):
    """Passes other values in each process; returns the message of each case by its name."""
    from convjax.data import Split, Stream
    from convjax.optim.optimizers import adam
    from convjax.stats.watch import Watch
    from convjax.train import Cutout, Plan, fit
    from convjax.train.device_data import Images
    from convjax.train.losses import squared_error
    from convjax.train.trainer import Trainer
    from tests.trainings import Normed, pixels, table

    devices, other = jax.devices(), process == 1
    model, labels = Normed(), np.arange(8, dtype=np.int32) % 3
    moved = Normed()
    nnx.update(moved, jax.tree.map(lambda a: a + process, nnx.state(moved, nnx.Param)))

    def trainer(**settings):
        return Trainer(Normed(), adam(b2=settings.pop("b2", 0.99)), devices=devices, **settings)

    def changed(name, value, default):
        return trainer(watch=None, **{name: value if other else default}).start(model)

    def split(seed=0):
        return Split(pixels(8, seed), labels)

    plain = trainer(watch=None)
    state, data = plain.start(model), Images.put(split(), devices)
    order = np.arange(6).reshape(3, 2)
    host = jax.tree.map(np.array, state)

    def run(**given):
        values = {"trainer": plain, "state": state, "data": data, "order": order, "table": table(3)}
        values |= given if other else {}
        values.pop("trainer").run(*values.values())

    def plan(epochs, piece):
        made = Plan(epochs, lambda epoch: order, table(3 * epochs), piece=piece)
        fit(plain, model, data, data, made)

    def x64():
        with jax.enable_x64(not other):
            plain.start(model)

    cases = {
        "agree": lambda: distributed.agree({"same": 1, "epochs": 1 + process, "name": process}),
        "broadcast": lambda: distributed.broadcast(np.zeros(2 + process)),
        "mean": lambda: changed("mean", 0.5, 0.0),
        "loss": lambda: trainer(watch=None, **{"loss": squared_error} if other else {}).start(
            model
        ),
        "watch": lambda: trainer(watch=Watch() if other else None).start(model),
        "augment": lambda: changed("augment", [Cutout(2)], None),
        "model": lambda: plain.start(moved),
        "x64": x64,
        "images": lambda: Images.put(split(process), devices),
        "stream": lambda: run(data=Stream(split(1).images, labels)),
        "order": lambda: run(order=order + 1),
        "table": lambda: run(table=table(3, 0.1)),
        "state": lambda: run(state=jax.tree.map(lambda a: a + 1, host)),
        "batch_size": lambda: plain.evaluate(state, data, batch_size=2 if other else 4),
        "piece": lambda: plan(1, 2 if other else 512),
        "epochs": lambda: plan(3 if other else 1, 512),
        "program": lambda: run(trainer=trainer(watch=None, b2=0.9)),
    }
    found = {}
    for name, case in cases.items():
        with pytest.raises(distributed.ProcessError) as error:
            case()
        found[name] = str(error.value)
    return found


def hang(process, ready):
    """Trains on several chunks; process 1 stays in the callback of the first."""
    from convjax.data import Split
    from convjax.optim.optimizers import sgd
    from convjax.train.device_data import Images
    from convjax.train.trainer import Trainer
    from tests.trainings import Normed, pixels, table

    scan_loop.CHUNK_STEPS = 2
    devices = jax.devices()
    trainer = Trainer(Normed(), sgd(), watch=None, devices=devices)
    data = Images.put(Split(pixels(8), np.arange(8, dtype=np.int32) % 3), devices)
    order = np.tile(np.arange(8).reshape(1, 8), (12, 1))

    def stay(steps):
        ready.touch()
        exchange.current().monitor.wait = 2.0
        while process == 1:
            time.sleep(1)

    trainer.run(trainer.start(Normed()), data, order, table(12), on_steps=stay)


def main() -> None:
    folder = Path(sys.argv[1])
    process, processes, port, devices = map(int, sys.argv[2:6])
    task = sys.argv[6]
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_enable_x64", True)
    distributed.initialize(
        f"127.0.0.1:{port}",
        processes,
        process,
        timeout=60,
        heartbeat=HEARTBEAT,
        wait=2 if task == "hang" else 60,
    )
    with distributed.monitor_peers("Resume with --resume."):
        assert jax.device_count() == processes * devices
        assert distributed.is_primary() == (process == 0)
        if task.startswith("train"):
            found = train(jax.devices(), streamed="stream" in task)
            agree(process)
            np.savez(folder / f"{process}.npz", **found)
        elif task == "compare":
            lines = [f"{name}\t{text}\n" for name, text in compare(process).items()]
            (folder / f"{process}.txt").write_text("".join(lines))
        elif task == "hang":
            hang(process, folder / f"{process}.ready")
        else:
            distributed.broadcast(np.zeros(3))  # compiles
            (folder / f"{process}.ready").touch()
            if task == "error" and process == 1:
                raise ValueError("an error in one process.")
            while True:  # together, so that the others are in a collective operation when one dies
                distributed.broadcast(np.zeros(3))
                time.sleep(0.01)


if __name__ == "__main__":
    main()
