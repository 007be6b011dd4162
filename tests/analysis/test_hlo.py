"""Summaries of compiled programs, against texts and kernels of XLA."""

import os
import re
import subprocess
import sys

import jax
import pytest

from convjax.analysis.hlo import HloConvolution, read

# ruff: noqa: E501  (lines of HLO)

ENTRY = """
%moving (p.1: f32[2,8,8,3]) -> f32[2,3,8,8] {
  %p.1 = f32[2,8,8,3]{3,2,1,0} parameter(0)
  ROOT %transpose.3 = f32[2,3,8,8]{3,2,1,0} transpose(%p.1), dimensions={0,3,1,2}
}

%computing (p.2: f32[2,8,8,3]) -> f32[2,3,8,8] {
  %p.2 = f32[2,8,8,3]{3,2,1,0} parameter(0)
  %transpose.4 = f32[2,3,8,8]{3,2,1,0} transpose(%p.2), dimensions={0,3,1,2}
  ROOT %neg = f32[2,3,8,8]{3,2,1,0} negate(%transpose.4)
}

%library (p.3: f32[2,8,8,3], p.4: f32[3,3,3,4]) -> f32[2,6,6,4] {
  %p.3 = f32[2,8,8,3]{3,2,1,0} parameter(0)
  %p.4 = f32[3,3,3,4]{3,2,1,0} parameter(1)
  ROOT %y = f32[2,6,6,4]{3,2,1,0} convolution(%p.3, %p.4), window={size=3x3}, dim_labels=b01f_01io->b01f
}

ENTRY %main (x: f32[2,8,8,3]) -> f32[2,6,6,4] {
  %x = f32[2,8,8,3]{3,2,1,0} parameter(0)
  %k = bf16[3,3,3,4]{3,2,1,0} constant({...})
  %moved = f32[2,3,8,8]{3,2,1,0} fusion(%x), kind=kLoop, calls=%moving
  %computed = f32[2,3,8,8]{3,2,1,0} fusion(%x), kind=kLoop, calls=%computing
  %same = f32[2,8,8,3]{3,2,1,0} copy(%x)
  %other = bf16[3,3,3,4]{2,3,1,0} copy(%k)
  %dot.2 = f32[4,4]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %ynn = f32[2,6,6,4]{3,2,1,0} fusion(%x, %k), kind=kCustom, calls=%library, backend_config={"fusion_config":{"kind":"__ynn_fusion"}}
  %c = f32[2,6,6,4]{3,2,1,0} convolution(%x, %k), window={size=3x3}, dim_labels=b01f_01io->b01f
  %g = f32[4,3,3,1,4]{4,3,2,1,0} convolution(%v, %w), window={size=3x3x2}, dim_labels=b012f_012io->b012f
  ROOT %d = f32[2,6,6,4]{3,2,1,0} convolution(%x, %k), window={size=3x3 rhs_reversal=1x1}, dim_labels=b01f_01io->b01f
}
"""

LOOP = """
%body (s: (f32[2,3,8,8])) -> (f32[2,3,8,8]) {
  %x.1 = f32[2,3,8,8]{3,2,1,0} get-tuple-element(%s), index=0
  %copy.4 = f32[2,3,8,8]{3,2,1,0} copy(%x.1)
  %k.1 = f32[4,3,3,3]{3,2,1,0} constant({...})
  %conv.9 = f32[2,4,6,6]{3,2,1,0} convolution(%copy.4, %k.1), window={size=3x3}, dim_labels=bf01_oi01->bf01
  ROOT %t = (f32[2,3,8,8]) tuple(%conv.9)
}

ENTRY %main (x: f32[2,3,8,8]) -> (f32[2,3,8,8]) {
  %x = f32[2,3,8,8]{3,2,1,0} parameter(0)
  %before = f32[2,3,8,8]{3,2,1,0} copy(%x)
  %s.1 = (f32[2,3,8,8]{3,2,1,0}) tuple(%before)
  ROOT %w = (f32[2,3,8,8]{3,2,1,0}) while(%s.1), condition=%cond, body=%body
}
"""

GPU = """
ENTRY %main (x: f32[64,8,14,14]) -> f32[64,16,7,7] {
  %x = f32[64,8,14,14]{1,3,2,0} parameter(0)
  %cudnn-conv.1 = (f32[64,16,7,7]{1,3,2,0}, u8[0]{0}) custom-call(%x, %k), window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=bf01_oi01->bf01, custom_call_target="__cudnn$convForward", backend_config={}
  %gemm = (f32[8,8]{1,0}, s8[0]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm"
}
"""


def test_read_program_for_cpu():
    found = read(ENTRY, "cpu", 10.0, 20.0)
    canonical = "b01f_01io->b01f"
    assert found.convolutions == (
        HloConvolution("YNNPACK", canonical, "NHWC"),
        HloConvolution("Eigen", canonical, "NHWC"),
        HloConvolution("Eigen", "b012f_012io->b012f", ""),
        # The library does not take a reversed kernel.
        HloConvolution("own loops", canonical, "NHWC"),
    )
    # The fusion that computes reads in another order; it is not counted as a transpose.
    assert (found.products, found.transposes, found.copies) == (1, 2, 1)
    # Twice 2·8·8·3 numbers of four bytes, and 3·3·3·4 numbers of two.
    assert found.moved_bytes == 2 * 4 * 384 + 2 * 108
    assert (found.flops, found.bytes) == (10.0, 20.0)


def test_read_counts_only_the_body_of_a_loop():
    found = read(LOOP, "cpu", in_loop=True)
    assert found.convolutions == (HloConvolution("own loops", "bf01_oi01->bf01", "NCHW"),)
    assert (found.transposes, found.copies, found.moved_bytes) == (0, 1, 4 * 384)


def test_read_program_for_gpu_has_the_physical_layout():
    """The logical layout is NCHW; the compiler chose channels last in memory."""
    found = read(GPU, "gpu")
    assert found.convolutions == (HloConvolution("__cudnn$convForward", "bf01_oi01->bf01", "NHWC"),)
    assert found.products == 1


# Compiles in a separate process, because XLA reads its flags once: a convolution as an entry and as
# the body of a loop, forward and backward. The compiler dumps a kernel for each of its own loops.
PROGRAM = """
import jax, jax.numpy as jnp
from convjax import conv2d
from convjax.analysis.hlo import describe

x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 4))

def step(x):
    y, pull = jax.vjp(lambda x: conv2d(x, kernel, padding=1, method="lax"), x)
    return y + pull(y)[0]

def loop(x):
    return jax.lax.fori_loop(0, 3, lambda _, x: step(x), x)

for name, program in (("step", step), ("loop", loop)):
    found = describe(jax.jit(program).lower(x).compile(), "cpu")
    print(name, sum(c.how == "own loops" for c in found.convolutions), len(found.convolutions))
"""


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="tests XLA on CPU")
def test_describe_finds_own_loops_in_a_loop(tmp_path, request):
    """https://github.com/jax-ml/jax/issues/12868, against the kernels that the compiler dumps."""
    flags = {"XLA_FLAGS": f"--xla_dump_to={tmp_path}", "JAX_ENABLE_COMPILATION_CACHE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | flags,
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
        check=True,
    )
    found = {
        name: (int(own), int(of)) for name, own, of in map(str.split, done.stdout.splitlines())
    }
    for name, (own, _) in found.items():
        files = [file.name for file in tmp_path.glob(f"*jit_{name}.obj-file.*.o")]
        kernels = [file for file in files if re.search("conv(_general|olution)", file)]
        assert len(kernels) == own
    assert found["step"] == (0, 2)
    assert found["loop"] == (1, 2)


# A fusion that takes one of 100 rows, one that changes a row in place, and a loop around both.
ROWS = """
%taking (p.1: f32[100,8], p.2: s32[]) -> f32[1,8] {
  %p.1 = f32[100,8]{1,0} parameter(0)
  %p.2 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %taken = f32[1,8]{1,0} dynamic-slice(%p.1, %p.2, %zero), dynamic_slice_sizes={1,8}
}

%changing (p.3: f32[100,8], p.4: f32[1,8], p.5: s32[]) -> f32[100,8] {
  %p.3 = f32[100,8]{1,0} parameter(0)
  %p.4 = f32[1,8]{1,0} parameter(1)
  %p.5 = s32[] parameter(2)
  %none = s32[] constant(0)
  ROOT %changed = f32[100,8]{1,0} dynamic-update-slice(%p.3, %p.4, %p.5, %none)
}

%condition (s: (f32[100,8], s32[])) -> pred[] {
  %s.3 = (f32[100,8], s32[]) parameter(0)
  ROOT %less = pred[] compare(%s.3, %s.3), direction=LT
}

%body (s: (f32[100,8], s32[])) -> (f32[100,8], s32[]) {
  %s.1 = (f32[100,8]{1,0}, s32[]) parameter(0)
  %x = f32[100,8]{1,0} get-tuple-element(%s.1), index=0
  %i = s32[] get-tuple-element(%s.1), index=1
  %row = f32[1,8]{1,0:T(2,128)} fusion(%x, %i), kind=kLoop, calls=%taking, backend_config={"estimated_cycles":"70"}
  %new = f32[100,8]{1,0} fusion(%x, %row, %i), kind=kLoop, calls=%changing, backend_config={"estimated_cycles":"30"}
  ROOT %t = (f32[100,8]{1,0}, s32[]) tuple(%new, %i)
}

ENTRY %main (a: f32[100,8]) -> (f32[100,8], s32[]) {
  %a = f32[100,8]{1,0} parameter(0)
  %b = f32[100,8]{0,1} copy(%a)
  %k = s32[] constant(0)
  %s.2 = (f32[100,8]{1,0}, s32[]) tuple(%b, %k)
  ROOT %w = (f32[100,8]{1,0}, s32[]) while(%s.2), condition=%condition, body=%body
}
"""


def test_read_counts_what_is_launched_and_touched():
    inside = read(ROWS, "tpu", in_loop=True)
    assert (inside.launches, inside.cycles) == (2, 100.0)
    # The slice is read and written, 32 bytes each, and the index read, 4. The change reads the row
    # and the index and writes the row.
    assert inside.bytes == (32 + 32 + 4) + (32 + 4 + 32)
    whole = read(ROWS, "tpu")
    # The copy before the loop is one more; the loop's condition is not counted.
    assert (whole.launches, whole.copies + whole.transposes) == (3, 1)
    assert whole.bytes == inside.bytes + 2 * 3200
    assert read(ROWS, "gpu").cycles is None
    # The same of a slice whose place is known.
    fixed = "slice(%p.1), slice={[7:8], [0:8]}"
    text = ROWS.replace("dynamic-slice(%p.1, %p.2, %zero), dynamic_slice_sizes={1,8}", fixed)
    assert fixed in text
    assert read(text, "tpu", in_loop=True).bytes == inside.bytes


def test_read_counts_calls_of_libraries():
    found = read(GPU, "gpu", memory_bytes=12)
    assert found.library_calls == {"__cudnn$convForward": 1, "__cublas$gemm": 1}
    assert (found.launches, found.memory_bytes) == (2, 12)


def test_read_program_for_tpu_has_the_tiling():
    text = GPU.replace("{1,3,2,0}", "{1,0,3,2:T(8,128)(2,1)}").replace("custom-call", "convolution")
    assert read(text, "tpu").convolutions[0] == HloConvolution(
        "convolution", "bf01_oi01->bf01", "HWNC", "(8,128)(2,1)"
    )
