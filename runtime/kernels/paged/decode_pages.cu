// Decode attention over vLLM's pages: one query token a sequence, lengths and pages read on the
// device, so that one launch serves every batch that fits the arguments (CUDA graphs).
//
// Compiled at run time by NVRTC, with decode.cu's constants D, GROUP, HALF, SOFTCAP, WARPS, TILES,
// SHARED, VG = D, and these:
//   CODE_BITS    4 or 8                     PAGE       tokens a page, a multiple of 16
//   ROTATED      1: rows are Hadamard-rotated, D is a power of two; queries and results are
//                turned here              SEQUENCES  the most sequences of a launch
//   LEAST        steps that a block takes at least
//
// Work is cut evenly over the blocks, whatever the lengths: all steps of all (sequence, head) rows
// in one line, an equal share of it to each block. A row that one block holds is finished there;
// of a row that several hold, the last to arrive merges the parts.

#include "pages.cuh"
#include "merge.cuh"

struct Args {
    const u16* q;         // [sequences, query_heads, D], rows q_stride apart
    const u8* pool;       // [pages, heads, PAGE, row]
    const int *table, *lengths;
    const float* logits;  // one sink logit a query head, or null
    u16* out;             // [sequences, query_heads, D], rows out_stride apart
    float* partial;       // [2 * gridDim.x, GROUP, D], then [2 * gridDim.x, GROUP, 2]
    int* arrived;         // [sequences * heads * head_blocks], zero before and after
    long long page_stride, head_stride, table_stride, q_stride, out_stride;
    int heads, query_heads, head_blocks, sequences, window;
    float scaling, softcap;
    u32 signs[8];         // bit c % 32 of word c / 32: channel c is negated before the rotation
};

using Rows = Pages<CODE_BITS>;
using R = Range<Rows>;

INLINE int lowest_of(const Args& a, int length) { return a.window ? max(0, length - a.window) : 0; }

INLINE int steps_of(const Args& a, int sequence) {
    const int length = __ldg(a.lengths + sequence);
    return max(1, (length - lowest_of(a, length) / R::step * R::step + R::step - 1) / R::step);
}

// ends[b]: steps of sequences 0 to b. The whole block; returns the last.
INLINE int add_up(const Args& a, int* ends) {
    __shared__ int sums[WARPS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int carry = 0;
    for (int base = 0; base < a.sequences; base += WARPS * 32) {
        const int b = base + threadIdx.x;
        int x = b < a.sequences ? steps_of(a, b) : 0;
#pragma unroll
        for (int d = 1; d < 32; d *= 2) {
            const int y = __shfl_up_sync(~0u, x, d);
            if (lane >= d) x += y;
        }
        if (lane == 31) sums[warp] = x;
        __syncthreads();
        for (int w = 0; w < warp; w++) x += sums[w];
        if (b < a.sequences) ends[b] = carry + x;
        for (int w = 0; w < WARPS; w++) carry += sums[w];
        __syncthreads();
    }
    return carry;
}

#if ROTATED
// x [D / 32] of channels lane + 32 j -> its product with the Hadamard matrix (entries 1 and -1).
INLINE void turn(float (&x)[D / 32], int lane) {
#pragma unroll
    for (int d = 1; d < D / 32; d *= 2)
#pragma unroll
        for (int j = 0; j < D / 32; j++)
            if (!(j & d)) {
                const float low = x[j], high = x[j + d];
                x[j] = low + high;
                x[j + d] = low - high;
            }
#pragma unroll
    for (int d = 1; d < 32; d *= 2)
#pragma unroll
        for (int j = 0; j < D / 32; j++) {
            const float other = __shfl_xor_sync(~0u, x[j], d);
            x[j] = lane & d ? other - x[j] : x[j] + other;
        }
}
INLINE float sign(const Args& a, int channel) { return a.signs[channel / 32] >> channel % 32 & 1 ? -1.f : 1.f; }
INLINE u16 to_io(float x) { return (u16)pack_io(x, 0.f); }
#endif

extern "C" __global__ void __launch_bounds__(WARPS * 32, 1) decode_pages(const Args a) {
    __shared__ int ends[SEQUENCES];
    __shared__ __align__(16) float mix[GROUP * D];
    __shared__ float mix_lm[GROUP * 2];
#if ROTATED
    __shared__ __align__(16) u16 turned[GROUP * D];
#endif
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, rows = a.heads * a.head_blocks;
    const int total = add_up(a, ends) * rows;
    const int share = max((total + (int)gridDim.x - 1) / (int)gridDim.x, LEAST);
    const int to = min(total, ((int)blockIdx.x + 1) * share);
    float* lms = a.partial + 2ll * gridDim.x * GROUP * D;

    for (int x = blockIdx.x * share; x < to;) {
        int b = 0, high = a.sequences - 1;  // the sequence that holds step x
        while (b < high) {
            const int middle = (b + high) / 2;
            if (ends[middle] * rows > x) high = middle; else b = middle + 1;
        }
        const int before = b ? ends[b - 1] : 0, steps = ends[b] - before;
        const int row = (x - before * rows) / steps, begin = before * rows + row * steps;
        const int from = x - begin, until = min(steps, from + to - x);
        const int head = row / a.head_blocks;
        const int first_head = head * (a.query_heads / a.heads) + row % a.head_blocks * GROUP;
        const u16* q = a.q + b * a.q_stride + (long long)first_head * D;
        __syncthreads();  // shared buffers are free
#if ROTATED
        for (int g = warp; g < GROUP; g += WARPS) {
            float y[D / 32];
#pragma unroll
            for (int j = 0; j < D / 32; j++) y[j] = io_lo(q[g * D + lane + 32 * j]) * sign(a, lane + 32 * j);
            turn(y, lane);
#pragma unroll
            for (int j = 0; j < D / 32; j++) turned[g * D + lane + 32 * j] = to_io(y[j]);
        }
        __syncthreads();
        q = turned;
#endif
        const int length = __ldg(a.lengths + b), lowest = lowest_of(a, length), origin = lowest / R::step * R::step;
        Acc acc;
        acc.clear();
        if (warp < R::warps) {
            Rows::Reader reader(a.pool + head * a.head_stride, a.table + b * a.table_stride, a.page_stride);
            R::run(acc, q, reader, origin + (from + warp) * R::step, min(length, origin + until * R::step), R::warps * R::step,
                   lowest, a.scaling, a.softcap, warp, lane);
        }
        const int opener = begin / share, parts = (begin + steps - 1) / share - opener + 1;
        const float* logits = a.logits ? a.logits + first_head : nullptr;
        bool done = true;
        if (parts == 1) {
            merge_warps<R>(acc, mix, mix_lm);
            __syncthreads();
            for (int i = threadIdx.x; i < GROUP * D; i += WARPS * 32) {
                const int g = i / D;
                const float l = mix_lm[2 * g], m = mix_lm[2 * g + 1], sink = logits ? logits[g] * LOG2E : EMPTY, top = fmaxf(m, sink);
                const float all = l * ex2(m - top) + (logits ? ex2(sink - top) : 0.f);
                mix[i] *= all > 0.f ? ex2(m - top) / all : 0.f;
            }
        } else {
            // A block holds the end of one row and the beginning of another at most: two places.
            const int place = 2 * blockIdx.x + (from ? 0 : 1);
            merge_warps<R>(acc, a.partial + (long long)place * GROUP * D, lms + place * GROUP * 2);
            const auto slot = [&](int part) { return part ? 2 * (opener + part) : 2 * opener + 1; };
            const auto emit = [&](int i, float4 y) { *(float4*)(mix + i) = y; };
            done = merge_splits(a.partial, lms, parts, slot, emit, logits, a.arrived + b * rows + row, parts);
        }
        x += until - from;
        if (!done) continue;
        __syncthreads();
        u16* out = a.out + b * a.out_stride + (long long)first_head * D;
#if ROTATED
        for (int g = warp; g < GROUP; g += WARPS) {
            float y[D / 32];
#pragma unroll
            for (int j = 0; j < D / 32; j++) y[j] = mix[g * D + lane + 32 * j];
            turn(y, lane);
#pragma unroll
            for (int j = 0; j < D / 32; j++) out[g * D + lane + 32 * j] = to_io(y[j] * sign(a, lane + 32 * j) / D);
        }
#else
        for (int i = threadIdx.x * 2; i < GROUP * D; i += WARPS * 64) *(u32*)(out + i) = pack_io(mix[i], mix[i + 1]);
#endif
    }
}
