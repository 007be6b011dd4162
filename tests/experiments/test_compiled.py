"""What is read from the text of compiled programs: by hand, and from programs compiled here."""

import jax
import jax.numpy as jnp
import pytest

from convjax import conv2d
from experiments.compiled import Convolution, describe, read

CPU = """
%fused (p.1: f32[2,8,8,3]) -> f32[2,3,8,8] {
  %p.1 = f32[2,8,8,3]{3,2,1,0} parameter(0)
  ROOT %transpose.3 = f32[2,3,8,8]{3,2,1,0} transpose(%p.1), dimensions={0,3,1,2}
}

%body (s: (f32[2,3,8,8])) -> (f32[2,3,8,8]) {
  %x.1 = f32[2,3,8,8]{3,2,1,0} get-tuple-element(%s), index=0
  %k.1 = bf16[4,3,3,3]{3,2,1,0} constant({...})
  %copy.5 = bf16[4,3,3,3]{3,2,1,0} copy(%k.1)
  %conv.9 = f32[2,4,6,6]{3,2,1,0} convolution(%x.1, %copy.5), window={size=3x3}, dim_labels=bf01_oi01->bf01
  ROOT %t = (f32[2,3,8,8]) tuple(%conv.9)
}

ENTRY %main (x: f32[2,8,8,3]) -> f32[2,6,6,4] {
  %x = f32[2,8,8,3]{3,2,1,0} parameter(0)
  %k = f32[3,3,3,4]{3,2,1,0} constant({...})
  %dot.2 = f32[4,4]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %c = f32[2,6,6,4]{3,2,1,0} convolution(%x, %k), window={size=3x3}, dim_labels=b01f_01io->b01f
  ROOT %d = f32[2,6,6,4]{3,2,1,0} convolution(%x, %k), window={size=3x3 rhs_reversal=1x1}, dim_labels=b01f_01io->b01f
}
"""

GPU = """
ENTRY %main (x: f32[64,8,14,14]) -> f32[64,16,7,7] {
  %x = f32[64,8,14,14]{1,3,2,0} parameter(0)
  %cudnn-conv.1 = (f32[64,16,7,7]{1,3,2,0}, u8[0]{0}) custom-call(%x, %k), window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=bf01_oi01->bf01, custom_call_target="__cudnn$convForward", backend_config={}
  %gemm = (f32[8,8]{1,0}, s8[0]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm"
}
"""


def test_a_program_for_cpu():
    found = read(CPU, "cpu", 10.0, 20.0)
    assert found.convolutions == (
        Convolution("own loops", "bf01_oi01->bf01", "NCHW"),
        Convolution("library", "b01f_01io->b01f", "NHWC"),
        # A kernel that is turned around is not what the library takes.
        Convolution("own loops", "b01f_01io->b01f", "NHWC"),
    )
    assert (found.products, found.transposes, found.copies) == (1, 1, 1)
    # 2·3·8·8 numbers of four bytes, and 4·3·3·3 of two.
    assert found.moved_bytes == 4 * 384 + 2 * 108
    assert (found.flops, found.bytes) == (10.0, 20.0)


def test_a_program_for_gpu_has_another_physical_layout():
    """Logically NCHW, in memory with the channels last: the compiler's choice."""
    found = read(GPU, "gpu")
    assert found.convolutions == (Convolution("__cudnn$convForward", "bf01_oi01->bf01", "NHWC"),)
    assert found.products == 1


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="is about XLA on CPU")
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_loop_keeps_convolutions_from_the_library(layout):
    """https://github.com/jax-ml/jax/issues/12868, with the gradient of NHWC, too."""
    x = jnp.ones((2, 4, 8, 8))
    kernel = jnp.ones((4, 4, 3, 3))

    def step(x):
        return conv2d(x, kernel, padding=1, layout="NCHW", method="lax")

    if layout == "NHWC":
        x, kernel = x.transpose(0, 2, 3, 1), kernel.transpose(2, 3, 1, 0)

        def step(x):
            y, pull = jax.vjp(lambda x: conv2d(x, kernel, padding=1, method="lax"), x)
            return pull(y)[0]

    entry = describe(jax.jit(step).lower(x).compile(), "cpu")
    loop = describe(
        jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda _, x: step(x), x)).lower(x).compile(),
        "cpu",
    )
    assert {found.how for found in entry.convolutions} == {"library"}
    assert "own loops" in {found.how for found in loop.convolutions}
    assert entry.flops > 0
