// Staging for a library's attention: packed rows written out in 16 bits, and its results merged.
//
// Compiled at run time by NVRTC, with decode.cu's names for the format: D, KB VB, KG VG, KT VT,
// KC, K_TENSOR V_TENSOR, HALF; KX VX are bits of the codes' second part, K_TABLE V_TABLE what codes
// stand for: 0 themselves, 1 e4m3, 2 levels. A division costs as much as unpacking two channels: rings are
// wrapped only where they wrap, and a part of a segment is a grid index, not a quotient.
#include "instructions.cuh"

struct StageSide {
    const u32* values;
    const u32* pairs;
    const u16 *residual, *sinks;
    u16* out;             // [parts, H, part_rows, D]
    int capacity, residual_rows, sink_rows, buffered, block;
    const float* levels;
};

struct StageArgs {
    StageSide k, v;
    const int* clock;
    int heads, batch_heads, first, part_rows;
};

// A place in a ring of n rows.
INLINE int wrapped(int place, int n) { return place < n ? place : place % n; }

template <int TABLE>
INLINE float level(const StageSide& s, u32 code) {
    if constexpr (TABLE == 1) return f16_lo((code & 127) << 7 | (code & 128) << 8);
    else if constexpr (TABLE == 2) return s.levels[code];
    else return (float)code;
}

// Eight channels of one position: 16 bytes out.
template <int BITS, int EXTRA, int TABLE, int WIDTH, int TOKENS, bool CHANNELS, bool TENSOR>
INLINE uint4 eight(const StageSide& s, int head, int heads, int position, int settled, int channel) {
    if constexpr (BITS == 16)
        return *(const uint4*)((const u16*)s.values + ((long long)head * s.capacity + wrapped(position, s.capacity)) * D + channel);
    else {
        const int row = position - s.sink_rows;
        if (row < 0) return *(const uint4*)(s.sinks + ((long long)head * s.sink_rows + position) * D + channel);
        if (row >= settled) return *(const uint4*)(s.residual + ((long long)head * s.residual_rows + wrapped(row, s.residual_rows)) * D + channel);
        const int slot = wrapped(row, s.capacity);
        const u8* codes = (const u8*)s.values + ((long long)head * s.capacity + slot) * (D * (BITS + EXTRA) / 8);
        u32 w[2] = {0, 0}, more = 0;
        load<BITS>(codes + channel * BITS / 8, w);
        if constexpr (EXTRA > 0) load<EXTRA>(codes + D * BITS / 8 + channel * EXTRA / 8, &more);
        u32 pair[8];
        if constexpr (CHANNELS) {
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
            x[i] = __fadd_rn(__fmul_rn(level<TABLE>(s, code), f16_lo(pair[i])), f16_hi(pair[i]));
        }
        return {pack_io(x[0], x[1]), pack_io(x[2], x[3]), pack_io(x[4], x[5]), pack_io(x[6], x[7])};
    }
}

template <int BITS, int EXTRA, int TABLE, int WIDTH, int TOKENS, bool CHANNELS, bool TENSOR>
INLINE void stage_side(const StageSide& s, const StageArgs& a) {
    constexpr int pieces = D / 8;
    const int head = blockIdx.y, part = blockIdx.z / 2;
    const int settled = max(0, *a.clock - s.sink_rows - s.buffered) / s.block * s.block;
    const int first = a.first + part * a.part_rows;
    u16* out = s.out + ((long long)part * a.batch_heads + head) * a.part_rows * D;
#pragma unroll 4
    for (int i = 0; i < 4; i++) {
        const int at = (blockIdx.x * 4 + i) * blockDim.x + threadIdx.x, token = at / pieces, channel = at % pieces * 8;
        if (token >= a.part_rows) return;
        *(uint4*)(out + (long long)token * D + channel) = eight<BITS, EXTRA, TABLE, WIDTH, TOKENS, CHANNELS, TENSOR>(s, head, a.heads, first + token, settled, channel);
    }
}

extern "C" __global__ void __launch_bounds__(256) stage(const StageArgs a) {
    if (blockIdx.z % 2 == 0) stage_side<KB, KX, K_TABLE, KG, KT, KC, K_TENSOR>(a.k, a);
    else stage_side<VB, VX, V_TABLE, VG, VT, false, V_TENSOR>(a.v, a);
}

struct MergeArgs {
    float* sums;           // [H, n, D]: the mix of what came so far, a weighted mean
    const float* before;   // [H, n]: its log-sum-exp
    float* after;
    const u16* part;       // the segment's results; strides of part, head and query
    const float* lse;      // [parts, H, n]
    u16* out;
    const float* logits;   // one sink logit a head, or null
    long long part_stride, head_stride, query_stride;
    int heads, queries, parts, is_first, is_last;
};

extern "C" __global__ void __launch_bounds__(256) merge(const MergeArgs a) {
    constexpr int pieces = D / 8;
    const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x, row = at / pieces;
    const int channel = at % pieces * 8;
    if (row >= (long long)a.heads * a.queries) return;
    const int head = row / a.queries, query = row % a.queries;
    float x[8], top = -1e30f, norm = 0.f;
    float4* sums = (float4*)(a.sums + row * D + channel);
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = 0.f;
    if (!a.is_first) {
        const float4 low = sums[0], high = sums[1];
        x[0] = low.x; x[1] = low.y; x[2] = low.z; x[3] = low.w;
        x[4] = high.x; x[5] = high.y; x[6] = high.z; x[7] = high.w;
        top = a.before[row];
        norm = 1.f;
    }
    for (int p = 0; p < a.parts; p++) {
        const float lse = a.lse[(long long)p * a.heads * a.queries + row], next = fmaxf(top, lse);
        const float old = ex2((top - next) * 1.4426950408889634f), more = ex2((lse - next) * 1.4426950408889634f);
        const uint4 y = *(const uint4*)(a.part + p * a.part_stride + head * a.head_stride + query * a.query_stride + channel);
        const u32 words[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x[2 * i] = x[2 * i] * old + io_lo(words[i]) * more;
            x[2 * i + 1] = x[2 * i + 1] * old + io_hi(words[i]) * more;
        }
        norm = norm * old + more;
        top = next;
    }
    const float lse = top + lg2(norm) * 0.6931471805599453f;
    float scale = 1.f / norm;
    if (a.is_last && a.logits) scale /= 1.f + ex2((a.logits[head] - lse) * 1.4426950408889634f);
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] *= scale;
    if (a.is_last) {
        *(uint4*)(a.out + row * D + channel) = {pack_io(x[0], x[1]), pack_io(x[2], x[3]), pack_io(x[4], x[5]), pack_io(x[6], x[7])};
        return;
    }
    sums[0] = {x[0], x[1], x[2], x[3]};
    sums[1] = {x[4], x[5], x[6], x[7]};
    if (channel == 0) a.after[row] = lse;
}
