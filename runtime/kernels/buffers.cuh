// Keys and values in buffers of rows, which may be rings: rows beside pairs, each side by itself.
#pragma once
#include "copy.cuh"
#include "deal.cuh"

template <int BITS_K, int WIDTH_K, int TOKENS_K, bool CHANNELS, int BITS_V, int WIDTH_V, int TOKENS_V>
struct Buffers {
    using K = Deal<BITS_K, WIDTH_K, 4>;
    using V = Deal<BITS_V, WIDTH_V, 8>;
    static constexpr int bits_k = BITS_K, width_k = WIDTH_K, bits_v = BITS_V;
    static constexpr bool channels = CHANNELS, QK = BITS_K < 16, QV = BITS_V < 16;
    static constexpr int step = 16 * TILES;
    static_assert(!CHANNELS || TOKENS_K % step == 0, "a step lies in one block of keys");
    // One stage of the ring: rows, then pairs.
    static constexpr int k_pair_bytes = CHANNELS ? D * 4 : QK ? K::groups * 4 : 0, k_pair_rows = CHANNELS ? 1 : step;
    static constexpr int v_pair_bytes = QV ? V::groups * 4 : 0;
    static constexpr int v_at = step * K::row_bytes, kp_at = v_at + step * V::row_bytes;
    static constexpr int vp_at = kp_at + k_pair_rows * k_pair_bytes, stage_bytes = vp_at + step * v_pair_bytes;

    // Row of C layout r holds token `row(r)` of its tile, so that a lane group's values lie together.
    INLINE static int row(int r) { return (r & 8) + (r & 1) * 4 + (r & 7) / 2; }
    // Halves of rows of 64 bytes are swapped by a bit of the token in which lanes that read them at once differ.
    static constexpr bool k_swaps = K::row_bytes == 64 && K::groups == 2 && K::pieces == 1, v_swaps = V::row_bytes == 64 && V::groups == 2 && V::pieces == 1;
    static constexpr int k_swap = k_swaps ? 2 : -1, v_swap = v_swaps ? 1 : -1;

    // Where in a stage a lane's keys and values of a tile begin, and their pairs.
    struct Lanes {
        int lane, k, v, kp, vp;
        INLINE Lanes(int l) : lane(l) {
            const int g = l >> 2, t = l & 3, key = row(g), value = row(2 * t);
            k = key * K::row_bytes + (k_swaps ? t * K::piece + (key >> 2 & 1) * 32 : 0);
            v = v_at + value * V::row_bytes + (v_swaps ? g * V::piece + (value >> 1 & 1) * 32 : 0);
            kp = kp_at + key * k_pair_bytes;
            vp = vp_at + key * v_pair_bytes;
            asm volatile("" : "+r"(k), "+r"(v), "+r"(kp), "+r"(vp));  // kept, not made again in each step
        }
    };
    template <class DEAL, bool SWAPS>
    INLINE static void codes(const u8* stage, int at, int more, int lane, u32* w) {
        if constexpr (SWAPS) {
            load<DEAL::piece>(stage + at + more, w);
            load<DEAL::piece>(stage + (at ^ 32) + more, w + DEAL::words);
        } else {
            DEAL::fetch(stage + at + more, lane, w);
        }
    }
    // Of the keys in row lane / 4 + 8 r of a tile; of the values of column 2 (lane % 4) + (r & 1) + 8 (r / 2).
    INLINE static void k_codes(const u8* stage, const Lanes& at, int tile, int r, u32* w) {
        codes<K, k_swaps>(stage, at.k, (tile * 16 + 8 * r) * K::row_bytes, at.lane & 3, w);
    }
    INLINE static void v_codes(const u8* stage, const Lanes& at, int tile, int r, u32* w) {
        codes<V, v_swaps>(stage, at.v, (tile * 16 + (r & 1) * 4 + (r >> 1) * 8) * V::row_bytes, at.lane >> 2, w);
    }
    INLINE static const u32* k_pairs(const u8* stage, const Lanes& at, int tile, int r) { return (const u32*)(stage + at.kp + (tile * 16 + 8 * r) * k_pair_bytes); }
    INLINE static const u32* v_pairs(const u8* stage, const Lanes& at, int tile, int r) { return (const u32*)(stage + at.vp + (tile * 16 + 8 * r) * v_pair_bytes); }
    INLINE static const u32* block_pairs(const u8* stage) { return (const u32*)(stage + kp_at); }
    INLINE static float k_scale(u32 pair) { return f16_lo(pair); }
    INLINE static float k_offset(u32 pair) { return f16_hi(pair); }
    INLINE static float v_scale(u32 pair) { return f16_lo(pair); }
    INLINE static float v_offset(u32 pair) { return f16_hi(pair); }

    // `k_origin`, `v_origin`: the positions of slot 0 before any wrap; `origin`: the range's first.
    struct Reader {
        Side k, v;
        int k_origin, origin, kbase, vbase, first, stride;

        INLINE Reader(const Side& keys, const Side& values, int k_first, int v_first, int range_first)
            : k(keys), v(values), k_origin(k_first), origin(range_first),
              kbase(slot(range_first - k_first, keys)), vbase(slot(range_first - v_first, values)) {}

        // Of a position; divided where the buffer has wrapped alone, for the first rows wait for it.
        INLINE static int slot(int position, const Side& side) { return position < side.capacity ? position : position % side.capacity; }

        INLINE void begin(int at, int, int by, int) { first = at; stride = by; }

        INLINE bool opens(int at) const {
            return at == first || (at - k_origin) / TOKENS_K != (at - stride - k_origin) / TOKENS_K;
        }

        INLINE void patch(u8*, int, int) const {}  // every row is in its buffer

        INLINE void fetch(u32 stage, int at, int valid, int lane) const {
            int ks = kbase + at - origin, vs = vbase + at - origin;
            ks = ks >= k.capacity ? ks - k.capacity : ks;
            vs = vs >= v.capacity ? vs - v.capacity : vs;
            constexpr bool own_k = QK && !CHANNELS && TOKENS_K == 1, own_v = QV && TOKENS_V == 1;  // pairs of each token
            const u8 *k_pairs = (const u8*)k.pairs, *v_pairs = (const u8*)v.pairs;
            if (valid >= step && ks + step <= k.capacity && vs + step <= v.capacity) {
                copy_together<step, K::row_bytes, k_swap>(stage, k.rows, k.first + ks, lane);
                copy_together<step, V::row_bytes, v_swap>(stage + v_at, v.rows, v.first + vs, lane);
                if constexpr (own_k) copy_together<step, k_pair_bytes, -1>(stage + kp_at, k_pairs, k.first_pairs + ks, lane);
                if constexpr (own_v) copy_together<step, v_pair_bytes, -1>(stage + vp_at, v_pairs, v.first_pairs + vs, lane);
            } else {
                copy_rows<step, K::row_bytes, 1, k_swap>(stage, k.rows, k.first, ks, valid, k.capacity, lane);
                copy_rows<step, V::row_bytes, 1, v_swap>(stage + v_at, v.rows, v.first, vs, valid, v.capacity, lane);
                if constexpr (own_k) copy_rows<step, k_pair_bytes, 1, -1>(stage + kp_at, k_pairs, k.first_pairs, ks, valid, k.capacity, lane);
                if constexpr (own_v) copy_rows<step, v_pair_bytes, 1, -1>(stage + vp_at, v_pairs, v.first_pairs, vs, valid, v.capacity, lane);
            }
            if constexpr (QK && !CHANNELS && !own_k)
                copy_rows<step, k_pair_bytes, TOKENS_K, -1>(stage + kp_at, k_pairs, k.first_pairs, ks, valid, k.capacity, lane);
            if constexpr (CHANNELS)
                if (opens(at)) copy_rows<1, k_pair_bytes, 1, -1>(stage + kp_at, k_pairs, k.first_pairs, ks / TOKENS_K, 1, k.capacity / TOKENS_K, lane);
            if constexpr (QV && !own_v)
                copy_rows<step, v_pair_bytes, TOKENS_V, -1>(stage + vp_at, v_pairs, v.first_pairs, vs, valid, v.capacity, lane);
        }
    };
};
