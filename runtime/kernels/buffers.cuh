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
    INLINE static void k_codes(const u8* stage, int at, int lane, u32* w) { K::fetch(stage + at * K::row_bytes, lane, w); }
    INLINE static void v_codes(const u8* stage, int at, int lane, u32* w) { V::fetch(stage + v_at + at * V::row_bytes, lane, w); }
    INLINE static const u32* k_pairs(const u8* stage, int at) { return (const u32*)(stage + kp_at) + at * K::groups; }
    INLINE static const u32* v_pairs(const u8* stage, int at) { return (const u32*)(stage + vp_at) + at * V::groups; }
    INLINE static float k_scale(u32 pair) { return f16_lo(pair); }
    INLINE static float k_offset(u32 pair) { return f16_hi(pair); }
    INLINE static float v_scale(u32 pair) { return f16_lo(pair); }
    INLINE static float v_offset(u32 pair) { return f16_hi(pair); }

#if WRITES
    // The newest token, packed by the block itself: codes of K, of V, pairs of K, of V.
    INLINE static u8* newest_row() {
        __shared__ __align__(16) u8 row[K::row_bytes + V::row_bytes + k_pair_bytes + v_pair_bytes];
        return row;
    }

    // Its position, where the range holds it: the range's last.
    INLINE static int& newest() {
        __shared__ int position;
        return position;
    }

    template <int BYTES>
    INLINE static void repeat(u8* rows, const u8* row, int from, int lane) {
        constexpr int words = BYTES / 4;
#pragma unroll 1
        for (int i = from * words + lane; i < step * words; i += 32) *(u32*)(rows + i * 4) = *(const u32*)(row + i % words * 4);
    }
#endif

    // `k_origin`, `v_origin`: the positions of slot 0 before any wrap; `origin`: the range's first.
    struct Reader {
        Side k, v;
        int k_origin, origin, kbase, vbase, first, stride;

        INLINE Reader(const Side& keys, const Side& values, int k_first, int v_first, int range_first)
            : k(keys), v(values), k_origin(k_first), origin(range_first),
              kbase((range_first - k_first) % keys.capacity), vbase((range_first - v_first) % values.capacity) {}

        INLINE void begin(int at, int, int by, int) { first = at; stride = by; }

        INLINE bool opens(int at) const {
            return at == first || (at - k_origin) / TOKENS_K != (at - stride - k_origin) / TOKENS_K;
        }

#if WRITES
        // A copied step that holds newest(): that token and those which repeat it, from newest_row().
        INLINE void patch(u8* stage, int at, int lane) const {
            const int newest = Buffers::newest();
            if (at + step <= newest) return;
            const int from = newest - at;
            const u8* row = newest_row();
            repeat<K::row_bytes>(stage, row, from, lane);
            repeat<V::row_bytes>(stage + v_at, row + K::row_bytes, from, lane);
            repeat<k_pair_bytes>(stage + kp_at, row + K::row_bytes + V::row_bytes, from, lane);
            repeat<v_pair_bytes>(stage + vp_at, row + K::row_bytes + V::row_bytes + k_pair_bytes, from, lane);
            __syncwarp();
        }
#else
        INLINE void patch(u8*, int, int) const {}  // every row is in its buffer
#endif

        INLINE void fetch(u32 stage, int at, int valid, int lane) const {
            int ks = kbase + at - origin, vs = vbase + at - origin;
            ks = ks >= k.capacity ? ks - k.capacity : ks;
            vs = vs >= v.capacity ? vs - v.capacity : vs;
            copy_rows<step, K::row_bytes, 1>(stage, k.rows, ks, valid, k.capacity, lane);
            copy_rows<step, V::row_bytes, 1>(stage + v_at, v.rows, vs, valid, v.capacity, lane);
            if constexpr (QK && !CHANNELS)
                copy_rows<step, k_pair_bytes, TOKENS_K>(stage + kp_at, (const u8*)k.pairs, ks, valid, k.capacity, lane);
            if constexpr (CHANNELS)
                if (opens(at)) copy_rows<1, k_pair_bytes, 1>(stage + kp_at, (const u8*)k.pairs, ks / TOKENS_K, 1, k.capacity / TOKENS_K, lane);
            if constexpr (QV)
                copy_rows<step, v_pair_bytes, TOKENS_V>(stage + vp_at, (const u8*)v.pairs, vs, valid, v.capacity, lane);
        }
    };
};
