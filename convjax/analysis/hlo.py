"""What a compiler made of a program, read from its text: XLA's HLO after all optimizations."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# name = shape opcode(…). The shape of a tuple is in parentheses; an array's is
# type[sizes]{minor to major:tiling}.
INSTRUCTION = re.compile(
    r"^\s*(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<shape>.*?) "
    r"(?P<opcode>[a-z][\w\-]*)\((?P<rest>.*)$"
)
ARRAY = re.compile(r"(?P<type>[a-z]\w*)\[(?P<sizes>[\d,]*)\](?:\{(?P<order>[\d,]*)[^}]*\})?")
TILING = re.compile(r"\{[\d,]*:T((?:\([\d,]+\))+)")
COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) .*\{$")
OPERANDS = re.compile(r"%([\w.\-]+)")
LABELS = re.compile(r"dim_labels=([\w?]+)_([\w?]+)->([\w?]+)")
CALL_TARGET = re.compile(r'custom_call_target="([^"]+)"')
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
BITS = re.compile(r"\d+")

# On CPU, a convolution of one to three dimensions goes to Eigen if batch and channels are the
# outermost and the innermost axis, and the kernel is not reversed. Otherwise XLA generates its own
# loops (openxla/xla, xla/service/cpu/ir_emission_utils.cc).
EIGEN = re.compile(r"b(\d+)f_\1io->b\1f")

# Operations within a fusion that only moves data.
MOVE_OPCODES = {"copy", "transpose"}
FREE_OPCODES = {"parameter", "bitcast", "reshape", "tuple", "get-tuple-element", "constant"}

# Instructions that launch nothing themselves.
NOT_LAUNCHED = FREE_OPCODES - {"reshape"} | {"after-all", "while", "conditional", "call"}


class HloConvolution(NamedTuple):
    """One convolution of the compiled program.

    Attributes:
      how: the implementation: "Eigen", "YNNPACK", "own loops", or a library function, as on GPU.
      labels: the logical order of axes in XLA's notation: input, kernel, output.
      physical: the axes of the input in memory, the slowest first: "NHWC", "NCHW", …
      tiling: of the two fastest axes, such as "(8,128)(2,1)" on a TPU; "" for none.
    """

    how: str
    labels: str
    physical: str
    tiling: str = ""


@dataclass(frozen=True)
class CompiledProgram:
    """The operations of a compiled program or, for a loop, of one iteration.

    Attributes:
      convolutions: in the order of the text.
      products: number of matrix products.
      transposes, copies: number of separate operations that only move data, to another order in
        memory or to the same one. Moves within a fusion that also computes are not counted.
      moved_bytes: written by all of them together.
      flops: of the compiler's cost analysis, None if it has none, as on a GPU that is not there.
        The body of a loop counts once.
      bytes: read and written: of the cost analysis or, where it has none, by the operations that
        are launched.
      launches: the operations that are launched, one after the other: on a GPU kernels, copies and
        calls of libraries.
      library_calls: how many of them call each function of a library.
      cycles: the compiler's estimate for a TPU; None elsewhere.
      memory_bytes: of arguments, results and what lies between them; None if unknown.
    """

    convolutions: tuple[HloConvolution, ...]
    products: int
    transposes: int
    copies: int
    moved_bytes: int
    flops: float | None
    bytes: float | None
    launches: int = 0
    library_calls: Mapping[str, int] = field(default_factory=dict)
    cycles: float | None = None
    memory_bytes: int | None = None


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    shape: str
    opcode: str
    rest: str
    root: bool = False  # whether its result is that of the computation

    @property
    def bytes(self) -> int:
        """Of the result; of all arrays of a tuple."""
        return sum(map(_bytes, ARRAY.finditer(self.shape)))

    @property
    def order(self) -> str:
        """The axes of the first array in memory, the fastest first; "" if the text has none."""
        array = ARRAY.search(self.shape)
        return (array["order"] or "") if array else ""

    @property
    def operands(self) -> list[str]:
        """Names of the arguments."""
        return OPERANDS.findall(self.rest.partition("), ")[0])

    @property
    def cycles(self) -> float:
        """By the estimate of the compiler for TPUs; 0 if the text has none."""
        return float(sum(map(int, CYCLES.findall(self.rest))))

    @property
    def library_call(self) -> str:
        """The function of a library that is called, "" for none."""
        target = CALL_TARGET.search(self.rest) if self.opcode == "custom-call" else None
        return target[1] if target else ""

    def refers(self, key: str) -> str:
        """Returns the computation that an attribute names, "" without the attribute."""
        found = re.search(rf"{key}=%?([\w.\-]+)", self.rest)
        return found[1] if found else ""


@dataclass
class Computation:
    """The instructions of a computation by name, and the one that calls it, with its place."""

    instructions: dict[str, Instruction] = field(default_factory=dict)
    caller: tuple[str, Instruction] | None = None
    entry: bool = False

    def loops(self) -> Iterator[Instruction]:
        """Yields its loops."""
        return (i for i in self.instructions.values() if i.opcode == "while")

    def launched(self) -> list[Instruction]:
        """Returns the instructions that are launched if the computation runs by itself."""
        return [i for i in self.instructions.values() if i.opcode not in NOT_LAUNCHED]


def describe(compiled: Any, backend: str, *, in_loop: bool = False) -> CompiledProgram:
    """Returns the summary of a `jax.stages.Compiled`; arguments as for `read`."""
    cost = compiled.cost_analysis() or {}
    cost = cost[0] if isinstance(cost, list) else cost
    memory = compiled.memory_analysis()
    size = None if memory is None else (
        memory.temp_size_in_bytes
        + memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )  # fmt: skip
    costs = cost.get("flops"), cost.get("bytes accessed"), size
    return read(compiled.as_text(), backend, *costs, in_loop=in_loop)


def read(
    text: str,
    backend: str,
    flops: float | None = None,
    accessed: float | None = None,
    memory_bytes: int | None = None,
    *,
    in_loop: bool = False,
) -> CompiledProgram:
    """Returns the summary of a program from its text.

    Args:
      text: optimized HLO.
      backend: "cpu", "gpu" or "tpu".
      flops: of the cost analysis.
      accessed: bytes accessed, of the cost analysis.
      memory_bytes: of the analysis of memory.
      in_loop: whether only the bodies of loops are counted. Otherwise all is, each body once.
    """
    found = computations(text)
    counted = [c for c in found if not in_loop or _within(found, c, "while")]
    convolutions, products, transposes, copies, moved = [], 0, 0, 0, 0
    launched: list[Instruction] = []
    touched = 0
    for name in counted:
        fused = _within(found, name, "fusion")
        known = found[name].instructions
        for made in known.values():
            if labels := LABELS.search(made.rest):
                how = _how(made, labels, fused, backend)
                physical, tiling = _physical(made, labels[1], known)
                axes = labels[0].partition("=")[2]
                convolutions.append(HloConvolution(how, axes, physical, tiling))
            elif made.opcode == "dot" or _is_product(made):
                products += 1
            elif not fused and _moves(made, found):
                ordered = _reorders(made, known, found)
                transposes += ordered
                copies += not ordered
                moved += made.bytes
        if _runs(found, name):
            here = found[name].launched()
            launched += here
            touched += sum(touched_bytes(made, known, found) for made in here)
    cycles = sum(made.cycles for made in launched)
    calls = Counter(made.library_call for made in launched if made.library_call)
    return CompiledProgram(
        tuple(convolutions),
        products,
        transposes,
        copies,
        moved,
        flops,
        float(touched) if accessed is None else accessed,
        len(launched),
        dict(calls),
        cycles if backend == "tpu" else None,
        memory_bytes,
    )


def computations(text: str) -> dict[str, Computation]:
    """Returns the computations of a program by name.

    Examples:
      >>> from convjax.analysis.hlo import computations
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
      >>> found = computations(text)
      >>> [loop.refers("body") for loop in found["main"].loops()]
      ['body']
      >>> [made.opcode for made in found["body"].launched()]
      ['fusion']
    """
    found: dict[str, Computation] = {}
    here: Computation | None = None
    for line in text.splitlines():
        if heading := COMPUTATION.match(line):
            here = found.setdefault(heading["name"], Computation(entry=bool(heading["entry"])))
        elif here is not None and (instruction := INSTRUCTION.match(line)):
            name, shape, opcode, rest = instruction.group("name", "shape", "opcode", "rest")
            made = Instruction(name, shape, opcode, rest, bool(instruction["root"]))
            here.instructions[made.name] = made
    for name, computation in list(found.items()):
        for caller in computation.instructions.values():
            branches = re.search(r"branch_computations=\{([^}]*)\}", caller.rest)
            for called in (
                *(caller.refers(key) for key in ("calls", "body", "to_apply")),
                *(OPERANDS.findall(branches[1]) if branches else ()),
            ):
                if called in found:
                    found[called].caller = name, caller
    return found


def touched_bytes(
    made: Instruction, known: Mapping[str, Instruction], found: Mapping[str, Computation]
) -> int:
    """Returns the bytes that an instruction reads and writes.

    Of an array of which it takes slices, those of the slices; of one in which it changes a slice,
    those of the slice.

    Args:
      made: the instruction.
      known: those of its computation.
      found: all computations.
    """
    inside = found.get(made.refers("calls")) if made.opcode == "fusion" else None
    if inside is None:
        written = _written(made, known)
        return written + sum(
            _read(known[name], [made]) for name in dict.fromkeys(made.operands) if name in known
        )
    body = inside.instructions
    roots = [i for i in body.values() if i.root]
    if roots and roots[0].opcode == "tuple":
        roots = [body[name] for name in roots[0].operands if name in body]
    written = sum(_written(root, body) for root in roots) if roots else made.bytes
    arguments = [i for i in body.values() if i.opcode == "parameter"]
    return written + sum(_read(of, _users(of, body)) for of in arguments)


def _users(of: Instruction, body: Mapping[str, Instruction]) -> list[Instruction]:
    """Returns what uses a value, also through views of it."""
    users: list[Instruction] = []
    for made in body.values():
        if of.name in made.operands:
            users += _users(made, body) if made.opcode == "bitcast" else [made]
    return users


def _read(of: Instruction, users: Sequence[Instruction]) -> int:
    """Returns the bytes of a value that its users read."""
    if users and all(user.opcode in ("slice", "dynamic-slice", "gather") for user in users):
        return min(of.bytes, sum(user.bytes for user in users))
    if users and all(
        user.opcode == "dynamic-update-slice" and user.operands[:1] == [of.name] for user in users
    ):
        return 0
    return of.bytes


def _written(made: Instruction, known: Mapping[str, Instruction]) -> int:
    """Returns the bytes of a result that are written."""
    if made.opcode == "dynamic-update-slice" and len(made.operands) > 1:
        update = known.get(made.operands[1])
        return made.bytes if update is None else update.bytes
    return made.bytes


def _bytes(array: re.Match[str]) -> int:
    count = math.prod(map(int, filter(None, array["sizes"].split(","))))
    bits = BITS.search(array["type"])  # none for bool, "pred"; of complex numbers, all bits
    return count * (int(bits[0]) if bits else 8) // 8


def _callers(found: dict[str, Computation], name: str) -> Iterator[Instruction]:
    """Yields the instruction that calls a computation, and so on up to the entry."""
    while caller := found[name].caller:
        name, instruction = caller
        yield instruction


def _within(found: dict[str, Computation], name: str, opcode: str) -> str:
    """Returns the attributes of the enclosing call with an opcode, "" for none."""
    return next((c.rest for c in _callers(found, name) if c.opcode == opcode), "")


def _runs(found: dict[str, Computation], name: str) -> bool:
    """Returns whether a computation is run by itself, and not as a part of one operation."""
    opcodes = [caller.opcode for caller in _callers(found, name)]
    run = all(opcode in ("while", "conditional", "call") for opcode in opcodes)
    return run and bool(opcodes or found[name].entry)


def _how(made: Instruction, labels: re.Match[str], fused: str, backend: str) -> str:
    if made.library_call:
        return made.library_call
    if "__ynn_fusion" in fused:
        return "YNNPACK"
    if backend != "cpu":
        return "convolution"
    canonical = EIGEN.fullmatch(labels[0].partition("=")[2])
    return "Eigen" if canonical and "rhs_reversal" not in made.rest else "own loops"


def _physical(made: Instruction, labels: str, known: dict[str, Instruction]) -> tuple[str, str]:
    """Returns the order of the input's axes in memory, and its tiling; "" if there is none."""
    operand = known.get(next(iter(made.operands), ""))
    if operand is None or not operand.order:
        return "", ""
    letters = {"b": "N", "f": "C", "0": "H", "1": "W", "2": "D"}
    axes = [letters.get(label, label) for label in labels]
    tiling = TILING.search(operand.shape)
    order = "".join(axes[int(axis)] for axis in reversed(operand.order.split(",")))
    return order, tiling[1] if tiling else ""


def _is_product(made: Instruction) -> bool:
    return bool(re.search("cublas|gemm|matmul", made.library_call, re.IGNORECASE))


def _moves(made: Instruction, found: dict[str, Computation]) -> bool:
    """Whether an operation only moves data."""
    if made.opcode != "fusion":
        return made.opcode in MOVE_OPCODES
    called = found.get(made.refers("calls"))
    inside = {i.opcode for i in called.instructions.values()} if called else set()
    return bool(inside & MOVE_OPCODES) and inside <= MOVE_OPCODES | FREE_OPCODES


def _reorders(
    made: Instruction, known: dict[str, Instruction], found: dict[str, Computation]
) -> bool:
    """Whether an operation that moves data changes its order in memory."""
    if made.opcode == "copy":
        operand = known.get(next(iter(made.operands), ""))
        return operand is not None and operand.order != made.order
    if made.opcode == "transpose":
        return True
    inside = found[made.refers("calls")].instructions.values()
    return any(i.opcode == "transpose" for i in inside)
