"""Strategies that change valid files a little: most random bytes fail at the first check."""

from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# Lengths and signs at which arithmetic overflows.
EDGES = (0, 1, 2, 3, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)


def on_files(examples: int) -> settings:
    """Returns settings for tests that write every example into one folder, without a deadline."""
    slow = (HealthCheck.too_slow, HealthCheck.data_too_large)
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, *slow],
    )


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with one to four places flipped, overwritten, removed, repeated or truncated."""
    result = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(result) - 1, 0)))
        length = draw(st.integers(1, 8))
        match draw(st.sampled_from(("flip", "overwrite", "number", "cut", "double", "end"))):
            case "flip" if result:
                result[at] ^= 1 << draw(st.integers(0, 7))
            case "overwrite":
                result[at : at + length] = draw(st.binary(min_size=length, max_size=length))
            case "number":
                order = draw(st.sampled_from(("big", "little")))
                result[at : at + 4] = draw(st.sampled_from(EDGES)).to_bytes(4, order)
            case "cut":
                del result[at : at + length]
            case "double":
                result[at:at] = result[at : at + length * 20]
            case "end":
                del result[at:]
    return bytes(result)


def plain_data() -> st.SearchStrategy[Any]:
    """Returns plain data of JSON, including unusual numbers and texts."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.sampled_from(
            (2**31, 2**63, 10**30, -(2**64), float("nan"), float("inf"), 1e308, 5e-324)
        ),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(("\ud800", "\0", "0", "[]", "digits", "é")),
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=6,
    )


@st.composite
def mutated_array(draw: st.DrawFn, array: np.ndarray) -> np.ndarray:
    """An array with other values, another dtype or another shape."""
    match draw(st.sampled_from(("values", "type", "shape", "axis", "other"))):
        case "values":
            array = array.copy()
            if array.size and array.dtype.kind in "iuf":
                values = (-(2**63), -1, 0, 1, 7, 2**31, 2**62)
                if array.dtype.kind == "f":
                    values = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-40, 1e38)
                value = draw(st.sampled_from(values))
                info = np.iinfo(array.dtype) if array.dtype.kind in "iu" else np.finfo(array.dtype)
                if np.isfinite(value):
                    value = min(max(value, float(info.min)), float(info.max))
                everywhere = draw(st.booleans())
                array.flat[slice(None) if everywhere else draw(st.integers(0, array.size - 1))] = (
                    value
                )
        case "type":
            dtype = draw(
                st.sampled_from(("?", "i1", "u8", "f2", "f8", ">f4", ">i8", "c8", "U3", "g"))
            )
            with np.errstate(all="ignore"):
                array = array.astype(dtype) if array.dtype.kind in "iuf" else array.astype("U3")
        case "shape":
            axis = draw(st.integers(0, max(array.ndim - 1, 0)))
            if array.ndim and array.shape[axis]:
                keep = draw(st.integers(0, array.shape[axis]))
                repeats = draw(st.sampled_from((1, 2)))
                array = np.repeat(array.take(np.arange(keep), axis), repeats, axis)
        case "axis":
            array = (
                array[None]
                if draw(st.booleans()) or not array.ndim
                else array[..., 0]
                if array.shape[-1]
                else array
            )
        case "other":
            array = draw(
                st.sampled_from((np.array("text"), np.array(3), np.zeros((2, 2)), np.zeros(0)))
            )
    return array
