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
//   WHOLE        8 or 16: results are written in whole numbers too, of so many rows, D is 128; 0: not
//
// A warp works alone on steps of 16 * TILES tokens, copied ahead into its own ring in shared
// memory. Keys are the A operand of m16n8k16 (16 tokens x 16 channels; 8 query heads are the 8
// columns), values the A operand of the second product (16 channels x 16 tokens). A code is used
// as the float16 subnormal whose bits it is, code * 2^-24, exact and without any conversion.

#include "buffers.cuh"
#include "merge.cuh"
#include "whole.cuh"

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
};

INLINE Side sixteen(const u8* buffer, int head, int capacity) {
    return {buffer, nullptr, capacity, head * capacity, 0};
}

INLINE int read_now(const int* from) {
    int n;
    asm volatile("ld.volatile.global.s32 %0, [%1];" : "=r"(n) : "l"(from) : "memory");
    return n;
}
INLINE int same(int n) { return __shfl_sync(~0u, n, 0); }  // for all of a warp

// Where the steps of `block` begin, of `units` that `blocks` share. The first rows wait for this: it
// divides only where it must, and in 32 bits.
INLINE int share(int units, int block, int blocks) { return blocks == 1 ? units * block : (int)((u32)units * block / blocks); }

// One part of a range: block `block` of `blocks` that share positions [begin, end), to one partial.
// With `clock`, the range ends at the newest token, and rows of earlier steps are on their way
// before the launch before this one has ended: but those that lie in a line with it, which would be
// held as it was before. low(end) is the first position that is seen.
template <class P, class Low>
INLINE void attend(const u16* q, const Side& k, const Side& v, int k_origin, int v_origin, int begin, int end, const Low& low,
                   const int* clock, int block, int blocks, float scaling, float softcap, float* out, float* lm) {
    using R = Range<P>;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    constexpr int line_k = in_a_line(P::k_pair_bytes), line_v = in_a_line(P::v_pair_bytes);
    constexpr int news = 1 + (line_k > line_v ? line_k : line_v);
    int lowest, from, to;
    typename P::Reader reader(k, v, k_origin, v_origin, begin);
    typename R::Queries queries;
    while (true) {
        // A block takes contiguous steps, its warps in turn, so that they read memory in order.
        lowest = max(begin, low(end));
        const int origin = begin + (lowest - begin) / R::step * R::step;
        const int units = max(0, end - origin + R::step - 1) / R::step;
        from = origin + (share(units, block, blocks) + warp) * R::step;
        to = min(end, origin + share(units, block + 1, blocks) * R::step);
        reader = typename P::Reader(k, v, k_origin, v_origin, origin);
        const int opened = min(to, from + (R::stages - 2) * R::warps * R::step + R::step);
        if (!clock || opened > end - news || end + news > min(k.capacity, v.capacity)) wait_for_predecessor();
        if (warp < R::warps) R::open(reader, from, to, R::warps * R::step, warp, lane);
        wait_for_predecessor();
        const int now = clock ? read_now(clock) : end;
        queries.read(q, scaling, lane);  // on its way with the clock
        if (same(now) == end) break;
        end = same(now);  // the clock had not been moved on yet
        wait_group<0>();
    }
    Acc acc;
    acc.clear();
    if (warp < R::warps) R::run(acc, queries, reader, from, to, R::warps * R::step, lowest, softcap, warp, lane);
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
    const int h = a.head_blocks == 1 ? blockIdx.y : blockIdx.y / a.head_blocks, bh = b * a.heads + h, first_head = blockIdx.y * GROUP;
    const int begins = read_now(a.starts + b), held_now = read_now(a.clock);  // on their way together
    const int start = same(begins), n = same(held_now);
    const auto low = [&](int end) { return max(start, a.window ? max(0, end - a.window) : 0); };
    const auto fixed = [&](int) { return low(n); };
    const int settled = max(0, n - a.sinks - a.buffered), held = max(0, n - a.sinks);
    const int pk = KB == 16 ? held : KC || KT > 1 ? settled / a.k_block * a.k_block : settled;
    const int pv = VB == 16 ? held : VT > 1 ? settled / a.v_block * a.v_block : settled;

    using Main = Buffers<KB, KG, KT, KC, VB, VG, VT>;
    const Side k = {a.k_values, a.k_scale, a.k_capacity, bh * a.k_capacity, K_TENSOR ? b * a.k_capacity : bh * (a.k_capacity / KT)};
    const Side v = {a.v_values, a.v_scale, a.v_capacity, bh * a.v_capacity, V_TENSOR ? b * a.v_capacity : bh * (a.v_capacity / VT)};
    const int k_origin = KB < 16 ? a.sinks : 0, v_origin = VB < 16 ? a.sinks : 0;

    const int parts = a.splits + (TAIL ? 3 : 0), head = b * gridDim.y + blockIdx.y;
    float* all = a.partial + (long long)head * parts * GROUP * D;
    float* all_lm = a.partial + (long long)gridDim.z * gridDim.y * parts * GROUP * D + (long long)head * parts * GROUP * 2;
    const u16* q = a.q + ((long long)b * a.query_heads + first_head) * D;
    const int packed = a.sinks + min(pk, pv), mixed = a.sinks + max(pk, pv);

    // Parts below `splits` share the packed tokens; then sinks, keys whose block is not full, residual.
    // A row that one block has to itself meets no others in memory.
    __shared__ float own_lm[GROUP * 2];
    float* own = (float*)shared + WARPS * GROUP * D;  // behind what the warps' merge takes
    const bool alone = !TAIL && a.splits == 1;
    static_assert((WARPS + 1) * GROUP * D * 4 <= SHARED, "the merge and its result fit");
    for (int part = blockIdx.x; part < parts; part += a.splits) {
        float *out = alone ? own : all + part * GROUP * D, *lm = alone ? own_lm : all_lm + part * GROUP * 2;
        const int which = part < a.splits ? 0 : part - a.splits + 1;
        const int begin = which == 0 ? a.sinks : which == 1 ? 0 : which == 2 ? packed : mixed;
        const int end = which == 0 ? packed : which == 1 ? min(n, a.sinks) : which == 2 ? mixed : n;
        if (which == 0) {
            if constexpr (stay) attend<Main>(q, k, v, k_origin, v_origin, begin, end, low, a.window ? nullptr : a.clock, part, a.splits, a.scaling, a.softcap, out, lm);
            else attend<Main>(q, k, v, k_origin, v_origin, begin, end, fixed, nullptr, part, a.splits, a.scaling, a.softcap, out, lm);
            if (TAIL) continue;
            break;  // said so that nothing is kept for a part that does not come
        }
#if TAIL
        __syncthreads();
        const Side ks = KB == 16 ? k : which == 1 ? sixteen(a.k_sinks, bh, a.sinks) : sixteen(a.k_residual, bh, a.residual_k);
        const int ko = KB == 16 || which == 1 ? 0 : a.sinks;
        if (VB < 16 && KB < 16 && which == 2) {
            attend<Buffers<16, D, 1, false, VB, VG, VT>>(q, ks, v, ko, v_origin, begin, end, fixed, nullptr, 0, 1, a.scaling, a.softcap, out, lm);
            continue;
        }
        const Side vs = VB == 16 ? v : which == 1 ? sixteen(a.v_sinks, bh, a.sinks) : sixteen(a.v_residual, bh, a.residual_v);
        const int vo = VB == 16 || which == 1 ? 0 : a.sinks;
        attend<Buffers<16, D, 1, false, 16, D, 1>>(q, ks, vs, ko, vo, begin, end, fixed, nullptr, 0, 1, a.scaling, a.softcap, out, lm);
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
