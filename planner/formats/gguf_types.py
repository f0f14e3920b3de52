"""How GGUF stores numbers: the block of every ggml type, and the mixes that files are named by.

A row of a tensor is cut into blocks of `block` elements, each stored in `block_bytes` bytes:
codes, and the scales (and minima) that turn them back into numbers. The sizes are those of ggml's
block structures (ggml-common.h); a type that is not here is refused by its number. What a file is
named by (`Q4_K_M`) is a mix: one type for most tensors, others for some (planner/memory).
"""

from ..light_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class GgufType:
    """One ggml type: its name, its number in files, and the size of its blocks."""

    name: str
    number: int
    block: int
    block_bytes: int

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.block_bytes / self.block

    @property
    def quantized(self) -> bool:
        return self.block > 1

    def row_bytes(self, elements: int) -> int:
        """Bytes of a row; raises ValueError where it is no whole number of blocks."""
        blocks, rest = divmod(elements, self.block)
        if rest:
            raise ValueError(f"a row of {elements} is no multiple of {self.name}'s {self.block}")
        return blocks * self.block_bytes


def _types(text: str) -> dict[str, GgufType]:
    rows = (line.split() for line in text.strip().splitlines())
    return {name: GgufType(name, *map(int, numbers)) for name, *numbers in rows}


#       name, number, elements a block, bytes a block
GGUF_TYPES = _types("""
        F32      0    1    4
        F16      1    1    2
        Q4_0     2   32   18
        Q4_1     3   32   20
        Q5_0     6   32   22
        Q5_1     7   32   24
        Q8_0     8   32   34
        Q8_1     9   32   36
        Q2_K    10  256   84
        Q3_K    11  256  110
        Q4_K    12  256  144
        Q5_K    13  256  176
        Q6_K    14  256  210
        Q8_K    15  256  292
        IQ2_XXS 16  256   66
        IQ2_XS  17  256   74
        IQ3_XXS 18  256   98
        IQ1_S   19  256   50
        IQ4_NL  20   32   18
        IQ3_S   21  256  110
        IQ2_S   22  256   82
        IQ4_XS  23  256  136
        I8      24    1    1
        I16     25    1    2
        I32     26    1    4
        I64     27    1    8
        F64     28    1    8
        IQ1_M   29  256   56
        BF16    30    1    2
        TQ1_0   34  256   54
        TQ2_0   35  256   66
        MXFP4   39   32   17
        NVFP4   40   64   36
        Q1_0    41  128   18
        Q2_0    42   64   18
""")
BY_NUMBER = {kind.number: kind for kind in GGUF_TYPES.values()}
REMOVED = {4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8"} | {
    36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8"
}  # fmt: skip
"""Types that llama.cpp read once and reads no more."""

KV_TYPES = {
    name.lower(): GGUF_TYPES[name]
    for name in ("F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")
}
"""What llama.cpp's cache takes (-ctk, -ctv), by the names of its flags; f32 is left out."""

# Name of a mix, its number in files (general.file_type), and the type of most of its tensors.
_MIXES = [
    line.split()
    for line in """
        F32     0 F32
        F16     1 F16
        BF16    32 BF16
        Q4_0    2 Q4_0
        Q4_1    3 Q4_1
        Q5_0    8 Q5_0
        Q5_1    9 Q5_1
        Q8_0    7 Q8_0
        Q2_K    10 Q2_K
        Q2_K_S  21 Q2_K
        Q3_K_S  11 Q3_K
        Q3_K_M  12 Q3_K
        Q3_K_L  13 Q3_K
        Q4_K_S  14 Q4_K
        Q4_K_M  15 Q4_K
        Q5_K_S  16 Q5_K
        Q5_K_M  17 Q5_K
        Q6_K    18 Q6_K
        IQ1_S   24 IQ1_S
        IQ1_M   31 IQ1_M
        IQ2_XXS 19 IQ2_XXS
        IQ2_XS  20 IQ2_XS
        IQ2_S   28 IQ2_XS
        IQ2_M   29 IQ2_S
        IQ3_XXS 23 IQ3_XXS
        IQ3_XS  22 IQ3_S
        IQ3_S   26 IQ3_S
        IQ3_M   27 IQ3_S
        IQ4_NL  25 IQ4_NL
        IQ4_XS  30 IQ4_XS
        TQ1_0   36 TQ1_0
        TQ2_0   37 TQ2_0
        MXFP4_MOE 38 MXFP4
        NVFP4   39 NVFP4
        Q1_0    40 Q1_0
        Q2_0    41 Q2_0
    """.strip().splitlines()
]
MIX_NUMBERS = {int(number): name for name, number, _ in _MIXES}
MIXES = {name: GGUF_TYPES[kind] for name, _, kind in _MIXES}
"""Names that files carry -> the type that most of their tensors have."""
