"""layouts: the same numbers in another order, and what the compiler makes of it.

Prediction of the chapter: PyTorch orders images as NCHW and TensorFlow as NHWC, the same numbers in
another order.

Every order, and CHWN with the batch innermost, computes convolutions of nine shapes and the
chapter's network, forward and backward, in float32 and bfloat16. Each is compiled as a program of
its own and inside a loop, as in a training under `lax.scan`. Results are compared. For each program
the report says how long it takes, which convolutions the compiler hands to a library and in which
physical layout, how many transposes and copies it inserted, and what its cost analysis says. On GPU
XLA chooses the physical layout independently of the logical one, so there both physical layouts are
also forced.

Rule: the norm of the difference from NHWC by lax in the same dtype, over the norm of the result, is
at most 1e-5 in float32, whose products are compared at the highest precision, and 5e-2 in bfloat16.
The times are shown, with the layout that they recommend for this device.

With --target, training steps of the chapter's network, of ResNet-50's convolutions and of a
depthwise network are also compiled for chips that need not be there.

Command: python -m experiments run layouts [--target h100]
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import jax

from convjax.io.json_files import write_json
from convjax.runs.environment import environment
from experiments.harness.claim import Claim, Published
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, Measured, Rule
from experiments.layout_study.cases import NETWORK, SHAPES, Shape, variants
from experiments.layout_study.report import BASE, picture, recommendation, relative
from experiments.layout_study.targets import compile_for_targets
from experiments.layout_study.timing import LayoutTiming, measure_case, reference_of

ROUNDS = 5

# (dtype, backward). The forward pass alone is measured in float32 only: a training needs both.
PASSES = (("float32", False), ("float32", True), ("bfloat16", True))

# At most some ten thousand products are summed in another order, and the gradients of the network
# pass through five layers. bfloat16 has 8 bits: each number deviates by up to 4e-3 before the sum.
# With the default precision of a GPU (TF32) or TPU (bfloat16) float32 would deviate by 1e-3.
BOUNDS = {"float32": 1e-5, "bfloat16": 5e-2}


def layouts(lab: Lab, *, brief: bool = False) -> Measured:
    """Measures deviations and times of all layouts, and writes layouts.json.

    Args:
      lab: of the measurement.
      brief: see `compare`.
    """
    rows = compare(lab, brief=brief)
    lab.picture("layouts", picture(rows))
    recommended = recommendation(rows)
    lab.observer.message(recommended)
    write_json(
        lab.out / "layouts.json",
        {
            "environment": environment(),
            "layouts": [asdict(row) for row in rows],
            "recommended": recommended,
        },
    )
    if lab.targets:
        compile_for_targets(lab)
    others = dict.fromkeys(row.variant for row in rows if row.variant != BASE)
    return {
        "programs": [len(rows)],
        **{
            f"deviation_{dtype}": [max(row.deviation for row in rows if row.dtype == dtype)]
            for dtype in BOUNDS
        },
        **{
            f"{variant}, {where}": [relative(rows, variant, where)]
            for where in ("entry", "loop")
            for variant in others
        },
        f"{BASE}, loop / entry": [relative(rows, BASE, "loop", base="entry")],
    }


def compare(lab: Lab, *, brief: bool = False) -> list[LayoutTiming]:
    """Measures all cases; a quick run measures one small case.

    Args:
      lab: of the measurement.
      brief: whether to measure one of the chapter's convolutions alone, forward and backward, with
        every layout and method: a fifteenth of the programs, which compile faster than a network.
    """
    tried = variants(jax.default_backend())
    cases: list[Shape | None] = [None, *SHAPES]
    passes: Sequence[tuple[str, bool]] = PASSES
    if lab.quick:
        cases = cases[:2]
        tried = tried[:2]
    elif brief:
        cases, passes = [SHAPES[1]], PASSES[1:]
    rows = []
    for case in cases:
        for dtype, backward in passes:
            lab.observer.measuring(f"{case or NETWORK}, {dtype}")
            reference = reference_of(case, dtype, backward)
            rounds = 1 if lab.quick else ROUNDS
            rows += measure_case(case, tried, dtype, backward, rounds, reference)
    return rows


def same_results(measured: Measured) -> Decision:
    """Decides whether all layouts give the same results."""
    found = {dtype: measured[f"deviation_{dtype}"][0] for dtype in BOUNDS}
    fastest = {
        where: min(
            (value[0], name.rpartition(",")[0])
            for name, value in [*measured.items(), (f"{BASE}, {where}", [1.0])]
            if name.endswith(f", {where}")
        )
        for where in ("entry", "loop")
    }
    slower = measured[f"{BASE}, loop / entry"][0]
    return Decision(
        all(found[dtype] <= bound for dtype, bound in BOUNDS.items()),
        f"{measured['programs'][0]:.0f} programs; largest difference "
        + ", ".join(f"{value:.1e} in {dtype}" for dtype, value in found.items())
        + "; fastest outside a loop "
        + " and in a loop ".join(
            f"{name} ({share:.2f} of {BASE})" for share, name in fastest.values()
        )
        + f"; {BASE} takes {slower:.1f} times as long in a loop as outside",
        f"{found['float32']:.1e} apart in {measured['programs'][0]:.0f} programs",
    )


CLAIMS = (
    Claim(
        id="layouts",
        statement="NCHW (PyTorch) and NHWC (TensorFlow) order the same numbers differently",
        published=Published(question="same results; time, compiled layout, transposes, per device"),
        measure=layouts,
        brief=partial(layouts, brief=True),
        rules={
            "any": Rule(
                "norm of the difference to NHWC by lax over that of the result at most "
                + ", ".join(f"{bound:g} in {dtype}" for dtype, bound in BOUNDS.items()),
                same_results,
            )
        },
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
