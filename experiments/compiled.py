"""What the compiler made of a program: read from its text, XLA's HLO after all optimisations."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

# The form in which XLA on CPU hands a convolution to its library (Eigen); any other becomes loops
# of its own. https://github.com/openxla/xla, xla/service/cpu/ir_emission_utils.cc
CPU_LIBRARY = "b01f_01io->b01f"

# name = type[sizes]{minor to major} opcode(…)
INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = \(?(?P<type>\w+)\[(?P<sizes>[\d,]*)\]"
    r"(?:\{(?P<order>[\d,]*)[^}]*\})?.*? (?P<opcode>[a-z][\w\-]*)\((?P<rest>.*)$"
)
COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) .*\{$")
OPERAND = re.compile(r"%?([\w.\-]+)(?=[,)]|$)")
PRODUCTS = re.compile(r'custom_call_target="[^"]*(?:cublas|matmul|gemm)', re.IGNORECASE)
ITEM_BYTES = {"bf16": 2, "f16": 2, "f32": 4, "f64": 8, "s32": 4, "s64": 8, "u8": 1, "pred": 1}


class Convolution(NamedTuple):
    """One convolution of the compiled program.

    Attributes:
      how: "library", "own loops", or the name of a library's function, as on GPU.
      labels: the logical order of axes, as XLA writes it: input, kernel, output.
      physical: the axes of the input in memory, the slowest first: "NHWC", "NCHW", …
    """

    how: str
    labels: str
    physical: str


@dataclass(frozen=True)
class Compiled:
    """What is in a compiled program.

    Attributes:
      convolutions: in the order of the text.
      products: number of matrix products.
      transposes, copies: operations that only move numbers.
      moved_bytes: what they write, all together.
      flops, bytes: of the cost analysis of the compiler, None where it tells none. The body of a
        loop counts once.
    """

    convolutions: tuple[Convolution, ...]
    products: int
    transposes: int
    copies: int
    moved_bytes: int
    flops: float | None
    bytes: float | None


def describe(compiled: Any, backend: str) -> Compiled:
    """Describes a `jax.stages.Compiled`."""
    cost = compiled.cost_analysis() or {}
    cost = cost[0] if isinstance(cost, list) else cost
    return read(compiled.as_text(), backend, cost.get("flops"), cost.get("bytes accessed"))


def read(
    text: str, backend: str, flops: float | None = None, accessed: float | None = None
) -> Compiled:
    """Reads the text of a compiled program."""
    convolutions, products, transposes, copies, moved = [], 0, 0, 0, 0
    for found in _instructions(text):
        opcode, rest = found["opcode"], found["rest"]
        labels = re.search(r"dim_labels=([\w?]+_[\w?]+->[\w?]+)", rest)
        if labels:
            convolutions.append(_convolution(found, labels[1], text, backend))
        elif opcode == "dot" or PRODUCTS.search(rest):
            products += 1
        elif opcode in ("transpose", "copy"):
            transposes += opcode == "transpose"
            copies += opcode == "copy"
            moved += _bytes(found)
    return Compiled(tuple(convolutions), products, transposes, copies, moved, flops, accessed)


def _instructions(text: str) -> Iterator[re.Match[str]]:
    for line in text.splitlines():
        if found := INSTRUCTION.match(line):
            yield found


def _convolution(found: re.Match[str], labels: str, text: str, backend: str) -> Convolution:
    target = re.search(r'custom_call_target="([^"]+)"', found["rest"])
    if target:
        how = target[1]
    elif backend == "cpu":
        reversed_window = "rhs_reversal" in found["rest"]
        library = labels == CPU_LIBRARY and not reversed_window
        how = "library" if library else "own loops"
    else:
        how = "convolution"
    return Convolution(how, labels, _physical(found, labels.split("_")[0], text))


def _physical(found: re.Match[str], labels: str, text: str) -> str:
    """Returns the order of the input's axes in memory, "" where the text does not tell it."""
    operand = OPERAND.search(found["rest"])
    made = operand and re.search(
        rf"^\s*(?:ROOT )?%?{re.escape(operand[1])} = \(?\w+\[[\d,]*\]\{{([\d,]+)",
        text,
        re.MULTILINE,
    )
    # Operands may have their types beside them, too.
    inline = re.match(r"\w+\[[\d,]*\]\{([\d,]+)[^}]*\} ", found["rest"])
    order = inline or made
    if not order:
        return ""
    letters = {"b": "N", "f": "C", "0": "H", "1": "W"}
    axes = [letters.get(label, label) for label in labels]
    return "".join(axes[int(axis)] for axis in reversed(order[1].split(",")))


def _bytes(found: re.Match[str]) -> int:
    count = 1
    for size in filter(None, found["sizes"].split(",")):
        count *= int(size)
    return count * ITEM_BYTES.get(found["type"], 4)
