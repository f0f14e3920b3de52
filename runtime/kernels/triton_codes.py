"""runtime/cache/quantize.py in Triton: the pair of a range, and the codes under it.

Operation by operation, so that the codes are equal; what appends calls these (triton_append.py,
tensor_token.py).
"""

# Triton reads annotations as argument kinds, so kernels cannot carry Python types.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def _round(x):
    # To nearest, ties to even: adding 1.5 * 2^23 leaves no bits for a fraction.
    return (x + 12582912.0) - 12582912.0


@triton.jit
def _float_codes(x):
    # Codes of e4m3, x being at 2^-8 of its scale. The quantum of a number's exponent is a power of
    # two, so that dividing by it, rounding and multiplying are exact but for the rounding meant.
    size = tl.minimum(tl.abs(x) * 256.0, 448.0)
    exponent = tl.maximum(size.to(tl.int32, bitcast=True) >> 23, 121)  # 2^-6: subnormals below
    quantum = ((exponent - 3) << 23).to(tl.float32, bitcast=True)
    inverse = ((257 - exponent) << 23).to(tl.float32, bitcast=True)
    rounded = _round(size * inverse) * quantum * 0.00390625
    code = rounded.to(tl.float16).to(tl.int16, bitcast=True).to(tl.int32) >> 7
    return code | tl.where(x < 0, 128, 0)


@triton.jit
def block_scale(largest, tensor, TABLE: tl.constexpr):
    """(byte, scale) of a block by its largest magnitude (block_scales.py); `tensor`: NVFP4's."""
    six = tl.where(largest < 0, 6.0, 6.0)  # a tensor: div_rn takes no scalar
    if TABLE == 3:
        share = tl.div_rn(tl.div_rn(largest, six), tensor + tl.zeros_like(largest))
        code = _float_codes(share * 0.00390625)
        half = (code << 7).to(tl.int16).to(tl.float16, bitcast=True)
        scale = half.to(tl.float32) * 256.0 * tensor
    else:
        bits = (largest * 1.1428571428571428).to(tl.int32, bitcast=True)
        code = tl.minimum(tl.maximum((bits >> 23) - 2, 1), 254)
        scale = (code << 23).to(tl.float32, bitcast=True)
    return code, scale


@triton.jit
def block_codes(x, scale):
    """e2m1 codes, int32, of x under its block's scale."""
    size = tl.where(scale > 0, tl.div_rn(tl.abs(x), tl.where(scale > 0, scale, 1.0) + x * 0), 0.0)
    code = (size > 0.25).to(tl.int32) + (size >= 0.75).to(tl.int32) + (size > 1.25).to(tl.int32)
    code += (size >= 1.75).to(tl.int32) + (size > 2.5).to(tl.int32) + (size >= 3.5).to(tl.int32)
    return code + (size > 5.0).to(tl.int32) + tl.where(x < 0, 8, 0)


@triton.jit
def pair_of(low, high, margin, BITS: tl.constexpr, TABLE: tl.constexpr, CLIPS: tl.constexpr):
    """(offset, scale), fp16, of a range. TABLE: formats.INTEGERS, FLOATS or TABLE."""
    levels: tl.constexpr = 1.75 if TABLE == 1 else 2**BITS - 1
    if TABLE == 1:
        high = tl.maximum(high, -low)
        low = tl.where(low < 0, 0.0, 0.0)
    if CLIPS:
        cut = (high - low) * margin
        low, high = low + cut, high - cut
    offset = tl.minimum(tl.maximum(low, -65504.0), 65504.0).to(tl.float16)
    scale = tl.minimum(tl.div_rn(high - low, tl.where(low < 0, levels, levels) * 1.0), 65504.0)
    return offset, scale.to(tl.float16)


@triton.jit
def encoded(x, offset, scale, LEVELS, BITS: tl.constexpr, TABLE: tl.constexpr):
    """Codes, int32, of x under its pair."""
    wide = scale.to(tl.float32)
    inverse = tl.where(
        wide > 0, tl.div_rn(tl.where(wide > 0, 1.0, 1.0), tl.where(wide > 0, wide, 1.0)), 0.0
    )
    level = (x - offset.to(tl.float32)) * inverse
    if TABLE == 1:
        codes = _float_codes(level)
    elif TABLE == 2:
        codes = tl.where(level > 0, 0, 0)
        for i in tl.static_range(2**BITS - 1):  # boundaries stand behind the levels
            codes += (level > tl.load(LEVELS + 2**BITS + i)).to(tl.int32)
    else:
        codes = tl.minimum(tl.maximum(_round(level), 0.0), 2**BITS - 1).to(tl.int32)
    return codes
