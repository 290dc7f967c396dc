"""What `compiled.memory_analysis()` and `cost_analysis()` do not report, read from the HLO text.

These are the collectives, and the traffic between HBM and chip. The analyses have "bytes accessed",
but this also counts arrays in on-chip memory. Measured for one v5e chip with libtpu 0.0.42, in MiB:

                                           arguments + results  hbm_bytes  "bytes accessed"
    8 dense layers, 512 x 1024                              18         18                72
    6 convolutions, 16 x 32 x 32 x 128                     9.7        9.7                96
    6 convolutions, 256 x 64 x 64 x 128                    514       4098              5640

The activations of the first two fit into on-chip memory, those of the third do not.
"""

import math
import re
from collections.abc import Mapping

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f8": 8, "s4": 4, "u4": 4}
# %name = TYPE[DIMS]{LAYOUT} KIND(...), channel_id=N; TYPE is a tuple if several are combined.
_COLLECTIVE = re.compile(
    r"^\s*(?:ROOT )?%?[\w.-]+ = (?P<type>.+?) (?P<kind>" + "|".join(KINDS) + r")(?:-start)?\("
)
_ARRAY = re.compile(r"\b(pred|bf16|f8\w*|[fsuc]\d+)\[([\d,]*)\](\{[^}]*\})?")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_OPERATION = re.compile(
    r"^\s*(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<type>.+?) (?P<op>[a-z][\w-]*)\((?P<rest>.*)"
)
_MOVES_NOTHING = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "while"}
_FUSED_SCATTER = re.compile(r"^%?all-reduce-scatter[\w.]* \(")


def collectives(text: str) -> dict[str, tuple[int, int]]:
    """Counts the collectives of an HLO module.

    Bytes are those of the whole array: the result of an all-gather, the operand of an all-reduce
    or a reduce-scatter. The body of a loop counts once. The compiler may write one collective
    several times (the parts of an asynchronous one share a channel), and it writes a reduce-scatter
    as an all-reduce in a computation of that name.

    Returns:
      {kind: (number, bytes)}, per chip and run.
    """
    found: dict[str, list[int]] = {}
    seen, in_scatter = set(), False
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            in_scatter = bool(_FUSED_SCATTER.match(line))
        match = _COLLECTIVE.match(line)
        if not match:
            continue
        channel = _CHANNEL.search(line)
        if channel and channel[1] in seen:
            continue
        if channel:
            seen.add(channel[1])
        kind = match["kind"]
        sizes = [_num_bytes(*array[:2]) for array in _ARRAY.findall(match["type"])]
        if in_scatter and kind == "all-reduce":
            kind = "reduce-scatter"
        # The start of an asynchronous collective lists its operands beside its results.
        size = max(sizes, default=0) if "-start(" in line else sum(sizes)
        entry = found.setdefault(kind, [0, 0])
        entry[0] += 1
        entry[1] += size
    return {kind: tuple(found[kind]) for kind in KINDS if kind in found}


def bytes_sent(counted: Mapping[str, tuple[int, int]]) -> float:
    """Returns the bytes that each chip sends: an all-reduce sends its array twice."""
    return sum(size * (2 if kind == "all-reduce" else 1) for kind, (_, size) in counted.items())


def hbm_bytes(text: str) -> float:
    """Returns the bytes that a scheduled module moves between HBM and chip, per run.

    Operands and results of every operation count if they lie in HBM (on-chip memory is space 1 of
    a layout), and a copy between the two memories counts once. The body of a loop counts once. An
    operation that reads only a part of an operand counts the whole, so this is an upper bound.
    """
    bodies = set(re.findall(r"\bbody=%?([\w.-]+)", text))
    total, inside, sizes = 0.0, False, {}
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            name = line.removeprefix("ENTRY ").lstrip("%").split(" ")[0]
            inside, sizes = line.startswith("ENTRY ") or name in bodies, {}
            continue
        match = _OPERATION.match(line) if inside else None
        if not match:
            continue
        arrays = [(_num_bytes(kind, dims), "S(1)" in layout)
                  for kind, dims, layout in _ARRAY.findall(match["type"])]  # fmt: skip
        sizes[match["name"]] = sum(size for size, on_chip in arrays if not on_chip)
        op = match["op"]
        if op in _MOVES_NOTHING or op.endswith("-start"):
            continue
        if op.endswith("-done"):
            total += sum(size for size, _ in arrays)
            continue
        operands = re.findall(r"%([\w.-]+)", match["rest"].split("), ")[0])
        total += sizes[match["name"]] + sum(sizes.get(operand, 0) for operand in operands)
    return total


def _num_bytes(kind: str, dims: str) -> int:
    bits = _BITS.get(kind[:2] if kind.startswith("f8") else kind) or int(re.sub(r"\D", "", kind))
    return math.prod(int(n) for n in dims.split(",") if n) * bits // 8
