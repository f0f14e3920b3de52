// Decode attention over vLLM's pages: one query token a sequence, lengths and pages read on the
// device, so that one launch serves every batch that fits the arguments (CUDA graphs).
//
// Compiled at run time by NVRTC, with decode.cu's constants D, GROUP, HALF, SOFTCAP, WARPS, TILES,
// SHARED, VG = D, and these:
//   CODE_BITS    4 or 8                     PAGE       tokens a page, a multiple of 16
//   ROTATED      1: rows are Hadamard-rotated, D is a power of two; queries and results are
//                turned here              SEQUENCES  the most sequences of a launch
//   LEAST        steps that a part of a row has at least, where rows are fewer than blocks
//   SHORT        steps up to which a row is not cut, where rows are more than blocks
//   BLOCKS       blocks of a multiprocessor
//
// Work is cut over the blocks by what lengths say, on the device: a row is one (sequence, block of
// query heads). A row that one block holds is finished there; of a row that several hold, the last
// to arrive merges the parts. A sequence of length 0, as vLLM pads its batches with, has no steps:
// its zeros are written beside all that.
//
// Where the newest tokens are given, the block that holds a row's end packs its token as
// page_format.py says, writes it to its page and attends to the copy in shared memory: a step
// needs no launch that writes. Pages, lengths and the table are read before the launch before this
// one has ended, so that launch must write none of them (queries and new tokens it may).

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
    const u16 *key, *value;  // the newest tokens' [sequences, heads, D], not yet in pages, or null
    const long long* slots;  // [sequences]: where those go; below 0: nowhere
    long long page_stride, head_stride, table_stride, q_stride, out_stride, k_stride, v_stride;
    int heads, query_heads, head_blocks, sequences, window;
    float scaling, softcap;
    u32 signs[8];         // bit c % 32 of word c / 32: channel c is negated before the rotation
};

using Rows = Pages<CODE_BITS>;
using R = Range<Rows>;

INLINE int lowest_of(const Args& a, int length) { return a.window ? max(0, length - a.window) : 0; }

INLINE int steps_of(const Args& a, int sequence) {
    const int length = __ldg(a.lengths + sequence);
    return (length - lowest_of(a, length) / R::step * R::step + R::step - 1) / R::step;
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

struct Segment {  // steps [from, until) of one (sequence, head) row, part of `parts`
    int sequence, row, steps, from, until, parts;
    int first_place, place;  // of partial results: of the row's first part, and of this
};

// Rows that are fewer than blocks are cut each by itself into equal parts, one a block. `share`: the
// most steps of a part, the least that leaves no more parts than blocks. Every warp by itself.
INLINE int fitting_share(const Args& a, const int* ends, int total, int rows, int lane) {
    int share = max((total + (int)gridDim.x - 1) / (int)gridDim.x, LEAST);
    for (;;) {
        int parts = 0;
        for (int b = lane; b < a.sequences; b += 32) parts += (ends[b] - (b ? ends[b - 1] : 0) + share - 1) / share;
#pragma unroll
        for (int d = 1; d < 32; d *= 2) parts += __shfl_xor_sync(~0u, parts, d);
        if (parts * rows <= (int)gridDim.x) return share;
        share += max(1, share / 16);
    }
}

// The part that block `index` takes of rows so cut; sequence -1 where none is left for it.
INLINE Segment part_of(const Args& a, const int* ends, int share, int rows, int index, int lane) {
    int carry = 0;
    for (int base = 0; base < a.sequences; base += 32) {
        const int b = base + lane, steps = b < a.sequences ? ends[b] - (b ? ends[b - 1] : 0) : 0;
        const int parts = (steps + share - 1) / share;
        int sum = parts * rows;
#pragma unroll
        for (int d = 1; d < 32; d *= 2) {
            const int y = __shfl_up_sync(~0u, sum, d);
            if (lane >= d) sum += y;
        }
        const u32 holds = __ballot_sync(~0u, index < carry + sum);
        if (holds) {
            const int l = __ffs(holds) - 1, n = __shfl_sync(~0u, parts, l), all = __shfl_sync(~0u, steps, l);
            const int at = index - carry - __shfl_sync(~0u, sum, l) + n * rows, row = at / n, part = at % n;
            return {base + l, row, all, (int)((long long)all * part / n), (int)((long long)all * (part + 1) / n), n, index - part, index};
        }
        carry += __shfl_sync(~0u, sum, 31);
    }
    return {-1, 0, 0, 0, 0, 0, 0, 0};
}

// The row that step x of all rows, laid end to end, lies in: from x on.
INLINE Segment row_of(const Args& a, const int* ends, int rows, int x) {
    int b = 0, high = a.sequences - 1;
    while (b < high) {
        const int middle = (b + high) / 2;
        if (ends[middle] * rows > x) high = middle; else b = middle + 1;
    }
    const int before = b ? ends[b - 1] : 0, steps = ends[b] - before, row = (x - before * rows) / steps;
    return {b, row, steps, x - before * rows - row * steps, steps, 1, 0, 0};
}

// Rows that are more than blocks lie end to end, and block i takes the i-th share of their steps.
// Short rows are not cut: a boundary within one moves to its end.
INLINE int boundary(const Args& a, const int* ends, int rows, int total, int share, int i) {
    const int x = i * share;
    if (x <= 0 || x >= total) return min(x, total);
    const Segment s = row_of(a, ends, rows, x);
    return s.from && s.steps <= SHORT ? x - s.from + s.steps : x;
}

INLINE Segment in_line(const Args& a, const int* ends, int rows, int share, int x, int to) {
    Segment s = row_of(a, ends, rows, x);
    const int begin = x - s.from, opener = begin / share;
    s.until = min(s.steps, s.from + to - x);
    if (s.steps > SHORT) s.parts = (begin + s.steps - 1) / share - opener + 1;
    s.first_place = 2 * opener + 1;
    s.place = 2 * blockIdx.x + (s.from ? 0 : 1);
    return s;
}

INLINE float round_away(float x) { return truncf(x + copysignf(.5f, x)); }

// One side of the newest token, [D] of the model's type -> its bytes in `row`, by one warp.
INLINE void pack_side(const Args& a, const u16* x, u8* row, int lane) {
    constexpr int each = (D + 31) / 32;
    float y[each];
#pragma unroll
    for (int j = 0; j < each; j++) y[j] = lane + 32 * j < D ? io_lo(x[lane + 32 * j]) : 0.f;
    u32* word = (u32*)(row + Rows::side_bytes - 4);
#if ROTATED
    float low = 3e38f, high = -3e38f;
#pragma unroll
    for (int j = 0; j < each; j++) y[j] *= sign(a, lane + 32 * j);
    turn(y, lane);
#pragma unroll
    for (int j = 0; j < each; j++) {
        y[j] = io_lo(to_io(y[j]));
        low = fminf(low, y[j]);
        high = fmaxf(high, y[j]);
    }
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
        low = fminf(low, __shfl_xor_sync(~0u, low, d));
        high = fmaxf(high, __shfl_xor_sync(~0u, high, d));
    }
    const float scale = fmaxf((high - low) / 15.f, 1e-6f), inverse = 1.f / scale;
    const float zero = fminf(fmaxf(round_away(-low / scale), 0.f), 15.f);
#pragma unroll
    for (int j = 0; j < each; j++) {
        const u32 code = (u32)fminf(fmaxf(round_away(__fadd_rn(__fmul_rn(y[j], inverse), zero)), 0.f), 15.f);
        const u32 odd = __shfl_down_sync(~0u, code, 1);
        if (lane % 2 == 0) row[(lane + 32 * j) / 2] = (u8)(code | odd << 4);
    }
    if (lane == 0) *word = (__float_as_uint(scale) & ~15u) | (u32)zero;
#else
    float most = 0.f;
#pragma unroll
    for (int j = 0; j < each; j++) most = fmaxf(most, fabsf(y[j]));
#pragma unroll
    for (int d = 1; d < 32; d *= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
    const float scale = fmaxf(most / 127.f, 1e-6f), inverse = 1.f / scale;
#pragma unroll
    for (int j = 0; j < each; j++)
        if (lane + 32 * j < D) row[lane + 32 * j] = (u8)(int)fminf(fmaxf(round_away(__fmul_rn(y[j], inverse)), -128.f), 127.f);
    if (lane == 0) *word = __float_as_uint(scale);
#endif
}

// The newest token of a sequence and head: packed to newest_row() and to its page. Two warps: the
// last ones, for the first turn the queries.
INLINE void pack_newest(const Args& a, int sequence, int head, long long slot, int warp, int lane) {
    u8* page = (u8*)a.pool + slot / PAGE * a.page_stride + head * a.head_stride + slot % PAGE * Rows::row_bytes;
    for (int side = WARPS - 1 - warp; side < 2; side += WARPS) {
        const u16* x = side ? a.value + sequence * a.v_stride : a.key + sequence * a.k_stride;
        u8* packed = Rows::newest_row() + side * Rows::side_bytes;
        pack_side(a, x + (long long)head * D, packed, lane);
        __syncwarp();
        for (int i = lane * 4; i < Rows::side_bytes; i += 128) *(u32*)(page + side * Rows::side_bytes + i) = *(const u32*)(packed + i);
    }
}

#if ROTATED
INLINE void turn_queries(const Args& a, const u16* q, u16* turned, int warp, int lane) {
    for (int g = warp; g < GROUP; g += WARPS) {
        float y[D / 32];
#pragma unroll
        for (int j = 0; j < D / 32; j++) y[j] = io_lo(q[g * D + lane + 32 * j]) * sign(a, lane + 32 * j);
        turn(y, lane);
#pragma unroll
        for (int j = 0; j < D / 32; j++) turned[g * D + lane + 32 * j] = to_io(y[j]);
    }
}
#endif

// [GROUP, D] of shared memory to the output, turned back.
INLINE void write_mix(const Args& a, const float* mix, u16* out, int warp, int lane) {
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

// Results of sequences of length 0, which no block attends to: rows dealt to the blocks in turn.
INLINE void write_zeros(const Args& a, int rows) {
    for (int i = blockIdx.x; i < a.sequences * rows; i += gridDim.x) {
        const int sequence = i / rows;
        if (__ldg(a.lengths + sequence)) continue;
        wait_for_predecessor();
        u16* out = a.out + sequence * a.out_stride + (long long)(i % rows) * GROUP * D;
        for (int c = threadIdx.x * 2; c < GROUP * D; c += WARPS * 64) *(u32*)(out + c) = 0;
    }
}

// One segment, by the whole block. `cut`: rows are cut each by itself, so parts lie one after another.
INLINE void attend(const Args& a, const Segment& s, bool cut, u16* turned, float* mix, float* mix_lm, int warp, int lane) {
    const int rows = a.heads * a.head_blocks, head = s.row / a.head_blocks;
    const int first_head = head * (a.query_heads / a.heads) + s.row % a.head_blocks * GROUP;
    const int length = __ldg(a.lengths + s.sequence), lowest = lowest_of(a, length), origin = lowest / R::step * R::step;
    const int first = origin + (s.from + warp) * R::step, last = min(length, origin + s.until * R::step);
    const u16* q = a.q + s.sequence * a.q_stride + (long long)first_head * D;
    Rows::Reader reader(a.pool + head * a.head_stride, a.table + s.sequence * a.table_stride, a.page_stride);
    __syncthreads();  // shared buffers are free
    if (warp < R::warps) R::open(reader, first, last, R::warps * R::step, warp, lane);
    wait_for_predecessor();
    const long long slot = a.key && s.until == s.steps ? __ldg(a.slots + s.sequence) : -1;
    if (slot >= 0) {
        reader.newest = length - 1;
        pack_newest(a, s.sequence, head, slot, warp, lane);
    }
#if ROTATED
    turn_queries(a, q, turned, warp, lane);
    q = turned;
#endif
    __syncthreads();
    Acc acc;
    acc.clear();
    if (warp < R::warps) {
        typename R::Queries queries;
        queries.read(q, a.scaling, lane);
        R::run(acc, queries, reader, first, last, R::warps * R::step, lowest, a.softcap, warp, lane);
    }
    const float* logits = a.logits ? a.logits + first_head : nullptr;
    if (s.parts == 1) {
        merge_warps<R>(acc, mix, mix_lm);
        __syncthreads();
        normalise(mix, mix_lm, logits);
    } else {
        float* lms = a.partial + 2ll * gridDim.x * GROUP * D;
        merge_warps<R>(acc, a.partial + (long long)s.place * GROUP * D, lms + s.place * GROUP * 2);
        // In line, a block holds the end of one row and the beginning of another: two places each.
        const auto slot = [&](int part) { return s.first_place + (cut ? part : part ? 2 * part - 1 : 0); };
        const auto emit = [&](int i, float4 y) { *(float4*)(mix + i) = y; };
        if (!merge_splits(a.partial, lms, s.parts, slot, emit, logits, a.arrived + s.sequence * rows + s.row, s.parts)) return;
    }
    __syncthreads();
    write_mix(a, mix, a.out + s.sequence * a.out_stride + (long long)first_head * D, warp, lane);
}

extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS) decode_pages(const Args a) {
    __shared__ int ends[SEQUENCES];
    __shared__ float mix_lm[GROUP * 2];
    __shared__ __align__(16) u16 turned[ROTATED ? GROUP * D : 8];
    float* mix = (float*)shared + WARPS * GROUP * D;  // behind what the warps' merge takes
    static_assert((WARPS + 1) * GROUP * D * 4 <= SHARED, "the merge and its result fit");
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, rows = a.heads * a.head_blocks;
    if (!a.key) wait_for_predecessor();  // pages may be what it writes
    let_successor_begin();
    const int total = add_up(a, ends) * rows;
    const bool cut = a.sequences * rows <= (int)gridDim.x;
    const int share = cut ? fitting_share(a, ends, total, rows, lane) : (total + (int)gridDim.x - 1) / (int)gridDim.x;
    const int to = cut ? 1 : boundary(a, ends, rows, total, share, blockIdx.x + 1);
    for (int x = cut ? 0 : boundary(a, ends, rows, total, share, blockIdx.x); x < to;) {
        const Segment s = cut ? part_of(a, ends, share, rows, blockIdx.x, lane) : in_line(a, ends, rows, share, x, to);
        if (s.sequence < 0) break;
        attend(a, s, cut, turned, mix, mix_lm, warp, lane);
        x += s.until - s.from;
    }
    write_zeros(a, rows);
}
