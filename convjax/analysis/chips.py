"""Chips that XLA compiles for without having one, with their published figures."""

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Limits of all NVIDIA GPUs of compute capability 8.0 and 9.0, in the fields of XLA's
# GpuTargetConfigProto; CUDA C++ Programming Guide, "Compute Capabilities".
_NVIDIA = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "threads_per_core_limit": 2048,
    "shared_memory_per_block": 49_152,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 65_535,
    "block_dim_limit_z": 65_535,
    "registers_per_core_limit": 65_536,
    "registers_per_block_limit": 65_536,
}
_HOPPER = _NVIDIA | {
    "shared_memory_per_core": 233_472,
    "shared_memory_per_block_optin": 232_448,
    "core_count": 132,
    "fpus_per_core": 128,
    "l2_cache_size": 52_428_800,
    "clock_rate_ghz": 1.98,
}


@dataclass(frozen=True)
class Chip:
    """A chip as a target of the compiler.

    Attributes:
      platform: of a program for it, "cuda" or "tpu".
      kind: what `jax.Device.device_kind` of such a chip contains.
      capability: major version of NVIDIA's compute capability; 0 for a TPU.
      limits: of a GPU, for the compiler.
      bandwidth: of its memory, bytes per second.
      products: by dtype, floating-point operations per second of its matrix units, dense. float32
        stands for what XLA does by default: TF32 on a GPU, bfloat16 on a TPU.
      clock: of a TPU's core, cycles per second; None for a GPU, whose text has no cycles.
    """

    platform: str
    kind: str
    bandwidth: int | float
    products: Mapping[str, int | float]
    capability: int = 0
    limits: Mapping[str, int | float] = field(default_factory=dict)
    clock: float | None = None

    @property
    def compiler(self) -> str:
        """The module that must be installed to compile for it."""
        return "libtpu" if self.platform == "tpu" else "jax_cuda13_plugin"


# H100 and A100 are the SXM modules of 80 GB. References: NVIDIA's data sheets of A100, H100 and
# H200 (dense figures); https://cloud.google.com/tpu/docs/v5e and v6e. A TPU's clock is its peak
# over the operations of its matrix units per cycle: 131,072 in v5e (four of 128 x 128 cells, two
# operations each) and 524,288 in v6e. For v6e the page's two units of 256 x 256 cells would be half
# of it and a clock of 3.5 GHz; the compiler reckons with 369,231 operations per cycle in a product
# of two 8,192 x 8,192 matrices, and with 115,044 in v5e.
CHIPS = {
    "a100": Chip(
        "cuda",
        "A100",
        2.039e12,
        {"bfloat16": 312e12, "float32": 156e12},
        8,
        _NVIDIA
        | {
            "shared_memory_per_core": 167_936,
            "shared_memory_per_block_optin": 166_912,
            "core_count": 108,
            "fpus_per_core": 64,
            "l2_cache_size": 41_943_040,
            "clock_rate_ghz": 1.41,
            "memory_bandwidth": 2_039_040_000_000,
            "device_memory_size": 85_100_068_864,
        },
    ),
    "h100": Chip(
        "cuda",
        "H100",
        3.352e12,
        {"bfloat16": 989e12, "float32": 494e12},
        9,
        _HOPPER | {"memory_bandwidth": 3_352_320_000_000, "device_memory_size": 84_942_979_072},
    ),
    "h200": Chip(
        "cuda",
        "H200",
        4.8e12,
        {"bfloat16": 989e12, "float32": 494e12},
        9,
        _HOPPER | {"memory_bandwidth": 4_800_000_000_000, "device_memory_size": 151_397_597_184},
    ),
    "v5e": Chip("tpu", "TPU v5 lite", 819e9, {"bfloat16": 197e12, "float32": 197e12}, clock=1.5e9),
    "v6e": Chip(
        "tpu", "TPU v6 lite", 1_638e9, {"bfloat16": 918e12, "float32": 918e12}, clock=1.75e9
    ),
}


def chip_sharding(name: str) -> NamedSharding:
    """Returns the placement of an array on one chip, which need not be there.

    A program that is traced with `jax.ShapeDtypeStruct`s of this placement, and lowered for the
    chip's platform, compiles for the chip. It cannot run.

    Args:
      name: of `CHIPS`.

    Raises:
      ValueError: for another name.
      ImportError: if the compiler is not installed.
    """
    from jax.experimental import topologies

    if name not in CHIPS:
        raise ValueError(f"target must be one of {', '.join(CHIPS)}, got {name!r}.")
    chip = CHIPS[name]
    if importlib.util.find_spec(chip.compiler) is None:
        raise ImportError(
            f"{chip.compiler} must be installed to compile for {name}: "
            'pip install "convjax[targets]"'
        )
    if chip.platform == "tpu":
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{name}:2x2", chips_per_host_bounds=(2, 2, 1)
        )
    else:
        limits = "\n".join(f"  {key}: {value}" for key, value in chip.limits.items())
        capability = f"cuda_compute_capability {{ major: {chip.capability} minor: 0 }}"
        text = (
            f"gpu_device_info {{\n{limits}\n  {capability}\n}}\n"
            'platform_name: "CUDA"\ndnn_version_info { major: 9 minor: 10 }\n'
            f'device_description_str: "NVIDIA {chip.kind}"\n'
        )
        topology = topologies.get_topology_desc(
            platform="cuda", topology_name=name, topology="1x1x1", target_config=text
        )
    return NamedSharding(Mesh(np.array(topology.devices[:1]), ("chip",)), PartitionSpec())


def is_present(name: str) -> bool:
    """Returns whether the default device of this process is the chip."""
    kind = jax.devices()[0].device_kind
    # Not a GH200, nor the slower cards, whose figures are others.
    return bool(re.search(rf"\b{CHIPS[name].kind}\b", kind)) and "pcie" not in kind.lower()


def shapes_on(tree: Any, name: str) -> Any:
    """Returns the shapes of the arrays of a tree, placed on a chip that need not be there."""
    sharding = chip_sharding(name)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
