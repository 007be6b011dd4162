"""Child processes of the benchmark, and the parent's hold on them.

    python -m experiments.bench_worker jax|torch DATA.npz

A child reads one JSON request per line from its standard input and answers each with one JSON line.
JAX and PyTorch live in processes of their own, so that neither's threads meet the other's, and the
child for PyTorch never imports JAX, so that its memory and its cold start are its own.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

LR_MAX = 0.06
MATRIX = 2048  # edge of the square matrices whose product gives the machine's rate
ROOT = Path(__file__).resolve().parents[1]


class BenchError(ValueError):
    """A child died; the message holds its last words."""


class RefusalError(BenchError):
    """A child lives and reports that it cannot do what it was asked."""


@dataclass(frozen=True)
class Case:
    """One way to train an epoch.

    Attributes:
      program: "convjax", "torch" (eager), "torch-compile" or "torch-graph" (CUDA graph).
      layout: NHWC, NCHW or CHWN; for PyTorch NHWC is channels_last.
      norm: None or "batch".
      batch_size: images per step.
      stats: "none", "scalars" (no histogram) or "all".
      every: statistics at every `every`-th step.
      dtype: of parameters and activations.
    """

    program: str
    layout: str
    norm: str | None = None
    batch_size: int = 64
    stats: str = "none"
    every: int = 1
    dtype: str = "float32"

    @property
    def engine(self) -> str:
        """Which child runs it."""
        return "jax" if self.program == "convjax" else "torch"


class Program(Protocol):
    """What a child makes of a case."""

    @property
    def compile_seconds(self) -> float | None:
        """Seconds of compiling so far; None where nothing is compiled."""

    def reset(self) -> None:
        """Goes back to the initial parameters."""

    def epoch(self) -> Any:
        """Trains one epoch and returns when the device is done; the result tells its losses."""


class JaxProgram:
    """An epoch of `convjax.Trainer`."""

    def __init__(self, case: Case, data: Mapping[str, Any]):
        from flax import nnx

        from convjax import Images, Trainer, Watch, adam, digits_net
        from convjax.data import Split

        watch = None
        if case.stats != "none":
            watch = Watch(every=case.every, histogram=case.stats == "all")
        images = data["images"]
        self.model = digits_net(
            in_features=images.shape[-1],
            classes=int(data["classes"]),
            norm=case.norm,
            layout=case.layout,
            param_dtype=np.dtype(case.dtype),  # jax has registered bfloat16 with NumPy
            rngs=nnx.Rngs(0),
        )
        self.trainer = Trainer(self.model, adam(), mean=data["mean"], std=data["std"], watch=watch)
        self.images = Images.put(Split(images, data["labels"]))
        self.order = data[f"order_{case.batch_size}"]
        self.table = {
            name: data[f"{name}_{case.batch_size}"] for name in ("learning_rate", "momentum")
        }

    @property
    def compile_seconds(self) -> float | None:
        """Seconds of tracing and compiling so far."""
        return self.trainer.compile_seconds

    def reset(self) -> None:
        """Goes back to the initial parameters."""
        import jax

        self.state = jax.block_until_ready(self.trainer.start(self.model))

    def epoch(self) -> Any:
        """Trains one epoch and returns the record."""
        import jax

        self.state, record = self.trainer.run(self.state, self.images, self.order, self.table)
        jax.block_until_ready(self.state)
        return record


def jax_product() -> Callable[[int], Any]:
    """Returns a function that multiplies two float32 matrices some times over and waits."""
    import jax
    import jax.numpy as jnp

    a = jax.random.normal(jax.random.key(0), (MATRIX, MATRIX), jnp.float32)
    product = jax.jit(jnp.dot)
    return lambda times: jax.block_until_ready([product(a, a) for _ in range(times)][-1])


def jax_about() -> dict[str, Any]:
    """Returns the environment, and the layout that "auto" means here."""
    import jax

    from convjax.layout import resolve_layout
    from convjax.runs import environment

    return {
        "environment": environment(),
        "device": str(jax.devices()[0].device_kind),
        "accelerator": jax.default_backend() != "cpu",
        "layout": resolve_layout("auto"),
    }


def jax_peak() -> int | None:
    """Returns the device's peak in bytes; None where the backend does not count, as on CPU."""
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def setup(
    path: str, data: str, data_dir: str | None, batch_sizes: Sequence[int], quick: bool
) -> dict[str, Any]:
    """Writes what every child trains on to `path`; both engines read it from there.

    Returns:
      examples, the batch sizes that they suffice for, images per epoch of each, and
      floating-point operations per image.
    """
    from flax import nnx

    from convjax import digits_net, one_cycle, summary
    from convjax.data import epoch_order, load, normalization

    dataset = load(data, data_dir=data_dir)
    images, labels = dataset.train.images, dataset.train.labels
    classes, image = len(dataset.class_names), images.shape[1:]
    mean, std = normalization(images)
    arrays: dict[str, Any] = {"images": images, "labels": labels, "mean": mean, "std": std}
    per_epoch = {}
    for size in (size for size in batch_sizes if size <= len(labels)):
        order = epoch_order(len(labels), size, seed=0, epoch=0)[: 3 if quick else None]
        table = one_cycle(len(order), LR_MAX).table(len(order))
        arrays[f"order_{size}"], per_epoch[size] = order, order.size
        arrays |= {f"{name}_{size}": np.asarray(column) for name, column in table.items()}
    np.savez(path, classes=np.asarray(classes), **arrays)
    network = nnx.eval_shape(
        lambda: digits_net(in_features=image[-1], classes=classes, rngs=nnx.Rngs(0), layout="NHWC")
    )
    counted = [row.multiplications or 0 for row in summary(network, (1, *image)).rows]
    # Forward, and backward to weights and input; nobody asks for the gradient of the images.
    flops = 2 * (3 * sum(counted) - counted[0])
    return {
        "examples": len(labels),
        "batch_sizes": list(per_epoch),
        "images_per_epoch": per_epoch,
        "flops_per_image": flops,
    }


def host_peak() -> int:
    """Returns the process's peak resident memory in bytes.

    Linux keeps in ru_maxrss what the parent had before exec, hence its own count first.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


class Child:
    """The child's side: answers requests about the programs that it has prepared."""

    def __init__(self, engine: str, path: str):
        self.path = path
        self.programs: dict[Case, Program] = {}
        self.make: Callable[[Case, Mapping[str, Any]], Program] = JaxProgram
        self.about, self.product, self.device_peak = jax_about, jax_product, jax_peak
        if engine == "torch":
            from experiments import torch_loops

            self.make = torch_loops.TorchProgram
            self.about, self.product = torch_loops.about, torch_loops.product
            self.device_peak = torch_loops.device_peak

    def answer(self, do: str, case: dict[str, Any] | None = None, **others: Any) -> Any:
        """Answers one request: setup, about, rate, prepare, run or peak."""
        if do == "setup":
            return setup(self.path, **others)
        if do == "about":
            return self.about()
        if do == "peak":
            return {"host_bytes": host_peak(), "device_bytes": self.device_peak()}
        if do == "rate":
            return self._rate(**others)
        chosen = Case(**(case or {}))
        if do == "prepare" and chosen not in self.programs:
            with np.load(self.path) as data:
                program = self.make(chosen, data)
            self.programs[chosen] = program
        program = self.programs[chosen]
        program.reset()
        began = time.perf_counter()
        program.epoch()
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "compile_seconds": program.compile_seconds}

    def _rate(self, repeats: int) -> dict[str, list[float]]:
        """Returns floating-point operations per second of each repeat of a matrix product."""
        product = self.product()
        times = 20 if self.about()["accelerator"] else 1  # so that a launch does not count
        product(2)
        rates = []
        for _ in range(repeats):
            began = time.perf_counter()
            product(times)
            rates.append(2 * MATRIX**3 * times / (time.perf_counter() - began))
        return {"flops": rates}


class Worker:
    """The parent's side of a child, to be used in a `with` statement.

    Args:
      engine: "jax" or "torch".
      path: of the data, see `setup`.
      settings: environment variables of the child beside the parent's.
      command: another program, for tests.
    """

    def __init__(
        self,
        engine: str,
        path: Path,
        *,
        settings: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
    ):
        self.engine = engine
        # A file, because nobody empties a pipe while the parent waits for an answer.
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in __exit__
        found = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), found.get("PYTHONPATH")]))
        found["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # a GPU's memory is for both engines
        self._process = subprocess.Popen(
            command or [sys.executable, "-m", "experiments.bench_worker", engine, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env={**found, **(settings or {})},
        )

    def ask(self, do: str, case: Case | None = None, **others: Any) -> dict[str, Any]:
        """Sends a request and waits for the answer.

        Raises:
          RefusalError: if the child reports a mistake.
          BenchError: if it dies.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"do": do, **others} | ({} if case is None else {"case": asdict(case)})
        line = ""
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._stderr.seek(0)
            words = "".join(self._stderr.readlines()[-15:]).strip() or "(it said nothing)"
            raise BenchError(
                f"the {self.engine} worker died with exit status {status} when asked to {do}"
                f"{'' if case is None else f' {case}'}; its last words:\n{words}"
            )
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RefusalError(reply["error"])
        return reply

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()  # the end of its input is the child's end
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()


def main(engine: str, path: str) -> None:
    """Answers requests until there are no more."""
    # Whatever a library prints goes to standard error; the answers have the pipe for themselves.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    child = Child(engine, path)
    for line in sys.stdin:
        try:
            reply = child.answer(**json.loads(line))
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
