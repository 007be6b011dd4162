"""Chips as targets of compilers: their figures, and what is said where a compiler is missing."""

import importlib.util
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from convjax.analysis.chips import CHIPS, chip_sharding, is_present, shapes_on


def test_the_cpu_is_none_of_the_chips():
    assert jax.default_backend() != "cpu" or not any(map(is_present, CHIPS))


def test_is_present_reads_the_kind_of_the_device(monkeypatch):
    for kind, names in (
        ("NVIDIA H100 80GB HBM3", ["h100"]),
        ("NVIDIA H200", ["h200"]),
        ("NVIDIA GH200 480GB", []),
        ("NVIDIA A100-PCIE-40GB", []),
        ("NVIDIA H100 PCIe", []),
        ("TPU v5 lite", ["v5e"]),
    ):
        device = SimpleNamespace(device_kind=kind)
        monkeypatch.setattr(jax, "devices", lambda device=device: [device])
        assert [name for name in CHIPS if is_present(name)] == names


def test_figures_are_of_one_order():
    """The peak of every chip is 150 to 600 operations for each byte: a slip of a unit shows."""
    for chip in CHIPS.values():
        assert 100 < chip.products["bfloat16"] / chip.bandwidth < 1000
        if chip.limits:
            assert chip.limits["memory_bandwidth"] == pytest.approx(chip.bandwidth, rel=1e-3)


def test_unknown_chip():
    with pytest.raises(
        ValueError, match="target must be one of a100, h100, h200, v5e, v6e, got 'tpu'"
    ):
        chip_sharding("tpu")


@pytest.mark.parametrize(("name", "module"), [("h100", "jax_cuda13_plugin"), ("v5e", "libtpu")])
def test_missing_compiler_names_the_extra(name, module, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf'{module} must be installed .*"convjax\[targets\]"'):
        chip_sharding(name)


@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None, reason="needs the extra targets"
)
def test_program_compiles_for_a_chip_that_is_not_there():
    shapes = shapes_on({"x": jnp.zeros((8, 8))}, "a100")
    assert shapes["x"].shape == (8, 8)
    traced = jax.jit(lambda tree: jnp.sin(tree["x"])).trace(shapes)
    assert "sine" in traced.lower(lowering_platforms=("cuda",)).compile().as_text()
