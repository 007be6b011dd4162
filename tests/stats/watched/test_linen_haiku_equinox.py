"""Loops of Flax Linen, Haiku, Equinox and Optax alone, watched."""

import pytest

from tests.stats.watched import equinox_loops, haiku_loops, linen_loops
from tests.stats.watched.cases import check

CASES = [*linen_loops.CASES, *haiku_loops.CASES, *equinox_loops.CASES]
# Those that compile longest; each has a faster one of its kind.
SLOW = (
    "transformer",
    "dynamic loss scale",
    "ImageNet",
    "remat_scan",
    "pmap",
    "as a transformation",
)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] if case.name.endswith(SLOW) else [])
        for case in CASES
    ],
    ids=str,
)
def test_watched_loop_is_the_plain_one(case):
    check(case)
