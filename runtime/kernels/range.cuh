// Attention of one warp over a range of tokens: copy ahead, scores, weights, mix.
#pragma once
#include "deal.cuh"

#define EMPTY (-1e30f)

struct Acc {            // C layout: rows 16 channels (lane / 4, + 8), columns heads 2 (lane % 4), + 1
    float m[2], l[2];
    float o[D / 16][4];
    float po[2][D / VG];

    INLINE void clear() {
#pragma unroll
        for (int c = 0; c < 2; c++) {
            m[c] = EMPTY;
            l[c] = 0.f;
#pragma unroll
            for (int i = 0; i < D / VG; i++) po[c][i] = 0.f;
#pragma unroll
            for (int i = 0; i < D / 16; i++) o[i][c] = o[i][2 + c] = 0.f;
        }
    }
};

// Attention over positions [first, last) of keys and values that lie as PLACE says (buffers.cuh,
// paged/pages.cuh): how rows are copied to a stage of shared memory, and what is where in a stage.
template <class PLACE>
struct Range {
    using K = typename PLACE::K;
    using V = typename PLACE::V;
    static constexpr int BITS_K = PLACE::bits_k, WIDTH_K = PLACE::width_k, BITS_V = PLACE::bits_v;
    static constexpr bool CHANNELS = PLACE::channels;
    static constexpr bool QK = BITS_K < 16, QV = BITS_V < 16;
    static constexpr int bits_v = BITS_V;
    static constexpr int halves = V::codes * BITS_V > 16 ? 2 : 1, fields = V::codes / halves;  // of a word
    static constexpr int step = PLACE::step, stage_bytes = PLACE::stage_bytes;
    // Warps that work: all, unless 16-bit rows leave no room for a stage each.
    static constexpr int warps = SHARED / stage_bytes < WARPS ? SHARED / stage_bytes : WARPS;
    static constexpr int stages = SHARED / warps / stage_bytes < 6 ? SHARED / warps / stage_bytes : 6;
    static_assert(stage_bytes % 16 == 0, "stages are aligned");
    using Lanes = typename PLACE::Lanes;
    using Queries = Query<K, BITS_K, WIDTH_K, CHANNELS>;

    INLINE static int row(int r) { return PLACE::row(r); }

    // Per-channel keys: the block's scales go into the queries, its offsets into one product.
    INLINE static void fold_block(const u32* pairs, const Queries& q, u32 (&qs)[D / 16][2], float (&start)[4], int t) {
        float c[4] = {0.f, 0.f, 0.f, 0.f};
        constexpr int half = K::codes / 2;
#pragma unroll
        for (int w = 0; w < K::row_words; w++) {
            u32 so[K::codes];
            load_pairs<K::codes>(pairs + K::channel(w, t), so);
#pragma unroll
            for (int j = 0; j < half; j += 2) {
                const int p = w * half + j;
                u32 o[2];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const u32 s = prmt(so[j + i], so[j + i + half], 0x5410);
                    o[i] = prmt(so[j + i], so[j + i + half], 0x7632);
                    u32 scaled = mul_f16(q.q[p / 2][i], s);
                    if (lift<BITS_K>(j + i)) scaled = mul_f16(scaled, (u32)(0x3c00 - lift<BITS_K>(j + i) * 0x400) * 0x10001u);
                    qs[p / 2][i] = scaled;
                }
                mma<false>(c, o[0], o[0], o[1], o[1], q.q[p / 2][0], q.q[p / 2][1]);
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) start[i] = c[i] * 5.9604644775390625e-08f;  // 2^-24
    }

    INLINE static void scores(float (&x)[4], const u8* stage, int tile, const Queries& q, const u32 (&qs)[D / 16][2], const float (&start)[4], const Lanes& at) {
        float s[K::groups][4];
        u32 codes[2][K::row_words], pairs_k[2][K::groups];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            PLACE::k_codes(stage, at, tile, r, codes[r]);
            if constexpr (QK && !CHANNELS) load_pairs<K::groups>(PLACE::k_pairs(stage, at, tile, r), pairs_k[r]);
        }
        constexpr int pairs = K::codes / 2;
#pragma unroll
        for (int i = 0; i < K::groups; i++) {
#pragma unroll
            for (int c = 0; c < 4; c++) s[i][c] = CHANNELS ? start[c] : 0.f;
#pragma unroll
            for (int n = 0; n < WIDTH_K / 16; n++) {
                u32 a[2][2];
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const int p = (i * (WIDTH_K / 16) + n) * 2 + e, w = p / pairs, j = p % pairs;
#pragma unroll
                    for (int r = 0; r < 2; r++) a[e][r] = field<BITS_K>(spread<K::piece>(codes[r][w]), j);
                }
                const int m = i * (WIDTH_K / 16) + n;
                mma<!QK && !HALF>(s[i], a[0][0], a[0][1], a[1][0], a[1][1],
                                  CHANNELS ? qs[m][0] : q.q[m][0], CHANNELS ? qs[m][1] : q.q[m][1]);
            }
        }
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int c = 0; c < 2; c++) {
                if constexpr (!QK || CHANNELS) {
                    x[2 * r + c] = q.factor[c] * s[0][2 * r + c];
                } else {
                    float scaled = 0.f, shift = 0.f;
#pragma unroll
                    for (int i = 0; i < K::groups; i++) {
                        scaled = fmaf(PLACE::k_scale(pairs_k[r][i]), s[i][2 * r + c], scaled);
                        shift = fmaf(PLACE::k_offset(pairs_k[r][i]), q.sum[c][i], shift);
                    }
                    x[2 * r + c] = fmaf(q.factor[c], scaled, shift);
                }
            }
    }

    // A new reference point for the exponentials: weights of this step at most 2^10.
    INLINE static void rebase(Acc& acc, const float (&x)[TILES][4], const float (&top)[TILES][2]) {
#pragma unroll
        for (int c = 0; c < 2; c++) {
            float e = 2.f * EMPTY;
#pragma unroll
            for (int i = 0; i < TILES; i++)
                e = fmaxf(e, fmaxf(x[i][c] + lg2(fmaxf(top[i][0], 1e-6f)), x[i][2 + c] + lg2(fmaxf(top[i][1], 1e-6f))));
#pragma unroll
            for (int d = 4; d < 32; d *= 2) e = fmaxf(e, __shfl_xor_sync(~0u, e, d));
            const float m = fmaxf(acc.m[c], e - 10.f), keep = ex2(acc.m[c] - m);
            acc.m[c] = m;
            acc.l[c] *= keep;
#pragma unroll
            for (int i = 0; i < D / VG; i++) acc.po[c][i] *= keep;
#pragma unroll
            for (int i = 0; i < D / 16; i++) { acc.o[i][c] *= keep; acc.o[i][2 + c] *= keep; }
        }
    }

    // Scores -> weights times the values' scales, as the B operand of the second product.
    INLINE static void weigh(Acc& acc, const float (&x)[TILES][4], const u8* stage, u32 (&b)[TILES][V::groups][2], const Lanes& at) {
        u32 pairs[TILES][2][V::groups];
        float top[TILES][2], p[TILES][4], worst = 0.f;
#pragma unroll
        for (int i = 0; i < TILES; i++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                top[i][r] = QV ? 0.f : 1.f;
                if constexpr (QV) {
                    load_pairs<V::groups>(PLACE::v_pairs(stage, at, i, r), pairs[i][r]);
#pragma unroll
                    for (int n = 0; n < V::groups; n++) top[i][r] = fmaxf(top[i][r], PLACE::v_scale(pairs[i][r][n]));
                }
            }
#pragma unroll
        for (int pass = 0; pass < 2; pass++) {
#pragma unroll
            for (int i = 0; i < TILES; i++) {
#pragma unroll
                for (int c = 0; c < 4; c++) p[i][c] = ex2(x[i][c] - acc.m[c & 1]);
#pragma unroll
                for (int r = 0; r < 2; r++) worst = fmaxf(worst, fmaxf(p[i][2 * r], p[i][2 * r + 1]) * fmaxf(top[i][r], 1e-7f));
            }
            if (pass || !__any_sync(~0u, worst > 32768.f)) break;
            rebase(acc, x, top);
        }
#pragma unroll
        for (int i = 0; i < TILES; i++) {
#pragma unroll
            for (int c = 0; c < 2; c++) acc.l[c] += p[i][c] + p[i][2 + c];
#pragma unroll
            for (int n = 0; n < V::groups; n++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    if constexpr (QV) {
                        const float s = PLACE::v_scale(pairs[i][r][n]), o = PLACE::v_offset(pairs[i][r][n]);
#pragma unroll
                        for (int c = 0; c < 2; c++) acc.po[c][n] = fmaf(p[i][2 * r + c], o, acc.po[c][n]);
                        b[i][n][r] = transpose8x8(pack_f16(p[i][2 * r] * s, p[i][2 * r + 1] * s));
                    } else {
                        b[i][n][r] = transpose8x8(pack_io(p[i][2 * r], p[i][2 * r + 1]));
                    }
                }
        }
    }

    INLINE static void mix(Acc& acc, const u8* stage, int tile, const u32 (&b)[V::groups][2], const Lanes& at) {
        constexpr bool BF = !QV && !HALF;
        u32 v[4][V::row_words];
#pragma unroll
        for (int r = 0; r < 4; r++) PLACE::v_codes(stage, at, tile, r, v[r]);
#pragma unroll
        for (int w = 0; w < V::row_words; w++) {
            const int i = w / V::group_words;
            u32 early[2], late[2];
#pragma unroll
            for (int h = 0; h < halves; h++) {
                early[h] = prmt(v[0][w], v[1][w], h ? 0x7632 : 0x5410);
                late[h] = prmt(v[2][w], v[3][w], h ? 0x7632 : 0x5410);
            }
            if constexpr (fields == 1) {
                mma<BF>(acc.o[w], early[0], early[1], late[0], late[1], b[i][0], b[i][1]);
            } else {
#pragma unroll
                for (int h = 0; h < halves; h++)
#pragma unroll
                    for (int j = 0; j < fields; j += 2)
                        mma<BF>(acc.o[(w * V::codes + h * fields + j) / 2], field<BITS_V>(early[h], j), field<BITS_V>(early[h], j + 1),
                                field<BITS_V>(late[h], j), field<BITS_V>(late[h], j + 1), b[i][0], b[i][1]);
            }
        }
    }

    // Begins to copy what `run` attends to, with the same arguments.
    INLINE static void open(typename PLACE::Reader& reader, int first, int last, int stride, int warp, int lane) {
        if (first >= last) return;
        const u32 ring_at = (u32)__cvta_generic_to_shared(shared + warp * stages * stage_bytes);
        reader.begin(first, last, stride, lane);
#pragma unroll 1  // fewer instructions to be brought
        for (int i = 0; i < stages - 1; i++) {
            const int at = first + i * stride;
            if (at < last) reader.fetch(ring_at + i * stage_bytes, at, last - at, lane);
            commit();
        }
    }

    // Steps first, first + stride, ... below last, of which `open` has begun to copy; the reader
    // copies them in this order. Tokens below `lowest` are hidden.
    INLINE static void run(Acc& acc, const Queries& q, typename PLACE::Reader& reader, int first, int last, int stride, int lowest,
                           float softcap, int warp, int lane) {
        if (first >= last) return;
        const u8* ring = shared + warp * stages * stage_bytes;
        const u32 ring_at = (u32)__cvta_generic_to_shared(ring);
        const auto prefetch = [&](int at, int stage) {
            if (at < last) reader.fetch(ring_at + stage * stage_bytes, at, last - at, lane);
            commit();
        };
        u32 qs[D / 16][2];
        float start[4];
        const Lanes lanes(lane);
        int stage = 0, free = stages - 1;
#pragma unroll 1
        for (int at = first; at < last; at += stride) {
            if (stages == 1) { __syncwarp(); prefetch(at, 0); }
            wait_group<(stages > 2 ? stages - 2 : 0)>();
            __syncwarp();
            if (stages > 1) prefetch(at + (stages - 1) * stride, free);
            const u8* here = ring + stage * stage_bytes;
            reader.patch((u8*)here, at, lane);
            if constexpr (CHANNELS)
                if (reader.opens(at)) fold_block(PLACE::block_pairs(here), q, qs, start, lane & 3);
            float x[TILES][4];
            u32 b[TILES][V::groups][2];
#pragma unroll
            for (int i = 0; i < TILES; i++) {
                scores(x[i], here, i, q, qs, start, lanes);
#if SOFTCAP
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    const float y = ex2(x[i][c] * (2.f / softcap));  // exp(2 s / cap)
                    x[i][c] = softcap * LOG2E * (1.f - 2.f * rcp(y + 1.f));
                }
#endif
            }
            if (at + step > last || at < lowest)
#pragma unroll
                for (int i = 0; i < TILES; i++)
#pragma unroll
                    for (int c = 0; c < 4; c++) {
                        const int position = at + 16 * i + row((lane >> 2) + (c >> 1) * 8);
                        if (position >= last || position < lowest) x[i][c] = -__int_as_float(0x7f800000);
                    }
            weigh(acc, x, here, b, lanes);
#pragma unroll
            for (int i = 0; i < TILES; i++) mix(acc, here, i, b[i], lanes);
            free = stage;
            stage = stage + 1 == stages ? 0 : stage + 1;
        }
        wait_group<0>();
    }
};
