"""How a product of 5 to 16 rows is cut for the blocks and warps of parts.cu: the kernel's launches
take their cuts from here, and the roofline the time of their busiest warp."""

from itertools import product as pairs_of

from ..light_dataclass import dataclass

UNIT = 128  # inputs of a tile
STRIP = 32  # its columns
PITCH = 40  # floats of a row of sums
WARPS = 16
AHEAD = 2  # tiles a warp has in flight
ROWS = (8, 16)
SPLITS = (1, 2, 4, 8)  # blocks that share the inputs of a group of strips
MEETING = 1  # tiles that a warp multiplies while blocks of a group meet
SUMS = 10_000  # bytes of a block's partial sums that are written and read in the time of a tile
READ = {8: 1.35, 16: 1.05}
"""Tiles, by rows, that a warp multiplies while all of a card read one each. MEETING, SUMS and READ:
114 cuts of sixteen products, an H200 (docs/LOG.md)."""
SLICES = (1, 2, 4, 8, 16)
MEASURE = 8  # bytes of a row of a unit: what one counts, the sum of its 128


@dataclass(frozen=True, slots=True)
class PartsCut:
    """How a product is cut: the constants of parts.cu of the same names, and groups of blocks."""

    rows: int
    splits: int
    slices: int
    warps: int
    ahead: int
    groups: int

    def strips(self, strips: int, gated: int, coarse: int) -> int:
        """Strips of the matrix that a group has at most, of `strips` of y; of these `coarse`
        belong together."""
        return -(-(strips // coarse) // self.groups) * coarse * (2 if gated else 1)

    def shared_bytes(self, inputs: int, strips: int, gated: int, coarse: int = 1) -> int:
        """What a block keeps in shared memory: x, its measures, sums of its slices."""
        units = -(-(inputs // UNIT) // self.splits)
        sums = self.slices * self.strips(strips, gated, coarse) * self.rows * PITCH * 4
        return whole_bytes(units * UNIT, self.rows) + sums

    def tiles(self, inputs: int, strips: int, gated: int, coarse: int) -> int:
        """Tiles that the busiest warp multiplies."""
        units = -(-(inputs // UNIT) // (self.splits * self.slices))
        return -(-self.strips(strips, gated, coarse) * self.slices // self.warps) * units

    def time(self, inputs: int, strips: int, gated: int, coarse: int, processors: int) -> float:
        """What the product takes, in tiles: the busiest warp's, or what the card reads, and where
        blocks meet, their sums."""
        full = inputs // UNIT * strips * (2 if gated else 1) / (processors * self.warps)
        tiles = max(float(self.tiles(inputs, strips, gated, coarse)), READ[self.rows] * full)
        if self.splits == 1:
            return tiles
        sums = self.strips(strips, gated, coarse) * STRIP * self.rows * 4
        return tiles + MEETING + sums / SUMS


def whole_bytes(inputs: int, rows: int) -> int:
    """What `rows` rows of x take in whole numbers: two bytes a number, and their measures."""
    return rows * (2 * inputs + inputs // UNIT * MEASURE)


def padded_rows(rows: int) -> int:
    """Rows that a launch of `rows` rows holds."""
    return next(n for n in ROWS if n >= rows)


def together(outputs: int, gated: int) -> int:
    """Strips of y that belong together: what is gated is made whole, in units of 128."""
    return UNIT // STRIP if gated and outputs // 2 % UNIT == 0 else 1


def cut_of(
    inputs: int, outputs: int, rows: int, gated: int, coarse: int, processors: int, room: int
) -> PartsCut | None:
    """The cut that is done first, of as few splits and slices as possible; None where none
    fits."""
    padded = padded_rows(rows)
    strips, units = outputs // STRIP // (2 if gated else 1), inputs // UNIT
    found: list[tuple[float, PartsCut]] = []
    for splits, slices in pairs_of(SPLITS, SLICES):
        if splits * slices > units:
            continue
        most = -(-(strips // coarse) // min(strips // coarse, max(1, processors // splits)))
        groups = -(-(strips // coarse) // most)  # of those that all have as many, the fewest
        cut = PartsCut(padded, splits, slices, WARPS, AHEAD, groups)
        if cut.shared_bytes(inputs, strips, gated, coarse) <= room:
            found.append((cut.time(inputs, strips, gated, coarse, processors), cut))
    return min(found, key=lambda one: one[0])[1] if found else None
