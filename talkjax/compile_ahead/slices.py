"""TPU slices by their names, and the capabilities of their chips.

Figures per chip are those of Google Cloud's documentation of each generation ("System
architecture"): peak bfloat16 FLOP/s, HBM size and bandwidth, interconnect bandwidth (one way).
"""

import dataclasses
import os
import re
from typing import Any

from talkjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """The chip of one TPU generation.

    Attributes:
      flops: Peak bfloat16 FLOP/s.
      hbm: Bytes of memory that the compiler lets a program use; the rest is reserved.
      hbm_bandwidth: Bandwidth of the memory, bytes/s.
      ici_bandwidth: Bandwidth from a chip to its neighbours, all links together, bytes/s.
      axes: Number of axes of the torus, 2 or 3.
      cores: Number by which a slice's name counts a chip: v4 and v5p count two TensorCores.
    """

    flops: float
    hbm: float
    hbm_bandwidth: float
    ici_bandwidth: float
    axes: int
    cores: int


_GIB = 1 << 30
CHIPS = {
    "v4": Chip(275e12, 30.75 * _GIB, 1228e9, 300e9, 3, 2),
    "v5e": Chip(197e12, 15.75 * _GIB, 819e9, 200e9, 2, 1),
    "v5p": Chip(459e12, 95.74 * _GIB, 2765e9, 600e9, 3, 2),
    "v6e": Chip(918e12, 31.25 * _GIB, 1638e9, 400e9, 2, 1),
}
_MOST_CHIPS = {"v4": 4096, "v5e": 256, "v5p": 4096, "v6e": 256}


@dataclasses.dataclass(frozen=True)
class Slice:
    """One slice, or several equal ones.

    Attributes:
      name: Accelerator type, such as "v5e-256" or "2xv5e-256".
      generation: Key of `CHIPS`.
      topology: Number of chips along each axis of one slice.
      count: Number of slices, which the data-centre network connects.
    """

    name: str
    generation: str
    topology: tuple[int, ...]
    count: int = 1

    @property
    def chip(self) -> Chip:
        """The capabilities of one chip."""
        return CHIPS[self.generation]

    def devices(self) -> list[Any]:
        """Returns devices for a mesh; programs can be compiled for them but not run.

        Raises:
          UserError: libtpu is not installed or does not know the topology.
        """
        # Without these, libtpu asks the network what kind of TPU this machine is.
        for name, value in {
            "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4",
            "TPU_WORKER_HOSTNAMES": "localhost", "TPU_STDERR_LOG_LEVEL": "3",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is used, so none needs a lock
        }.items():  # fmt: skip
            os.environ.setdefault(name, value)
        from jax.experimental import topologies

        options: dict[str, Any] = {}
        if self.count > 1:
            options["num_slices"] = self.count
        if set(self.topology) == {1}:
            options["chips_per_host_bounds"] = (1,) * 3
        if self.generation == "v4":
            options["chip_config_name"] = "megacore"  # a chip's two cores are one device
        name = f"{self.generation}:{'x'.join(map(str, self.topology))}"
        try:
            return list(topologies.get_topology_desc(name, "tpu", **options).devices)
        except Exception as error:  # the plugin's own kinds, and RuntimeError without it
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"cannot compile for {self.name} ({reason}); this needs the extra `tpu` on Linux "
                "x86-64: `uv run --extra tpu talkjax-compile ...`"
            ) from error


def parse_slice(name: str) -> Slice:
    """Parses an accelerator type: "v5e-256", "v5p-128", "2xv5e-256".

    Raises:
      UserError: There is no such slice.
    """
    found = re.fullmatch(r"(?:(\d+)x)?(v\d+[a-z]*)-(\d+)", name)
    if not found or found[2] not in CHIPS:
        raise UserError(
            f"slice={name} is not a TPU slice; write GENERATION-SIZE with one of "
            f"{', '.join(CHIPS)}, such as v5e-256 or v5p-128 (2xv5e-256 for two slices)"
        )
    count, generation, size = int(found[1] or 1), found[2], int(found[3])
    chip = CHIPS[generation]
    chips, rest = divmod(size, chip.cores)
    least, most = (4 if chip.axes == 3 else 1), _MOST_CHIPS[generation]
    if rest or chips & (chips - 1) or not least <= chips <= most or count < 1:
        sizes = f"{least * chip.cores} to {most * chip.cores}"
        raise UserError(
            f"slice={name} does not exist; sizes of {generation} are powers of two from {sizes}"
        )
    return Slice(name, generation, _topology(chips, chip.axes), count)


def _topology(chips: int, axes: int) -> tuple[int, ...]:
    """Returns the squarest layout of a power of two: 8 -> 2x4, 64 -> 4x4x4, but 4 -> 2x2x1."""
    power = chips.bit_length() - 1
    if axes == 3 and chips == 4:
        return 2, 2, 1
    return tuple(2 ** ((power + axis) // axes) for axis in range(axes))
