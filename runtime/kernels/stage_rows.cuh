// Rows of a packed cache read for staging: eight channels of any position, in 16 bits.
#pragma once
#include "instructions.cuh"

struct StageSide {
    const u32* values;
    const u32* pairs;
    const u16 *residual, *sinks;
    u16* out;             // [parts, H, part_rows, D]
    int capacity, residual_rows, sink_rows, buffered, block;
    const float* levels;
};

// A place in a ring of n rows.
INLINE int wrapped(int place, int n) { return place < n ? place : place % n; }

template <int TABLE>
INLINE float level(const StageSide& s, u32 code) {
    if constexpr (TABLE == 1) return f16_lo((code & 127) << 7 | (code & 128) << 8);
    else if constexpr (TABLE == 2) return s.levels[code];
    else if constexpr (TABLE > 2) return f16_lo((code & 7) << 9 | (code & 8) << 12) * 16384.f;
    else return (float)code;
}

// Scale of a block of e2m1 codes: e4m3 times the head's own, or a power of two.
template <int TABLE>
INLINE float block_scale(const StageSide& s, int head, long long at) {
    const u32 byte = ((const u8*)s.pairs)[at];
    if constexpr (TABLE == 3) return f16_lo(byte << 7) * 256.f * s.levels[head];
    else return __uint_as_float(byte << 23);
}

// Eight channels of one packed slot: 16 bytes out.
template <int BITS, int EXTRA, int TABLE, int WIDTH, int TOKENS, bool CHANNELS, bool TENSOR>
INLINE uint4 eight_packed(const StageSide& s, int head, int heads, int slot, int channel) {
    const u8* codes = (const u8*)s.values + ((long long)head * s.capacity + slot) * (D * (BITS + EXTRA) / 8);
    u32 w[2] = {0, 0}, more = 0;
    load<BITS>(codes + channel * BITS / 8, w);
    if constexpr (EXTRA > 0) load<EXTRA>(codes + D * BITS / 8 + channel * EXTRA / 8, &more);
    u32 pair[8];
    float block = 0.f;
    if constexpr (TABLE > 2) {
        block = block_scale<TABLE>(s, head, ((long long)head * s.capacity + slot) * ((D + WIDTH - 1) / WIDTH) + channel / WIDTH);
    } else if constexpr (CHANNELS) {
        const u32* from = s.pairs + ((long long)head * (s.capacity / TOKENS) + slot / TOKENS) * D + channel;
        load<16>((const u8*)from, pair);
        load<16>((const u8*)(from + 4), pair + 4);
    } else {
        const long long tile = (long long)head * (s.capacity / TOKENS) + slot / TOKENS;
        const u32 one = TENSOR ? s.pairs[(long long)(head / heads) * s.capacity + slot]
                               : s.pairs[tile * ((D + WIDTH - 1) / WIDTH) + channel / WIDTH];
#pragma unroll
        for (int i = 0; i < 8; i++) pair[i] = one;
    }
    float x[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        u32 code = w[i * BITS / 32] >> (i * BITS % 32) & ((1u << BITS % 32) - 1);
        if constexpr (EXTRA > 0) code |= (more >> (i * EXTRA) & ((1u << EXTRA) - 1)) << BITS;
        if constexpr (TABLE > 2) x[i] = level<TABLE>(s, code) * block;
        else x[i] = __fadd_rn(__fmul_rn(level<TABLE>(s, code), f16_lo(pair[i])), f16_hi(pair[i]));
    }
    return {pack_io(x[0], x[1]), pack_io(x[2], x[3]), pack_io(x[4], x[5]), pack_io(x[6], x[7])};
}

// The same of any position.
template <int BITS, int EXTRA, int TABLE, int WIDTH, int TOKENS, bool CHANNELS, bool TENSOR>
INLINE uint4 eight(const StageSide& s, int head, int heads, int position, int settled, int channel) {
    if constexpr (BITS == 16)
        return *(const uint4*)((const u16*)s.values + ((long long)head * s.capacity + wrapped(position, s.capacity)) * D + channel);
    else {
        const int row = position - s.sink_rows;
        if (row < 0) return *(const uint4*)(s.sinks + ((long long)head * s.sink_rows + position) * D + channel);
        if (row >= settled) return *(const uint4*)(s.residual + ((long long)head * s.residual_rows + wrapped(row, s.residual_rows)) * D + channel);
        return eight_packed<BITS, EXTRA, TABLE, WIDTH, TOKENS, CHANNELS, TENSOR>(s, head, heads, wrapped(row, s.capacity), channel);
    }
}
