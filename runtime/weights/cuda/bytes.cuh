// Products of whole numbers: stream.cu and parts.cu. Codes are bytes, two instructions for four of
// them; x (whole.cuh) has its upper and its lower byte in two columns of one product.
#pragma once
#include "common.cuh"
#include "whole.cuh"

#define SLOTS (2 * ROWS)

INLINE void multiply_bytes(int (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
INLINE u32 codes(u32 word, int b) { return (b ? word >> 4 : word) & 0x0f0f0f0fu; }  // of inputs 32 p + 2 r + b
template <int BYTE> INLINE u32 bytes_of(const u32 (&v)[4]) {
    return __byte_perm(__byte_perm(v[0], v[1], BYTE | (BYTE + 4) << 4), __byte_perm(v[2], v[3], BYTE | (BYTE + 4) << 4), 0x5410);
}
INLINE int sum_of_bytes(u32 upper, u32 lower) { return 256 * __dp4a(int(upper), 0x01010101, 0) + __dp4a(int(lower), 0x01010101, 0); }

INLINE void copy16(u32 to, const void* from) { asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory"); }
INLINE void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Four inputs of each plane: inputs 32 plane + 4 i + k.
struct Sixteen {
    uint2 pairs[4];
    INLINE void load(const u16* x, int i) {
        const uint2* from = reinterpret_cast<const uint2*>(x) + i;
#pragma unroll
        for (int plane = 0; plane < 4; plane++) pairs[plane] = from[plane * 8];
    }
};
// Eight threads that follow each other take a row of a unit, thread i of them `x`; all of a warp call.
INLINE void to_whole(const Sixteen& from, int i, int row, uint4* unit, int2* measure, bool keeps) {
    float x[4][4];
    int most = 0;
#pragma unroll
    for (int plane = 0; plane < 4; plane++) {
        x[0][plane] = low<HALF>(from.pairs[plane].x); x[1][plane] = high<HALF>(from.pairs[plane].x);
        x[2][plane] = low<HALF>(from.pairs[plane].y); x[3][plane] = high<HALF>(from.pairs[plane].y);
    }
#pragma unroll
    for (int k = 0; k < 16; k++) most = max(most, __float_as_int(fabsf(x[k / 4][k % 4])));
#pragma unroll
    for (int mask = 1; mask < 8; mask *= 2) most = max(most, __shfl_xor_sync(~0u, most, mask));
    const int exponent = exponent_of(most);
    const float steps = steps_of_one(exponent);
    u32 upper[4], lower[4];
    int sum = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        u32 v[4];
#pragma unroll
        for (int plane = 0; plane < 4; plane++) v[plane] = whole(x[k][plane], steps);
        upper[k] = bytes_of<1>(v);
        lower[k] = bytes_of<0>(v) ^ 0x80808080u;
        sum += sum_of_bytes(upper[k], lower[k]);
    }
#pragma unroll
    for (int mask = 1; mask < 8; mask *= 2) sum += __shfl_xor_sync(~0u, sum, mask);
    if (!keeps) return;
    // Words 2i and 2i + 1 of 16: thread i / 2's, its first or second half.
    uint2* to = reinterpret_cast<uint2*>(unit + 2 * row * 4 + i / 2) + i % 2;
    to[0] = {upper[0], upper[2]};
    to[8] = {lower[0], lower[2]};
    to[SLOTS * 8] = {upper[1], upper[3]};
    to[SLOTS * 8 + 8] = {lower[1], lower[3]};
    if (i == 0) *measure = measure_of(exponent, sum);
}
