// Which channels of a packed row a lane takes, how codes become operands, and the query that fits.
#pragma once
#include "instructions.cuh"

#define LOG2E 1.4426950408889634f

// How a row of D codes of BITS bits, in groups of WIDTH channels, is dealt to LANES lanes: in
// each group a lane takes pieces of contiguous bytes, MOST at most.
template <int BITS, int WIDTH, int LANES, int MOST = 16>
struct Deal {
    static constexpr int groups = D / WIDTH;
    static constexpr int lane_bytes = WIDTH * BITS / 8 / LANES;         // of one group
    static constexpr int whole = lane_bytes & -lane_bytes;              // largest power of two in it
    static constexpr int piece = whole < MOST ? whole : MOST;
    static constexpr int pieces = lane_bytes / piece;                   // in one group
    static constexpr int words = piece < 4 ? 1 : piece / 4;             // in one piece
    static constexpr int group_words = pieces * words;
    static constexpr int row_words = groups * group_words;
    static constexpr int codes = (piece < 4 ? piece : 4) * 8 / BITS;    // in one word
    static constexpr int row_bytes = D * BITS / 8;

    INLINE static void fetch(const u8* row, int lane, u32* w) {
#pragma unroll
        for (int i = 0; i < groups * pieces; i++)
            load<piece>(row + (i * LANES + lane) * piece, w + i * words);
    }
    // Channel of code 0 of word w of a lane.
    INLINE static int channel(int w, int lane) {
        return ((w / words * LANES + lane) * piece + w % words * 4) * 8 / BITS;
    }
};

// Code j of each 16-bit half of x as float16 code * 2^(shift - 24), shift = lift<BITS>(j).
template <int BITS> constexpr __device__ int lift(int j) { return BITS == 4 ? (j & 1) * 4 : BITS == 2 ? (j & 3) * 2 : 0; }
template <int BITS>
INLINE u32 field(u32 x, int j) {
    if (BITS == 16) return x;
    if (BITS == 8) return (j ? x >> 8 : x) & 0x00ff00ffu;
    if (BITS == 4) return (j >= 2 ? x >> 8 : x) & (0x000f000fu << (j & 1) * 4);
    return (j >= 4 ? x >> 8 : x) & (0x00030003u << (j & 3) * 2);
}
// A piece of two bytes: to the low bytes of two halves.
template <int PIECE> INLINE u32 spread(u32 w) { return PIECE == 2 ? prmt(w, 0, 0x4140) : w; }

// Queries as the B operand that fits keys dealt as K, and what folds out of the products.
template <class K, int BITS, int WIDTH, bool CHANNELS>
struct Query {
    u32 q[D / 16][2];
    float factor[2];                 // of heads 2t, 2t + 1: product -> score in log2 units
    float sum[2][D / WIDTH];         // sum over a group's channels, in score units

    INLINE void read(const u16* heads, float scaling, int lane) {
        const int g = lane >> 2, t = lane & 3;
        const u16* head = heads + (g < GROUP ? g : 0) * D;
        const float real = g < GROUP ? 1.f : 0.f;
        float x[D / 4], top = 0.f, total[D / WIDTH];
        constexpr int pairs = K::codes / 2;
#pragma unroll
        for (int w = 0; w < K::row_words; w++)
#pragma unroll
            for (int j = 0; j < K::codes; j += 2) {
                const u32 bits = *(const u32*)(head + K::channel(w, t) + j);
                x[w * K::codes + j] = real * io_lo(bits);
                x[w * K::codes + j + 1] = real * io_hi(bits);
                top = fmaxf(top, fmaxf(fabsf(x[w * K::codes + j]), fabsf(x[w * K::codes + j + 1])));
            }
#pragma unroll
        for (int i = 0; i < D / WIDTH; i++) {
            total[i] = 0.f;
#pragma unroll
            for (int c = 0; c < WIDTH / 4; c++) total[i] += x[i * (WIDTH / 4) + c];
            total[i] += __shfl_xor_sync(~0u, total[i], 1);
            total[i] += __shfl_xor_sync(~0u, total[i], 2);
        }
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        // float16 holds the query exactly once its largest entry is near the top of the range.
        int k = 0;
        if (BITS < 16 && top > 0.f) k = (CHANNELS ? 6 : 13) + 127 - (__float_as_int(top) >> 23);
        k = max(-100, min(100, k));
        const float up = power_of_two(k);
#pragma unroll
        for (int w = 0; w < K::row_words; w++)
#pragma unroll
            for (int j = 0; j < pairs; j++) {
                const int p = w * pairs + j;
                const float a = x[w * K::codes + j], b = x[w * K::codes + j + pairs];
                const float down = CHANNELS ? up : up * power_of_two(-lift<BITS>(j));
                q[p / 2][p % 2] = BITS == 16 ? pack_io(a, b) : pack_f16(a * down, b * down);
            }
#pragma unroll
        for (int c = 0; c < 2; c++) {
            const int from = (2 * t + c) * 4;
            const float ups = __shfl_sync(~0u, power_of_two(-k), from);
            factor[c] = scaling * LOG2E * ups * (BITS == 16 ? 1.f : 16777216.f);
#pragma unroll
            for (int i = 0; i < D / WIDTH; i++) sum[c][i] = scaling * LOG2E * __shfl_sync(~0u, total[i], from);
        }
    }
};
