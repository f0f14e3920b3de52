"""Quantized checkpoints that the runtime reads: AWQ's as stored, others as their 16-bit weights.

Codes of 8 bits with a scale a tensor, channel or block (DeepSeek-V3's fp8, compressed-tensors,
fbgemm, modelopt) and gpt-oss's MXFP4 are dequantized while they are loaded: w16 are the values that
the checkpoint stands for, w8 and w4 are these, rounded anew. runtime/weights/dequantize.py reads
the files.
"""

from dataclasses import replace

from ...formats.configuration import Configuration
from ...formats.weight_format import MatrixFormat
from ...models.spec import CheckpointQuantization, ModelSpec

AS_STORED = ("awq",)
_OF_EIGHT_BITS = ("fp8", "fbgemm_fp8", "compressed-tensors", "modelopt")
_OF_FOUR_BITS = ("mxfp4",)


def reads(quantization: CheckpointQuantization) -> bool:
    """Whether the runtime loads a checkpoint so quantized."""
    return quantization.method in AS_STORED or dequantizes(quantization)


def dequantizes(quantization: CheckpointQuantization) -> bool:
    """Whether the runtime loads it as 16-bit weights."""
    formats = [rule.format for rule in quantization.rules if rule.format is not None]
    if quantization.method in _OF_FOUR_BITS:
        return True
    return quantization.method in _OF_EIGHT_BITS and all(map(_is_plain_eight, formats))


def _is_plain_eight(stored: MatrixFormat) -> bool:
    """One code a byte, and scales that multiply it, with no order or scale of inputs beside."""
    plain = stored.bits == 8 and stored.word_bytes == 1 and not stored.index_bytes
    return plain and stored.scale_bytes > 1


def as_dequantized(spec: ModelSpec) -> ModelSpec:
    """The model whose weights are run or rounded: of a checkpoint that is dequantized, that of its
    16-bit weights; any other as it is."""
    if spec.quantization is None or not dequantizes(spec.quantization):
        return spec
    return replace(spec, quantization=None, stored_weight_bytes=None)


def weights_note(spec: ModelSpec, config: Configuration) -> tuple[str, ...]:
    """What became of a checkpoint's own format."""
    own = spec.quantization
    if own is None or own.bits >= 16 or not dequantizes(own):
        return ()
    method, bits = own.method, config.weight_bits
    done = "dequantized to 16 bits"
    if bits < 16:
        done += f", then rounded to the nearest of {bits}"
    return (f"the checkpoint's {method} weights are {done} while they are loaded",)
