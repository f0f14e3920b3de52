"""How one quantized weight matrix is stored: codes, scales, zero points and indices.

Every format in use is the same thing with other numbers: codes of a few bits; one scale for
each tile of rows x columns; perhaps a zero point beside each scale; perhaps an index for each
input channel; perhaps a few constants for the whole matrix. A matrix is (out, in) as in
`torch.nn.Linear`: rows are output channels, columns input channels.
"""

from dataclasses import replace

from ..light_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class MatrixFormat:
    """Storage of one (out, in) matrix; the bytes of each tensor that a checkpoint would hold.

    `tile_rows`, `tile_columns`: weights that share a scale; 0 means all of them.
    `zero_bits`: bits of the zero point beside each scale, packed along the output channels
    into int32 words (AWQ, GPTQ) or, for 16, plain; 0 means symmetric.
    `nested`: the fp32 scales are themselves 8-bit codes in blocks of 256 (bitsandbytes).
    """

    name: str
    bits: int
    tile_rows: int
    tile_columns: int
    scale_bytes: int
    zero_bits: int = 0
    index_bytes: int = 0
    """Bytes for each input channel (GPTQ's g_idx)."""
    constant_bytes: int = 0
    """Bytes for each matrix: second-level scales, activation scales, the shape tensor."""
    word_bytes: int = 1
    """Codes of one row are padded to whole words of this many bytes."""
    nested: bool = False
    input_multiple: int = 1
    output_multiple: int = 1
    """A matrix whose sizes are no multiples of these cannot be stored so."""
    padding: int = 0
    """Inputs that are no multiple are stored with zeros behind them, where these are at most one
    for so many inputs; 0: never."""

    def fits(self, outputs: int, inputs: int) -> bool:
        zeros = inputs // self.padding if self.padding else 0
        return outputs % self.output_multiple == 0 and -inputs % self.input_multiple <= zeros

    def padded(self, inputs: int) -> int:
        """Inputs as they are stored, of a matrix that fits."""
        return inputs + (-inputs % self.input_multiple if self.padding else 0)

    def tiles(self, outputs: int, inputs: int) -> int:
        """Scales of one matrix."""
        rows = -(-outputs // (self.tile_rows or outputs))
        columns = -(-inputs // (self.tile_columns or inputs))
        return rows * columns

    def nbytes(self, outputs: int, inputs: int) -> int:
        """Bytes of one matrix: codes, scales, zeros, indices and constants."""
        inputs = self.padded(inputs)
        tiles = self.tiles(outputs, inputs)
        word = 8 * self.word_bytes
        codes = outputs * -(-inputs * self.bits // word) * self.word_bytes
        scales = tiles * self.scale_bytes
        if self.nested:
            scales = tiles + 4 * -(-tiles // 256)
        if self.zero_bits == 16:
            zeros = 2 * tiles
        else:
            columns = -(-inputs // (self.tile_columns or inputs))
            zeros = columns * -(-outputs * self.zero_bits // 32) * 4
        return codes + scales + zeros + self.index_bytes * inputs + self.constant_bytes


AWQ = MatrixFormat(
    "AWQ 4-bit, group 128, fp16 scales, packed zeros",
    bits=4,
    tile_rows=1,
    tile_columns=128,
    scale_bytes=2,
    zero_bits=4,
    word_bytes=4,
    input_multiple=128,
    output_multiple=8,
)
"""AWQ's "gemm" checkpoint: qweight int32 [in, out/8], qzeros int32 [in/128, out/8], scales fp16
[in/128, out]."""

W4 = replace(AWQ, padding=16)
"""What w4 means: the same bytes. A matrix of 2,880 inputs (gpt-oss) takes those of 2,944: a
sixteenth more at most, where 16 bits would take four times as many."""

INT8 = MatrixFormat(
    "int8, one fp16 scale an output channel", bits=8, tile_rows=1, tile_columns=0, scale_bytes=2
)
"""What w8 means: int8 [out, in] and fp16 [out, 1]."""
