// Codes as operands of the tensor cores: tile.cu, ring.cu, sweep.cu and wide.cu.
#pragma once
#include "common.cuh"

INLINE u32 minus(u32 a, u32 b) {  // pairs of small whole numbers: exact
    u32 d;
    if (HALF) asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    else asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(b), "r"(0xbf80bf80u), "r"(a));  // b * -1 + a
    return d;
}
INLINE void mma(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    mma<!HALF>(c, a0, a1, a2, a3, b0, b1);
}

// The bits of 128 as bfloat16, of 1024 as float16: their last bit counts 1, so a code in the low
// bits adds itself.
#define WHOLE (HALF ? 0x64006400u : 0x43004300u)

INLINE u32 masked(u32 pair, u32 mask) {  // with WHOLE: one instruction
    u32 d;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(pair), "r"(mask), "r"(WHOLE));
    return d;
}
// 4-bit codes 2p and 2p + 1 of a word as a pair of whole numbers; `zero` is their zero point + WHOLE.
INLINE u32 whole4(u32 word, int p, u32 zero) {
    u32 pair;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(pair) : "r"(word), "r"(word >> 4), "r"(0x4400 + 0x1111 * p));
    return minus(masked(pair, 0x000f000fu), zero);
}
