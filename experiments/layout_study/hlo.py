"""A summary of a compiled program, read from its text: XLA's HLO after all optimizations."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# name = type[sizes]{minor to major} opcode(…); of a tuple, the first element.
INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = \(*(?P<type>[a-z]\w*)\[(?P<sizes>[\d,]*)\]"
    r"(?:\{(?P<order>[\d,]*)[^}]*\})?.*? (?P<opcode>[a-z][\w\-]*)\((?P<rest>.*)$"
)
COMPUTATION = re.compile(r"^(?:ENTRY )?%?(?P<name>[\w.\-]+) .*\{$")
OPERANDS = re.compile(r"%([\w.\-]+)")
LABELS = re.compile(r"dim_labels=([\w?]+)_([\w?]+)->([\w?]+)")
TARGET = re.compile(r'custom_call_target="([^"]+)"')
BITS = re.compile(r"\d+")

# On CPU, a convolution of one to three dimensions goes to Eigen if batch and channels are the
# outermost and the innermost axis, and the kernel is not reversed. Otherwise XLA generates its own
# loops (openxla/xla, xla/service/cpu/ir_emission_utils.cc).
EIGEN = re.compile(r"b(\d+)f_\1io->b\1f")

# Operations within a fusion that only moves data.
MOVE_OPCODES = {"copy", "transpose"}
FREE_OPCODES = {"parameter", "bitcast", "reshape", "tuple", "get-tuple-element", "constant"}


class HloConvolution(NamedTuple):
    """One convolution of the compiled program.

    Attributes:
      how: the implementation: "Eigen", "YNNPACK", "own loops", or a library function, as on GPU.
      labels: the logical order of axes in XLA's notation: input, kernel, output.
      physical: the axes of the input in memory, the slowest first: "NHWC", "NCHW", …
    """

    how: str
    labels: str
    physical: str


@dataclass(frozen=True)
class CompiledProgram:
    """The operations of a compiled program or, for a loop, of one iteration.

    Attributes:
      convolutions: in the order of the text.
      products: number of matrix products.
      transposes, copies: number of separate operations that only move data, to another order in
        memory or to the same one. Moves within a fusion that also computes are not counted.
      moved_bytes: written by all of them together.
      flops, bytes: of the compiler's cost analysis, None if it has none. The body of a loop counts
        once.
    """

    convolutions: tuple[HloConvolution, ...]
    products: int
    transposes: int
    copies: int
    moved_bytes: int
    flops: float | None
    bytes: float | None


class _Instruction(NamedTuple):
    name: str
    type: str
    sizes: str
    order: str
    opcode: str
    rest: str

    @property
    def bytes(self) -> int:
        count = 1
        for size in filter(None, self.sizes.split(",")):
            count *= int(size)
        bits = BITS.search(self.type)  # none for bool, "pred"; of complex numbers, all bits
        return count * (int(bits[0]) if bits else 8) // 8

    @property
    def operands(self) -> list[str]:
        return OPERANDS.findall(self.rest.partition("), ")[0])

    def refers(self, key: str) -> str:
        """Returns the computation that an attribute names, "" without the attribute."""
        found = re.search(rf"{key}=%?([\w.\-]+)", self.rest)
        return found[1] if found else ""


@dataclass
class _Computation:
    instructions: dict[str, _Instruction] = field(default_factory=dict)
    caller: tuple[str, _Instruction] | None = None  # (computation, instruction)


def describe(compiled: Any, backend: str) -> CompiledProgram:
    """Returns the summary of a `jax.stages.Compiled`."""
    cost = compiled.cost_analysis() or {}
    cost = cost[0] if isinstance(cost, list) else cost
    return read(compiled.as_text(), backend, cost.get("flops"), cost.get("bytes accessed"))


def read(
    text: str, backend: str, flops: float | None = None, accessed: float | None = None
) -> CompiledProgram:
    """Returns the summary of a program from its text.

    Args:
      text: optimized HLO.
      backend: "cpu", "gpu" or "tpu".
      flops: of the cost analysis.
      accessed: bytes accessed, of the cost analysis.
    """
    computations = _computations(text)
    looped = {c for c in computations if _within(computations, c, "while")}
    convolutions, products, transposes, copies, moved = [], 0, 0, 0, 0
    for name in looped or computations:
        fused = _within(computations, name, "fusion")
        known = computations[name].instructions
        for found in known.values():
            if labels := LABELS.search(found.rest):
                how = _how(found, labels, fused, backend)
                physical = _physical(found, labels[1], known)
                convolutions.append(HloConvolution(how, labels[0].partition("=")[2], physical))
            elif found.opcode == "dot" or _is_product(found):
                products += 1
            elif not fused and _moves(found, computations):
                ordered = _reorders(found, known, computations)
                transposes += ordered
                copies += not ordered
                moved += found.bytes
    return CompiledProgram(
        tuple(convolutions), products, transposes, copies, moved, flops, accessed
    )


def _computations(text: str) -> dict[str, _Computation]:
    found: dict[str, _Computation] = {}
    for line in text.splitlines():
        if heading := COMPUTATION.match(line):
            here = found.setdefault(heading["name"], _Computation())
        elif instruction := INSTRUCTION.match(line):
            made = _Instruction(*(part or "" for part in instruction.groups()))
            here.instructions[made.name] = made
    for name, computation in list(found.items()):
        for caller in computation.instructions.values():
            for key in ("calls", "body", "to_apply"):
                called = caller.refers(key)
                if called in found:
                    found[called].caller = name, caller
    return found


def _callers(computations: dict[str, _Computation], name: str) -> Iterator[_Instruction]:
    """Yields the instruction that calls a computation, and so on up to the entry."""
    while caller := computations[name].caller:
        name, instruction = caller
        yield instruction


def _within(computations: dict[str, _Computation], name: str, opcode: str) -> str:
    """Returns the attributes of the enclosing call with an opcode, "" for none."""
    return next((c.rest for c in _callers(computations, name) if c.opcode == opcode), "")


def _how(found: _Instruction, labels: re.Match[str], fused: str, backend: str) -> str:
    if target := TARGET.search(found.rest):
        return target[1]
    if "__ynn_fusion" in fused:
        return "YNNPACK"
    if backend != "cpu":
        return "convolution"
    canonical = EIGEN.fullmatch(labels[0].partition("=")[2])
    return "Eigen" if canonical and "rhs_reversal" not in found.rest else "own loops"


def _physical(found: _Instruction, labels: str, known: dict[str, _Instruction]) -> str:
    """Returns the order of the input's axes in memory, "" if the text does not contain it."""
    operand = known.get(next(iter(found.operands), ""))
    if operand is None or not operand.order:
        return ""
    letters = {"b": "N", "f": "C", "0": "H", "1": "W", "2": "D"}
    axes = [letters.get(label, label) for label in labels]
    return "".join(axes[int(axis)] for axis in reversed(operand.order.split(",")))


def _is_product(found: _Instruction) -> bool:
    target = TARGET.search(found.rest)
    return bool(target and re.search("cublas|gemm|matmul", target[1], re.IGNORECASE))


def _moves(found: _Instruction, computations: dict[str, _Computation]) -> bool:
    """Whether an operation only moves data."""
    if found.opcode != "fusion":
        return found.opcode in MOVE_OPCODES
    inside = {i.opcode for i in computations[found.refers("calls")].instructions.values()}
    return bool(inside & MOVE_OPCODES) and inside <= MOVE_OPCODES | FREE_OPCODES


def _reorders(
    found: _Instruction, known: dict[str, _Instruction], computations: dict[str, _Computation]
) -> bool:
    """Whether an operation that moves data changes its order in memory."""
    if found.opcode == "copy":
        operand = known.get(next(iter(found.operands), ""))
        return operand is not None and operand.order != found.order
    if found.opcode == "transpose":
        return True
    inside = computations[found.refers("calls")].instructions.values()
    return any(i.opcode == "transpose" for i in inside)
