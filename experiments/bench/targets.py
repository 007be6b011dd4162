"""`python -m experiments bench-targets`: the training step, compiled for chips that are not there.

XLA compiles for a GPU or TPU without one. Its text says how many kernels and library calls a step
launches on a GPU, and on a TPU it has the compiler's own estimate of cycles. These are counts of
what was compiled, not run: they are exact, and say nothing of time on a GPU. Without a device
there is no autotuning, so that cuDNN's algorithms are not chosen.

The program is a chunk of 128 steps of the chapter's network on 60,000 resident images, batch 512,
layout NHWC. The extra `targets` installs the compilers.
"""

import importlib.util
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from convjax import Images, Trainer, Watch, adam, digits_net
from convjax.runs.environment import environment
from experiments.terminal.command import measure_to_file
from experiments.terminal.options import OutFile, Quick
from experiments.terminal.tables import TextTable

# The chip of a target as JAX names it: the platform of the program, and the module of the compiler.
TARGETS = {
    "h100": ("cuda", "jax_cuda13_plugin"),
    "v5e": ("tpu", "libtpu"),
    "v6e": ("tpu", "libtpu"),
}

IMAGES, BATCH, STEPS = 60_000, 512, 128
EVERY = 8  # steps from one with statistics to the next, in the third kind of program

# NVIDIA H100 SXM: https://resources.nvidia.com/en-us-tensor-core and the CUDA programming guide,
# compute capability 9.0. The fields are those of XLA's GpuTargetConfigProto.
H100 = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 49_152,
    "shared_memory_per_core": 233_472,
    "shared_memory_per_block_optin": 232_448,
    "threads_per_core_limit": 2048,
    "core_count": 132,
    "fpus_per_core": 128,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 65_535,
    "block_dim_limit_z": 65_535,
    "registers_per_core_limit": 65_536,
    "registers_per_block_limit": 65_536,
    "memory_bandwidth": 3_352_320_000_000,
    "l2_cache_size": 52_428_800,
    "clock_rate_ghz": 1.98,
    "device_memory_size": 84_942_979_072,
}

# Instructions that launch nothing.
_FREE = ("parameter", "tuple", "get-tuple-element", "constant", "bitcast", "after-all", "while")


@dataclass(frozen=True)
class CompiledStep:
    """What a compiler made of one step.

    Attributes:
      target: of TARGETS.
      norm: of the network, "none" or "batch".
      statistics: "none", "all", or "all, every 8th".
      launches: of a step on a GPU: kernels, copies and library calls.
      library_calls: of them, those of cuDNN and cuBLAS.
      copies: of them.
      cycles: of a step, by the compiler's estimate; None on a GPU.
      known_length: whether the compiler knows the number of rounds of the loop; None on a TPU,
        whose text does not say it.
      host_transfers: instructions in the chunk that send to the host or wait for it.
      temporary_bytes: memory besides arguments and results.
      compile_seconds: of this computer.
    """

    target: str
    norm: str
    statistics: str
    launches: float | None
    library_calls: float | None
    copies: float | None
    cycles: float | None
    known_length: bool | None
    host_transfers: int
    temporary_bytes: int
    compile_seconds: float


def sharding_of(target: str) -> NamedSharding:
    """Returns the placement of an array on one chip of a target.

    Raises:
      ImportError: if its compiler is not installed.
    """
    from jax.experimental import topologies

    platform, module = TARGETS[target]
    if importlib.util.find_spec(module) is None:
        raise ImportError(
            f'{module} must be installed to compile for {target}: pip install "convjax[targets]"'
        )
    if platform == "cuda":
        chip = "\n".join(f"  {name}: {value}" for name, value in H100.items())
        capability = "cuda_compute_capability { major: 9 minor: 0 }"
        text = (
            f"gpu_device_info {{\n{chip}\n  {capability}\n}}\n"
            'platform_name: "CUDA"\ndnn_version_info { major: 9 minor: 10 }\n'
            'device_description_str: "NVIDIA H100 80GB HBM3"\n'
        )
        topology = topologies.get_topology_desc(
            platform="cuda", topology_name=target, topology="1x1x1", target_config=text
        )
    else:
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{target}:2x2", chips_per_host_bounds=(2, 2, 1)
        )
    mesh = Mesh(np.array(topology.devices[:1]), ("chip",))
    return NamedSharding(mesh, PartitionSpec())


def compiled_step(target: str, norm: str, statistics: str) -> CompiledStep:
    """Compiles a chunk of steps for a target.

    Args:
      target, norm, statistics: as for `CompiledStep`.

    Raises:
      ImportError: if the compiler of the target is not installed.
    """
    sharding = sharding_of(target)
    everything = Watch.everything()
    watch = {"none": None, "all": everything, "all, every 8th": replace(everything, every=EVERY)}
    model = digits_net(norm=None if norm == "none" else norm, layout="NHWC", rngs=nnx.Rngs(0))
    trainer = Trainer(model, adam(), mean=0.1307, std=0.3081, watch=watch[statistics])

    def array(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    arguments = (
        jax.tree.map(lambda x: array(x.shape, x.dtype), trainer.start(model)),
        Images(array((IMAGES, 28, 28, 1), jnp.uint8), array((IMAGES,), jnp.int32)),  # type: ignore[arg-type]
        array((STEPS, BATCH), jnp.int32),
        {name: array((STEPS,), jnp.float32) for name in ("learning_rate", "momentum")},
        array((), jnp.int32),
    )
    began = perf_counter()
    traced = jax.jit(trainer.chunks.take, donate_argnums=0).trace(*arguments)
    program = traced.lower(lowering_platforms=(TARGETS[target][0],)).compile()
    seconds = perf_counter() - began
    text, on_gpu = str(program.as_text()), target == "h100"
    kinds = launches(text)

    def launched(*names: str) -> float | None:
        number = {body: of.total() for body, of in kinds.items()}
        if names:
            number = {body: sum(of[name] for name in names) for body, of in kinds.items()}
        return per_step(text, number) if on_gpu else None

    return CompiledStep(
        target,
        norm,
        statistics,
        launched(),
        launched("custom-call"),
        launched("copy"),
        None if on_gpu else per_step(text, cycles(text)),
        all_lengths_known(text) if on_gpu else None,
        len(re.findall(r" (?:infeed|outfeed|send|recv)\(", text)),
        int(program.memory_analysis().temp_size_in_bytes),
        seconds,
    )


def computations(text: str) -> dict[str, list[str]]:
    """Returns the lines of each computation of a compiled program, by its name."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        begin = re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line)
        if begin:
            name = begin.group(1)
            found[name] = []
        elif name and line.startswith(" "):
            found[name].append(line)
    return found


def loops(text: str) -> Iterator[tuple[str, str]]:
    """Yields the name of the body of each loop, and the line of the loop."""
    for line in text.splitlines():
        if found := re.search(r" while\(.*body=%?([\w.\-]+)", line):
            yield found.group(1), line


def launches(text: str) -> dict[str, Counter[str]]:
    """Returns how often each kind of instruction that is a launch stands in each computation.

    Examples:
      >>> text = '''
      ... %body (p: (s32[])) -> (s32[]) {
      ...   %p = (s32[]) parameter(0)
      ...   %add.1 = s32[] fusion(%p), kind=kLoop, calls=%adding
      ...   ROOT %t = (s32[]) tuple(%add.1)
      ... }
      ... ENTRY %main (a: s32[]) -> (s32[]) {
      ...   %w = (s32[]) while(%a), condition=%c, body=%body
      ... }
      ... '''
      >>> launches(text)["body"]
      Counter({'fusion': 1})
    """
    found: dict[str, Counter[str]] = {}
    for name, lines in computations(text).items():
        kinds = (re.match(r"\s+(?:ROOT )?%?[\w.\-]+ = .*? ([\w\-]+)\(", line) for line in lines)
        found[name] = Counter(kind.group(1) for kind in kinds if kind is not None)
        for kind in _FREE:
            del found[name][kind]
    return found


def all_lengths_known(text: str) -> bool:
    """Returns whether the compiler knows how often each loop runs."""
    return all("known_trip_count" in line for _, line in loops(text))


def cycles(text: str) -> dict[str, float]:
    """Returns the cycles of each computation by the estimate of the compiler for TPUs."""
    estimate = r'"estimated_cycles":"(\d+)"'
    return {
        name: float(sum(int(n) for line in lines for n in re.findall(estimate, line)))
        for name, lines in computations(text).items()
    }


def per_step(text: str, of: Mapping[str, float]) -> float:
    """Returns the mean over the steps of a chunk of what is known of each computation.

    A loop over the unwatched steps within one over groups of steps runs for all but one step of
    each group.
    """
    lines, bodies = computations(text), [body for body, _ in loops(text)]
    inner = {body for around in bodies for body, _ in loops("\n".join(lines[around]))}
    outer = sum(of[body] for body in bodies if body not in inner)
    if not inner:
        return outer
    return (outer + (EVERY - 1) * sum(of[body] for body in inner)) / EVERY


Target = Annotated[
    list[str] | None,
    typer.Option(help="h100, v5e or v6e; several times for several. All by default."),
]


def run_bench_targets(
    target: Target = None, quick: Quick = False, out: OutFile = Path("targets.json")
) -> None:
    """Compiles the training step for chips that are not there, and writes targets.json.

    A quick run leaves out batch norm and every 8th step.
    """

    def measure(shown: Any) -> dict[str, Any]:
        chosen = target or list(TARGETS)
        for name in chosen:
            if name not in TARGETS:
                raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {name!r}.")
            sharding_of(name)  # raises where a compiler is missing, before the first is used
        rows = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a TPU that is not there
            for name in chosen:
                for norm in ("none",) if quick else ("none", "batch"):
                    for kind in ("none", "all") if quick else ("none", "all", "all, every 8th"):
                        rows.append(asdict(compiled_step(name, norm, kind)))
                        shown.print(f"{name}, norm {norm}, statistics {kind}")
        return {"environment": environment(), "compiled_steps": rows}

    measure_to_file(out, measure, lambda report: [markdown_targets(report["compiled_steps"])])


def markdown_targets(rows: list[dict[str, Any]]) -> str:
    """Returns the table of compiled steps, in Markdown."""
    titles = (
        *("target", "norm", "statistics", "launches per step", "over none", "library calls"),
        *("copies", "cycles per step", "over none", "lengths known", "compile seconds"),
    )
    cells = []
    plain = {(r["target"], r["norm"]): r for r in rows if r["statistics"] == "none"}

    def number(value: Any) -> str:
        return "-" if value is None else f"{value:,.0f}"

    def over(row: dict[str, Any], name: str) -> str:
        base = plain.get((row["target"], row["norm"]))
        if row["statistics"] == "none" or base is None or row[name] is None:
            return "-"
        return f"{row[name] / base[name]:.2f}"

    for row in rows:
        known = {None: "-", True: "yes", False: "no"}[row["known_length"]]
        cells.append(
            (
                *(row["target"], row["norm"], row["statistics"], number(row["launches"])),
                *(over(row, "launches"), number(row["library_calls"]), number(row["copies"])),
                *(number(row["cycles"]), over(row, "cycles"), known),
                f"{row['compile_seconds']:.0f}",
            )
        )
    return TextTable(titles, cells).markdown()
