// Decode attention over packed keys and values: one query token, every KV head, split over the
// sequence, merged by log-sum-exp in the same launch. docs/kernels.md derives what is done here.
//
// Compiled at run time by NVRTC (no headers), with these constants defined:
//   D            channels a head            GROUP      query heads a KV head serves here, 1 to 8
//   KB VB        bits of packed K, V        KG VG      channels that share a pair; D where none
//   KT VT        tokens that share a pair (1: each its own)
//   KC           1: keys have pairs per channel, in blocks of KT tokens
//   K_TENSOR V_TENSOR   1: pairs have no head axis
//   TAIL         1: 16-bit sinks and residual exist      HALF   1: float16 model, 0: bfloat16
//   SOFTCAP      1: scores are capped       WARPS      warps a block
//   TILES        16-token tiles a step takes           SHARED     bytes of shared memory a block
//   BLOCKS       blocks a multiprocessor holds
//   WRITES       1: the newest token is given as the projections left it (newest.cuh), for streaming
//                formats whose tokens have pairs of their own
//   WHOLE        8 or 16: results are written in whole numbers too, of so many rows, D is 128; 0: not
//
// A warp works alone on steps of 16 * TILES tokens, copied ahead into its own ring in shared
// memory. Keys are the A operand of m16n8k16 (16 tokens x 16 channels; 8 query heads are the 8
// columns), values the A operand of the second product (16 channels x 16 tokens). A code is used
// as the float16 subnormal whose bits it is, code * 2^-24, exact and without any conversion.

#include "buffers.cuh"
#include "merge.cuh"
#include "newest.cuh"
#include "whole.cuh"

#ifndef DRY
#define DRY 1
#endif

// Tokens whose pairs may lie in one line of the L1 cache; copies of 16 bytes go past it.
constexpr __device__ int in_a_line(int bytes) { return bytes == 0 || bytes % 16 == 0 ? 1 : 128 / bytes; }

struct Args {
    const u16* q;
    const u8 *k_values, *v_values;
    const u32 *k_scale, *v_scale;
    const u8 *k_residual, *v_residual, *k_sinks, *v_sinks;
    const int *clock, *starts;
    const float* logits;  // one sink logit a query head, or null
    u16* out;
    float* partial;       // [B, gridDim.y, parts, GROUP, D], then [B, gridDim.y, parts, GROUP, 2]
    int* arrived;         // [B * gridDim.y], zero before and after
    int heads, query_heads, head_blocks, k_capacity, v_capacity, residual_k, residual_v;
    int sinks, buffered, k_block, v_block, window, splits;
    float scaling, softcap;
    uint4* whole;         // of [B, query_heads, D], by heads (whole.cuh)
    Newest newest;
};

INLINE Side sixteen(const u8* buffer, int head, int capacity) {
    return {buffer + (long long)head * capacity * D * 2, nullptr, capacity};
}

INLINE int tokens(const int* clock) {  // the same for all of a warp
    int n;
    asm volatile("ld.volatile.global.s32 %0, [%1];" : "=r"(n) : "l"(clock) : "memory");
    return __shfl_sync(~0u, n, 0);
}

// One part of a range: block `block` of `blocks` that share positions [begin, end), to one partial.
// With `clock`, the range ends at the newest token, and rows of earlier steps are on their way
// before the launch before this one has ended: but those that lie in a line with it, which would be
// held as it was before. low(end) is the first position that is seen. Where the launch writes, no
// row in memory is the newest token's: ready(end) packs it.
template <class P, class Low, class Ready>
INLINE void attend(const u16* q, const Side& k, const Side& v, int k_origin, int v_origin, int begin, int end, const Low& low,
                   const int* clock, int block, int blocks, float scaling, float softcap, float* out, float* lm, const Ready& ready) {
    using R = Range<P>;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    constexpr int line_k = in_a_line(P::k_pair_bytes), line_v = in_a_line(P::v_pair_bytes);
    constexpr int news = 1 + (line_k > line_v ? line_k : line_v);
    int lowest, from, to;
    typename P::Reader reader(k, v, k_origin, v_origin, begin);
    Acc acc;
    // While others wait, a warp of each of the multiprocessor's quarters goes once through the
    // instructions: they come from memory, which the layer before has swept through the caches.
    bool dry = DRY && clock && warp >= WARPS - 4, moved = true;
#pragma unroll 1
    while (true) {
        if (moved) {
            // A block takes contiguous steps, its warps in turn, so that they read memory in order.
            lowest = max(begin, low(end));
            const int origin = begin + (lowest - begin) / R::step * R::step;
            const int units = max(0, end - origin + R::step - 1) / R::step;
            from = origin + ((int)((long long)units * block / blocks) + warp) * R::step;
            to = min(end, origin + (int)((long long)units * (block + 1) / blocks) * R::step);
            reader = typename P::Reader(k, v, k_origin, v_origin, origin);
            const int opened = min(to, from + (R::stages - 2) * R::warps * R::step + R::step);
            if (!clock || !WRITES && (opened > end - news || end + news > min(k.capacity, v.capacity))) wait_for_predecessor();
            if (warp < R::warps) R::open(reader, from, to, R::warps * R::step, warp, lane);
        }
        if (!dry) {
            wait_for_predecessor();
            const int now = clock ? tokens(clock) : end;
            moved = now != end;  // the clock had not been moved on yet
            end = now;
            if (moved) wait_group<0>();
            if (moved) continue;
            ready(end);
        }
        acc.clear();
        if (warp < R::warps) R::template run<true>(acc, dry ? (const u16*)shared : q, reader, from, to, R::warps * R::step, lowest, scaling, softcap, warp, lane, dry);
        if (!dry) break;
        dry = moved = false;
    }
    merge_warps<R>(acc, out, lm);
}

extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS) decode(const Args a) {
    let_successor_begin();
    // Rows of earlier steps depend on no launch of this one. Where blocks of tokens share pairs, or
    // rows move on from a residual, they may have been written anew; in a ring, the newest token
    // lies beside the oldest.
    constexpr bool stay = !(TAIL || KC || KT > 1 || VT > 1 || K_TENSOR || V_TENSOR);
    if (!stay) wait_for_predecessor();
    const int b = blockIdx.z;
    const int h = blockIdx.y / a.head_blocks, bh = b * a.heads + h;
    const int first_head = h * (a.query_heads / a.heads) + blockIdx.y % a.head_blocks * GROUP;
    const int start = a.starts[b], n = tokens(a.clock);
    const auto low = [&](int end) { return max(start, a.window ? max(0, end - a.window) : 0); };
    const auto fixed = [&](int) { return low(n); };
    const int settled = max(0, n - a.sinks - a.buffered), held = max(0, n - a.sinks);
    const int pk = KB < 16 ? settled / a.k_block * a.k_block : held;
    const int pv = VB < 16 ? settled / a.v_block * a.v_block : held;

    using Main = Buffers<KB, KG, KT, KC, VB, VG, VT>;
    const Side k = {a.k_values + (long long)bh * a.k_capacity * Main::K::row_bytes,
                    a.k_scale + (K_TENSOR ? (long long)b * a.k_capacity : (long long)bh * (a.k_capacity / KT) * (KC ? D : Main::K::groups)),
                    a.k_capacity};
    const Side v = {a.v_values + (long long)bh * a.v_capacity * Main::V::row_bytes,
                    a.v_scale + (V_TENSOR ? (long long)b * a.v_capacity : (long long)bh * (a.v_capacity / VT) * Main::V::groups),
                    a.v_capacity};
    const int k_origin = KB < 16 ? a.sinks : 0, v_origin = VB < 16 ? a.sinks : 0;

    const int parts = a.splits + (TAIL ? 3 : 0), head = b * gridDim.y + blockIdx.y;
    float* all = a.partial + (long long)head * parts * GROUP * D;
    float* all_lm = a.partial + (long long)gridDim.z * gridDim.y * parts * GROUP * D + (long long)head * parts * GROUP * 2;
#if WRITES
    __shared__ __align__(16) u16 turned[GROUP * D];
    const u16* q = turned;
    // The block of a row's end packs its token; of blocks that share keys and values, the first stores it.
    const auto ready = [&](int end) {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const bool holds = blockIdx.x + 1 == gridDim.x, stores = blockIdx.y % a.head_blocks == 0;
        const Newest& x = a.newest;
        if (threadIdx.x == 0) Main::newest() = holds ? end - 1 : 1 << 30;
        u8 *row = Main::newest_row(), *pairs = row + Main::K::row_bytes + Main::V::row_bytes;
        for (int task = holds ? warp : warp + 2; task < GROUP + 2; task += WARPS) {
            if (task == 1) {
                const Channels y(x.value + b * x.v_batch + h * x.v_head, lane);
                y.pack<VB, VG>(row + Main::K::row_bytes, pairs + Main::k_pair_bytes, v, stores ? end - 1 : -1, lane);
                continue;
            }
            const u16* head = task ? x.query + b * x.q_batch + (first_head + task - 2) * x.q_head : x.key + b * x.k_batch + h * x.k_head;
            const Channels cos(x.cos + b * x.angle_batch, lane), sin(x.sin + b * x.angle_batch, lane);
            Channels y(head, lane);
            y.turn(cos, sin, lane);
            if (task) y.write(turned + (task - 2) * D, lane);
            else y.pack<KB, KG>(row, pairs, k, stores ? end - 1 : -1, lane);
        }
        __syncthreads();
    };
#else
    const u16* q = a.q + ((long long)b * a.query_heads + first_head) * D;
    const auto ready = [](int) {};
#endif
    const int packed = a.sinks + min(pk, pv), mixed = a.sinks + max(pk, pv);

    // Parts below `splits` share the packed tokens; then sinks, keys whose block is not full, residual.
    // A row that one block has to itself meets no others in memory.
    __shared__ float own_lm[GROUP * 2];
    float* own = (float*)shared + WARPS * GROUP * D;  // behind what the warps' merge takes
    const bool alone = !TAIL && a.splits == 1;
    static_assert(!WRITES || stay && !TAIL, "every token is packed when it comes");
    static_assert((WARPS + 1) * GROUP * D * 4 <= SHARED, "the merge and its result fit");
    for (int part = blockIdx.x; part < parts; part += a.splits) {
        float *out = alone ? own : all + part * GROUP * D, *lm = alone ? own_lm : all_lm + part * GROUP * 2;
        const int which = part < a.splits ? 0 : part - a.splits + 1;
        const int begin = which == 0 ? a.sinks : which == 1 ? 0 : which == 2 ? packed : mixed;
        const int end = which == 0 ? packed : which == 1 ? min(n, a.sinks) : which == 2 ? mixed : n;
        if (which == 0) {
            if constexpr (stay) attend<Main>(q, k, v, k_origin, v_origin, begin, end, low, a.window && !WRITES ? nullptr : a.clock, part, a.splits, a.scaling, a.softcap, out, lm, ready);
            else attend<Main>(q, k, v, k_origin, v_origin, begin, end, fixed, nullptr, part, a.splits, a.scaling, a.softcap, out, lm, ready);
            continue;
        }
#if TAIL
        __syncthreads();
        const Side ks = KB == 16 ? k : which == 1 ? sixteen(a.k_sinks, bh, a.sinks) : sixteen(a.k_residual, bh, a.residual_k);
        const int ko = KB == 16 || which == 1 ? 0 : a.sinks;
        if (VB < 16 && KB < 16 && which == 2) {
            attend<Buffers<16, D, 1, false, VB, VG, VT>>(q, ks, v, ko, v_origin, begin, end, fixed, nullptr, 0, 1, a.scaling, a.softcap, out, lm, ready);
            continue;
        }
        const Side vs = VB == 16 ? v : which == 1 ? sixteen(a.v_sinks, bh, a.sinks) : sixteen(a.v_residual, bh, a.residual_v);
        const int vo = VB == 16 || which == 1 ? 0 : a.sinks;
        attend<Buffers<16, D, 1, false, 16, D, 1>>(q, ks, vs, ko, vo, begin, end, fixed, nullptr, 0, 1, a.scaling, a.softcap, out, lm, ready);
#endif
    }
    u16* result = a.out + ((long long)b * a.query_heads + first_head) * D;
    const float* logits = a.logits ? a.logits + first_head : nullptr;
    const auto slot = [](int part) { return part; };
    const auto emit = [&](int i, float4 x) {
        const uint2 pairs = {pack_io(x.x, x.y), pack_io(x.z, x.w)};
        *(uint2*)(result + i) = pairs;
        if constexpr (WHOLE > 0) {  // a warp has a head
            const float y[4] = {io_lo(pairs.x), io_hi(pairs.x), io_lo(pairs.y), io_hi(pairs.y)};
            const int unit = first_head + i / D;
            int2* measures = (int2*)(a.whole + a.query_heads * 16 * WHOLE);
            to_whole<WHOLE>(y, threadIdx.x % 32, b, a.whole + unit * 16 * WHOLE, measures + unit * WHOLE + b);
        }
    };
    if (alone) {
        __syncthreads();
        normalise(own, own_lm, logits);
        __syncthreads();
        for (int i = threadIdx.x * 4; i < GROUP * D; i += WARPS * 128) emit(i, *(const float4*)(own + i));
    } else {
        merge_splits(all, all_lm, parts, slot, emit, logits, a.arrived + head, a.splits);
    }
}
