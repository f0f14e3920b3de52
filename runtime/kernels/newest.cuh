// A step's newest token, by the launch that attends to it: queries and keys are turned by RoPE, keys
// and values packed, to shared memory and to the cache. Arithmetic is rope_append.py's, operation by
// operation, and so are the bytes. A warp takes a head; D is a power of two.
#pragma once
#include "copy.cuh"

struct Newest {  // [sequences, heads, D] each, not turned; the last axis is dense
    const u16 *query, *key, *value;
    const u16 *cos, *sin;  // [sequences or 1, D]
    long long q_batch, q_head, k_batch, k_head, v_batch, v_head, angle_batch;
};

template <int BYTES>
INLINE void store_words(u8* to, const u8* from, int lane) {
#pragma unroll
    for (int i = lane * 4; i < BYTES; i += 128) *(u32*)(to + i) = *(const u32*)(from + i);
}

struct Channels {  // of a lane
    static constexpr int each = D / 32;
    float x[each];

    INLINE Channels(const u16* head, int lane) {
        u32 w[(each + 1) / 2];
        load<2 * each>((const u8*)(head + lane * each), w);
#pragma unroll
        for (int j = 0; j < each; j++) x[j] = j % 2 ? io_hi(w[j / 2]) : io_lo(w[j / 2]);
    }

    // Halves turned against each other, rounded to 16 bits.
    INLINE void turn(const Channels& cos, const Channels& sin, int lane) {
#pragma unroll
        for (int j = 0; j < each; j++) {
            const float other = __shfl_xor_sync(~0u, x[j], 16);
            const float y = __fadd_rn(__fmul_rn(x[j], cos.x[j]), __fmul_rn(lane < 16 ? -other : other, sin.x[j]));
            x[j] = io_lo(pack_io(y, 0.f));
        }
    }

    INLINE void write(u16* head, int lane) const {
#pragma unroll
        for (int j = 0; j < each; j++) head[lane * each + j] = (u16)pack_io(x[j], 0.f);
    }

    // Codes, and a pair for each WIDTH channels, to shared memory and, where `position` is not
    // negative, to the token's slot of `side`.
    template <int BITS, int WIDTH>
    INLINE void pack(u8* codes, u8* pairs, const Side& side, int position, int lane) const {
        constexpr int levels = (1 << BITS) - 1, sharers = WIDTH / each, bits = each * BITS;
        float low = x[0], high = x[0];
#pragma unroll
        for (int j = 1; j < each; j++) { low = fminf(low, x[j]); high = fmaxf(high, x[j]); }
#pragma unroll
        for (int d = 1; d < sharers; d *= 2) {
            low = fminf(low, __shfl_xor_sync(~0u, low, d));
            high = fmaxf(high, __shfl_xor_sync(~0u, high, d));
        }
        const u32 pair = pack_f16(fminf(__fdiv_rn(__fsub_rn(high, low), (float)levels), 65504.f), fminf(fmaxf(low, -65504.f), 65504.f));
        const float scale = f16_lo(pair), offset = f16_hi(pair), inverse = scale > 0.f ? __fdiv_rn(1.f, scale) : 0.f;
        u32 code[each];
#pragma unroll
        for (int j = 0; j < each; j++) {
            const float y = __fadd_rn(__fmul_rn(__fsub_rn(x[j], offset), inverse), 12582912.f);  // to nearest, ties to even
            code[j] = (u32)fminf(fmaxf(__fsub_rn(y, 12582912.f), 0.f), (float)levels);
        }
        if constexpr (bits >= 8) {
            constexpr int per = 8 / BITS;
#pragma unroll
            for (int i = 0; i < bits / 8; i++) {
                u32 byte = 0;
#pragma unroll
                for (int j = 0; j < per; j++) byte |= code[i * per + j] << j * BITS;
                codes[lane * (bits / 8) + i] = (u8)byte;
            }
        } else {  // several lanes a byte
            u32 byte = 0;
#pragma unroll
            for (int j = 0; j < each; j++) byte |= code[j] << j * BITS;
#pragma unroll
            for (int d = 1; d < 8 / bits; d *= 2) byte |= __shfl_down_sync(~0u, byte, d) << d * bits;
            if (lane % (8 / bits) == 0) codes[lane * bits / 8] = (u8)byte;
        }
        if (lane % sharers == 0) ((u32*)pairs)[lane / sharers] = pair;
        if (position < 0) return;
        __syncwarp();
        constexpr int row_bytes = D * BITS / 8, pair_bytes = D / WIDTH * 4;
        const long long at = position % side.capacity;
        store_words<row_bytes>((u8*)side.rows + at * row_bytes, codes, lane);
        store_words<pair_bytes>((u8*)side.pairs + at * pair_bytes, pairs, lane);
    }
};
