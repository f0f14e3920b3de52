"""The rates that a GPU reaches: its datasheet's, times efficiencies."""

import numpy as np

from ..hardware.gpus import Hardware
from .attention_group import Number
from .efficiency import Coefficients

HOPPER = ("H100", "H200", "H800", "H20")
"""In the names of the GPUs that have its instructions."""


class Card:
    """The rates a GPU reaches: datasheet x efficiency."""

    def __init__(self, hardware: Hardware, coefficients: Coefficients) -> None:
        self.c = coefficients
        self.dense = hardware.fp16_flops
        self.matmul = hardware.fp16_flops * coefficients.matmul
        self.stream = hardware.bandwidth * coefficients.stream
        self.attention = hardware.fp16_flops * coefficients.attention
        self.masked = hardware.fp16_flops * coefficients.attention_masked
        self.packed = hardware.fp16_flops * coefficients.attention_packed
        self.hopper = any(chip in hardware.name for chip in HOPPER)
        self.eight = (hardware.fp8_flops or 0.0) * coefficients.attention_eight * self.hopper
        eight_bits = (hardware.fp8_flops or 0.0) * self.hopper
        self.matmul_eight = eight_bits * coefficients.matmul_eight
        self.tiled = hardware.fp16_flops * coefficients.attention_tiled
        self.tiled_packed = self.tiled * coefficients.tiled_packed
        self.few_rows = hardware.fp16_flops * coefficients.few_rows
        self.parts_rows = hardware.fp16_flops * coefficients.parts_rows
        self.wide_rows = hardware.fp16_flops * coefficients.wide_rows
        # A faster card needs more query rows to be full.
        self.fill_rows = coefficients.fill_rows * hardware.fp16_flops / 989.4e12

    def filled(self, rows: Number) -> Number:
        """The part of the card that so many query rows keep busy."""
        return np.minimum(1.0, rows / self.fill_rows)
