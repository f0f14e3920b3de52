// Attention of a chunk of queries in 8 bits, for Hopper (sm_90a): keys in int8, weights and values in e4m3.
//
// Compiled at run time by NVRTC with D, TILE, STAGES, WGS and HALF. One thread block has WGS
// warpgroups of 64 queries each and a thread that copies tiles of TILE keys ahead. stage8.cu writes
// tiles as shared memory holds them, so a copy is one run of bytes.
//
// A tile has scales of its own: integers times the keys' are logits, sums times the values' are
// values. Weights of a row are taken relative to the tile's largest, 2^8, so every tile has e4m3's
// whole range; sums of e4m3 products carry some 14 bits, so each tile's go to float32 registers.
// Behind the values' channels is one of ones, whose sum is that of the weights as they were rounded.
//
// Units of ROWS queries of a head go longest first, of as many heads at a time as the second-level
// cache holds the keys and values of. Those of the last, unfilled round over the device's
// processors are cut into parts of their keys, and the part that ends last adds them up.
//
// What limits it is instructions a logit, not products: see `weigh`.
#include "wgmma.cuh"

struct ChunkArgs {
    const u8 *keys, *values;  // [H, tiles, TILE * D]
    const float4 *key_scales, *value_scales;  // [H, tiles], of which the first
    const u16* query;         // rows of D; strides below
    u16* out;
    long long query_sequence, query_head, query_row, out_sequence, out_head, out_row;
    int tiles, queries, past, group;  // keys before the first query; query heads of a KV head
    float scaling;                    // of the logits, times log2(e)
    int one;  // see `lifted`
    int heads, first, of_sequence;  // query heads of this launch, the first of them, those of a sequence
    int together;      // query heads whose units alternate, before those of the next
    int whole, parts;  // units of ROWS queries that are not cut; parts of each that is
    float* spill;      // [cut units, parts, SPILLED, 128 WGS]
    int* arrived;      // [cut units, WGS], zeros
};

constexpr int WIDTH = D + 8;  // of values: channels, and eight rows of which the first is ones
constexpr int TILE_BYTES = TILE * D, BLOCK_BYTES = 64 * WIDTH, VALUE_BYTES = TILE * WIDTH, ROWS = 64 * WGS;
constexpr int SPILLED = D / 2 + 4;  // numbers of a thread: sums, tops, norms
constexpr float LOWEST = -1e30f, LIFT = 12582912.f;  // 3 * 2^22: an integer added to its bits is added to it
#define INFINITE __int_as_float(0x7f800000)

INLINE int rounded(float x) { int y; asm("cvt.rni.s32.f32 %0, %1;" : "=r"(y) : "f"(x)); return y; }
INLINE u32 pack_s8(float a, float b, float c, float d) {
    return (rounded(a) & 255) | (rounded(b) & 255) << 8 | (rounded(c) & 255) << 16 | rounded(d) << 24;
}
template <int COUNT> INLINE void meet(int barrier) { asm volatile("bar.sync %0, %1;" :: "r"(barrier), "n"(COUNT) : "memory"); }

// LIFT + x, on the multipliers, which conversions would leave idle; `one` is 1, but not to the compiler.
INLINE float lifted(int x, int one) {
    int bits;
    asm("mad.lo.s32 %0, %1, %2, %3;" : "=r"(bits) : "r"(x), "r"(one), "r"(0x4B400000));
    return __int_as_float(bits);
}
INLINE float shared_float(u32 at) {
    float x;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(at) : "memory");
    return x;
}

// Two rows of a thread.
struct Rows {
    float scale[2];  // of the query's integers, with the logits' scaling
    float top[2];    // largest logit so far, in powers of two
    float norm[2];   // sum of weights, in the first thread of a row
    float more[2];   // factor of the tile's sums
};

// Where a query head of this launch lies.
INLINE const u16* query_of(const ChunkArgs& a, int head) {
    const int at = a.first + head;
    return a.query + at / a.of_sequence * a.query_sequence + at % a.of_sequence * a.query_head;
}
INLINE u16* out_of(const ChunkArgs& a, int head) {
    const int at = a.first + head;
    return a.out + at / a.of_sequence * a.out_sequence + at % a.of_sequence * a.out_head;
}

// 64 queries into shared memory as int8; a row's scale stays with the threads that hold its sums.
INLINE void queries_in(const ChunkArgs& a, int head, int first, u32 to, Rows& rows) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, row = warp * 16 + lane / 2, half = lane % 2;
    const bool held = first + row < a.queries;
    const u16* from = query_of(a, head) + (long long)(held ? first + row : 0) * a.query_row + half * (D / 2);
    uint4 words[D / 16];
    float most = 0.f;
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        words[i] = *(const uint4*)(from + 8 * i);
        const u32 w[4] = {words[i].x, words[i].y, words[i].z, words[i].w};
#pragma unroll
        for (int j = 0; j < 4; j++) most = fmaxf(most, fmaxf(fabsf(io_lo(w[j])), fabsf(io_hi(w[j]))));
    }
    most = fmaxf(fmaxf(most, __shfl_xor_sync(~0u, most, 1)), 1e-20f);
    const float inverse = 127.f / most;
#pragma unroll
    for (int i = 0; i < D / 32; i++) {
        u32 packed[4];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const uint4 w = words[2 * i + j];
            packed[2 * j] = pack_s8(io_lo(w.x) * inverse, io_hi(w.x) * inverse, io_lo(w.y) * inverse, io_hi(w.y) * inverse);
            packed[2 * j + 1] = pack_s8(io_lo(w.z) * inverse, io_hi(w.z) * inverse, io_lo(w.w) * inverse, io_hi(w.w) * inverse);
        }
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};"
            :: "r"(to + swizzled<D>(row, half * (D / 2) + 16 * i)), "r"(packed[0]), "r"(packed[1]), "r"(packed[2]), "r"(packed[3]) : "memory");
    }
    const float scale = most / 127.f * a.scaling;
#pragma unroll
    for (int r = 0; r < 2; r++) rows.scale[r] = __shfl_sync(~0u, scale, lane / 4 * 2 + 16 * r);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Logits of a tile to weights, the left operand of their product with the values: its positions
// 16 h + 4 t + i are the tokens 16 h + 8 (i / 2) + 2 t + i % 2 that a thread holds, in whose order
// the values are staged. `sees`: the last key that the first row sees, counted from the tile.
//
// e4m3's code of 2^y is 8 (y + 7), but for at most 0.7 between powers of two. It is taken for that
// less 0.458, their mean, to the nearest: an integer in the second byte of 49152 + code. A weight
// takes three multiply-adds and 0.75 of a byte permutation; exponential units would be the limit.
template <bool MASKED>
INLINE void weigh(const int (&logits)[TILE / 2], u32 (&weights)[TILE / 8], float (&sums)[D / 2], Rows& rows, float scale, int sees, int one) {
    float x[TILE / 2], most[4] = {-INFINITE, -INFINITE, -INFINITE, -INFINITE};  // of even and odd pieces
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < TILE / 2; i++) {
        x[i] = lifted(logits[i], one);
        if (MASKED && 8 * (i / 4) + 2 * t + i % 2 > sees + 8 * (i % 4 / 2)) x[i] = -INFINITE;
        most[i % 8 / 2] = fmaxf(most[i % 8 / 2], x[i]);
    }
    float factor[2], base[2], keep[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        most[r] = fmaxf(most[r], most[r + 2]);
        most[r] = fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 1));
        most[r] = fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 2));
        factor[r] = rows.scale[r] * scale;
        most[r] -= LIFT;
        const float tile = MASKED ? fmaxf(most[r] * factor[r], LOWEST) : most[r] * factor[r];
        const float top = fmaxf(rows.top[r], tile);
        base[r] = fmaf(-LIFT, factor[r], 8.f - tile);
        keep[r] = ex2(rows.top[r] - top);
        rows.norm[r] *= keep[r];
        rows.more[r] = ex2(tile - top);
        rows.top[r] = top;
    }
    if (__any_sync(~0u, keep[0] != 1.f || keep[1] != 1.f))
#pragma unroll
        for (int i = 0; i < D / 2; i++) sums[i] *= keep[i % 4 / 2];
#pragma unroll
    for (int h = 0; h < TILE / 16; h++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int i = 8 * h + 2 * r;
            const int at[4] = {i, i + 1, i + 4, i + 5};
            u32 y[4];
#pragma unroll
            for (int n = 0; n < 4; n++)
                y[n] = __float_as_uint(fmaf(__saturatef(fmaf(x[at[n]], factor[r] / 16.f, fmaf(base[r], 1.f / 16.f, 55.542f / 128.f))), 128.f, 49152.5f));
            weights[2 * h + r] = prmt(prmt(y[0], y[1], 0x51), prmt(y[2], y[3], 0x51), 0x5410);
        }
}

INLINE void meet_keys(int (&logits)[TILE / 2], u32 queries, u32 keys) {
    begin_product<D>(logits, queries, keys);
#pragma unroll
    for (int k = 1; k < D / 32; k++) more_product<D>(logits, queries + 2 * k, keys + 2 * k);
}

INLINE void mix_values(float (&part)[WIDTH / 2], const u32 (&weights)[TILE / 8], u32 values) {
    begin_product<64>(part, weights, values);
#pragma unroll
    for (int k = 1; k < TILE / 32; k++) more_product<64>(part, weights + 4 * k, values + k / 2 * (BLOCK_BYTES / 16) + k % 2 * 2);
}

INLINE void promote(float (&sums)[D / 2], const float (&part)[WIDTH / 2], Rows& rows, float scale) {
    const float more[2] = {rows.more[0] * scale, rows.more[1] * scale};
#pragma unroll
    for (int r = 0; r < 2; r++) rows.norm[r] += part[D / 2 + 2 * r] * rows.more[r];
#pragma unroll
    for (int i = 0; i < D / 2; i++) sums[i] = fmaf(part[i], more[i % 4 / 2], sums[i]);
}

// What a thread block does: the queries of a head from `first` on, and which share of the keys that
// they see; `cut` numbers the units that are cut.
struct Unit { int head, first, cut, share, shares; };

INLINE Unit unit_of(const ChunkArgs& a, int block) {
    const int extra = block - a.whole, cut = extra < 0 ? 0 : extra / a.parts, place = extra < 0 ? block : a.whole + cut;
    const int rows = (a.queries + ROWS - 1) / ROWS, before = place / (rows * a.together) * a.together;
    const int heads = min(a.together, a.heads - before), here = place - before * rows;
    const int first = (rows - 1 - here / heads) * ROWS;
    return {before + here % heads, first, cut, extra < 0 ? 0 : extra - cut * a.parts, extra < 0 ? 1 : a.parts};
}
// blockIdx.x, read again: what is known of it need not be held in registers.
INLINE int block_number() {
    int x;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(x));
    return x;
}

// A part's sums to where the others find them. In the part that ends last: all of them, in their
// order, whoever came when; else false.
INLINE bool gathered(const ChunkArgs& a, const Unit& unit, int group, float (&sums)[D / 2], Rows& rows) {
    constexpr int threads = 128 * WGS;
    float* at = a.spill + (long long)unit.cut * a.parts * (SPILLED * threads) + threadIdx.x;
    float* mine = at + unit.share * (SPILLED * threads);
#pragma unroll
    for (int i = 0; i < D / 2; i++) mine[i * threads] = sums[i];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        mine[(D / 2 + r) * threads] = rows.top[r];
        mine[(D / 2 + 2 + r) * threads] = rows.norm[r];
    }
    __threadfence();
    meet<128>(1 + group);
    __shared__ int before[WGS];
    if (threadIdx.x % 128 == 0) before[group] = atomicAdd(a.arrived + unit.cut * WGS + group, 1);
    meet<128>(1 + group);
    if (before[group] + 1 < a.parts) return false;
    __threadfence();
#pragma unroll
    for (int i = 0; i < D / 2; i++) sums[i] = 0.f;
#pragma unroll
    for (int r = 0; r < 2; r++) { rows.top[r] = LOWEST; rows.norm[r] = 0.f; }
    for (int p = 0; p < a.parts; p++, at += SPILLED * threads) {
        float keep[2], more[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float other = at[(D / 2 + r) * threads], top = fmaxf(rows.top[r], other);
            keep[r] = ex2(rows.top[r] - top);
            more[r] = ex2(other - top);
            rows.top[r] = top;
            rows.norm[r] = rows.norm[r] * keep[r] + at[(D / 2 + 2 + r) * threads] * more[r];
        }
#pragma unroll
        for (int i = 0; i < D / 2; i++) sums[i] = sums[i] * keep[i % 4 / 2] + at[i * threads] * more[i % 4 / 2];
    }
    return true;
}

INLINE void results_out(const ChunkArgs& a, int head, int first, const float (&sums)[D / 2], const float (&norm)[2]) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float whole = norm[r];
        whole += __shfl_xor_sync(~0u, whole, 1);
        whole += __shfl_xor_sync(~0u, whole, 2);
        const int row = first + warp * 16 + lane / 4 + 8 * r;
        if (row >= a.queries) continue;
        const float scale = 1.f / whole;
        u16* to = out_of(a, head) + row * a.out_row + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < D / 8; j++) *(u32*)(to + 8 * j) = pack_io(sums[4 * j + 2 * r] * scale, sums[4 * j + 2 * r + 1] * scale);
    }
}

extern "C" __global__ void __launch_bounds__(128 * WGS + 128, 1) chunk8(const __grid_constant__ ChunkArgs a) {
    const int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
    const Unit unit = unit_of(a, blockIdx.x);
    const int head = unit.head, first = unit.first;
    const u32 base = (shared_address(shared) + 1023) & ~1023u;
    const u32 keys = base, values = keys + STAGES * TILE_BYTES, queries = values + STAGES * VALUE_BYTES;
    const u32 key_scales = queries + ROWS * D, value_scales = key_scales + STAGES * 16, barriers = value_scales + STAGES * 16;
    const u32 has_keys = barriers, has_values = barriers + 8 * STAGES, free_keys = barriers + 16 * STAGES, free_values = barriers + 24 * STAGES;
    const int seen = a.past + min(first + ROWS, a.queries), all = (seen + TILE - 1) / TILE;
    const int from = all * unit.share / unit.shares, tiles = all * (unit.share + 1) / unit.shares;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(has_keys + 8 * s, 1);
            barrier_init(has_values + 8 * s, 1);
            barrier_init(free_keys + 8 * s, 4 * WGS);
            barrier_init(free_values + 8 * s, 4 * WGS);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();

    if (group == WGS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(32));
        const long long row = (long long)(head / a.group) * a.tiles;
        const u8 *key = a.keys + row * TILE_BYTES, *value = a.values + row * VALUE_BYTES;
        for (int j = from, s = 0, turn = 1; j < tiles && threadIdx.x == 128 * WGS; j++) {
            barrier_wait(free_keys + 8 * s, turn);
            barrier_expect(has_keys + 8 * s, TILE_BYTES + 16);
            copy_bulk(keys + s * TILE_BYTES, key + (long long)j * TILE_BYTES, TILE_BYTES, has_keys + 8 * s);
            copy_bulk(key_scales + s * 16, a.key_scales + row + j, 16, has_keys + 8 * s);
            barrier_wait(free_values + 8 * s, turn);
            barrier_expect(has_values + 8 * s, VALUE_BYTES + 16);
            copy_bulk(values + s * VALUE_BYTES, value + (long long)j * VALUE_BYTES, VALUE_BYTES, has_values + 8 * s);
            copy_bulk(value_scales + s * 16, a.value_scales + row + j, 16, has_values + 8 * s);
            if (++s == STAGES) { s = 0; turn ^= 1; }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(160));
        const int mine = first + 64 * group;
        const u32 asked = queries + group * 64 * D;
        Rows rows = {{}, {LOWEST, LOWEST}, {0.f, 0.f}, {}};
        queries_in(a, head, mine, asked, rows);
        meet<128>(1 + group);
        const int whole = (a.past + mine + 1) / TILE;  // tiles that all of these queries see whole
        const u32 left = operand(asked), key_tiles = operand(keys), value_tiles = operand(values);
        int logits[TILE / 2];
        u32 weights[TILE / 8];
        float sums[D / 2], part[WIDTH / 2];
#pragma unroll
        for (int i = 0; i < D / 2; i++) sums[i] = 0.f;

        auto give = [&](u32 barrier) {
            __syncwarp();
            if (threadIdx.x % 32 == 0) barrier_arrive(barrier);
        };
        for (int j = from, s = 0, turn = 0; j < tiles; j++) {
            barrier_wait(has_keys + 8 * s, turn);
            wgmma_fence();
            meet_keys(logits, left, key_tiles + s * (TILE_BYTES / 16));
            wgmma_commit();
            const float key_scale = shared_float(key_scales + 16 * s);
            wgmma_wait<0>();
            held(logits);
            give(free_keys + 8 * s);
            if (j < whole) weigh<false>(logits, weights, sums, rows, key_scale, 0, a.one);
            else weigh<true>(logits, weights, sums, rows, key_scale, a.past + mine + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4 - j * TILE, a.one);
            barrier_wait(has_values + 8 * s, turn);
            wgmma_fence();
            mix_values(part, weights, value_tiles + s * (VALUE_BYTES / 16));
            wgmma_commit();
            const float value_scale = shared_float(value_scales + 16 * s);
            wgmma_wait<0>();
            held(part);
            give(free_values + 8 * s);
            promote(sums, part, rows, value_scale);
            if (++s == STAGES) { s = 0; turn ^= 1; }
        }
        const Unit done = unit_of(a, block_number());
        if (done.shares == 1 || gathered(a, done, group, sums, rows)) results_out(a, done.head, done.first + 64 * group, sums, rows.norm);
    }
}
