// Staging for a library's attention: packed rows written out in 16 bits, and its results merged.
//
// Compiled at run time by NVRTC, with decode.cu's names for the format: D, KB VB, KG VG, KT VT,
// KC, K_TENSOR V_TENSOR, HALF; KX VX are bits of the codes' second part, K_TABLE V_TABLE what codes
// stand for: 0 themselves, 1 e4m3, 2 levels, 3 and 4 e2m1 in blocks. A division costs as much as unpacking two channels: rings are
// wrapped only where they wrap, and a part of a segment is a grid index, not a quotient.
#include "stage_rows.cuh"

struct StageArgs {
    StageSide k, v;
    const int* clock;
    int heads, batch_heads, first, part_rows;
};

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
