// Keys and values in vLLM's pages of one scale a token and head: rows [K codes | K scale | V codes |
// V scale] of one head lie one after the other within a page, pages anywhere (page_format.py).
#pragma once
#include "deal.cuh"

// PAGE: tokens a page, a multiple of 16. BITS 4: even channels in low nibbles, zero point in the low
// 4 bits of the float32 scale. BITS 8: signed codes, no zero point.
template <int BITS>
struct Pages {
    using K = Deal<BITS, D, 4, 4>;  // rows are aligned to 4 bytes only
    using V = Deal<BITS, D, 8, 4>;
    static constexpr int bits_k = BITS, width_k = D, bits_v = BITS;
    static constexpr bool channels = false;
    static constexpr int step = 16 * TILES, side_bytes = D * BITS / 8 + 4, row_bytes = 2 * side_bytes;
    static constexpr int stage_bytes = step * row_bytes;
    static_assert(PAGE % 16 == 0 && row_bytes % 8 == 0 && K::row_bytes % 4 == 0, "pages are copied in pieces");

    // A row is 2 words beyond a multiple of 32 where D is 128 or 256: with these tokens, lanes that
    // read keys (8 rows) and values (4 rows) at once meet no bank twice.
    INLINE static int row(int r) { return (r & 6) * 2 + (r & 1) * 2 + (r >> 3); }
    struct Lanes {
        int lane;
        INLINE Lanes(int l) : lane(l) {}
        INLINE int key(int tile, int r) const { return (tile * 16 + row((lane >> 2) + 8 * r)) * row_bytes; }
        INLINE int value(int tile, int r) const { return (tile * 16 + row(2 * (lane & 3) + (r & 1) + (r >> 1) * 8)) * row_bytes; }
    };
    INLINE static void k_codes(const u8* stage, const Lanes& at, int tile, int r, u32* w) {
        K::fetch(stage + at.key(tile, r), at.lane & 3, w);
        unsign<K::row_words>(w);
    }
    INLINE static void v_codes(const u8* stage, const Lanes& at, int tile, int r, u32* w) {
        V::fetch(stage + at.value(tile, r) + side_bytes, at.lane >> 2, w);
        unsign<V::row_words>(w);
    }
    INLINE static const u32* k_pairs(const u8* stage, const Lanes& at, int tile, int r) { return (const u32*)(stage + at.key(tile, r) + side_bytes - 4); }
    INLINE static const u32* v_pairs(const u8* stage, const Lanes& at, int tile, int r) { return (const u32*)(stage + at.key(tile, r) + row_bytes - 4); }
    INLINE static float k_scale(u32 w) { return __uint_as_float(BITS == 4 ? w & ~15u : w); }
    INLINE static float k_offset(u32 w) { return -k_scale(w) * (BITS == 4 ? (float)(w & 15u) : 128.f); }
    INLINE static float v_scale(u32 w) { return k_scale(w); }
    INLINE static float v_offset(u32 w) { return k_offset(w); }

    template <int WORDS>
    INLINE static void unsign(u32* w) {  // codes -128 to 127 as 0 to 255
        if constexpr (BITS == 8)
#pragma unroll
            for (int i = 0; i < WORDS; i++) w[i] ^= 0x80808080u;
    }

    // The newest token's row, packed by the block itself.
    INLINE static u8* newest_row() {
        __shared__ __align__(16) u8 row[row_bytes];
        return row;
    }

    // A warp's steps, in order. Numbers of pages are read 32 at a time, one round ahead.
    struct Reader {
        static constexpr int round = 32 / TILES;  // steps whose numbers of pages a warp holds
        const u8* pool;                           // of this KV head, page 0
        const int* table;                         // of this sequence
        long long page_stride;                    // bytes
        int first, last, stride, taken, ids, next;
        int newest = 1 << 30;  // a token whose page may not hold it yet, its sequence's last

        INLINE Reader(const u8* p, const int* t, long long s) : pool(p), table(t), page_stride(s) {}

        // A copied step that holds `newest`: that token and those which repeat it, from newest_row().
        INLINE void patch(u8* stage, int at, int lane) const {
            if (at + step <= newest) return;
            constexpr int words = row_bytes / 4;
#pragma unroll 1
            for (int i = (newest - at) * words + lane; i < step * words; i += 32)
                *(u32*)(stage + i * 4) = *(const u32*)(newest_row() + i % words * 4);
            __syncwarp();
        }

        INLINE int look(int from, int lane) const {
            const int at = first + (from + lane / TILES) * stride + 16 * (lane % TILES);
            return at < last ? __ldg(table + at / PAGE) : 0;
        }

        INLINE void begin(int from, int to, int by, int lane) {
            first = from;
            last = to;
            stride = by;
            taken = 0;
            ids = look(0, lane);
            next = look(round, lane);
        }

        INLINE bool opens(int) const { return false; }

        INLINE void fetch(u32 stage, int at, int valid, int lane) {
            if (taken > 0 && taken % round == 0) {
                ids = next;
                next = look(taken + round, lane);
            }
            const u8* from[TILES];
#pragma unroll
            for (int i = 0; i < TILES; i++) {
                const long long page = __shfl_sync(~0u, ids, taken % round * TILES + i);
                from[i] = pool + page * page_stride + (at + 16 * i) % PAGE * row_bytes;
            }
            taken++;
            if (valid >= step) {  // 16 rows are contiguous
#pragma unroll
                for (int i = 0; i < TILES; i++)
#pragma unroll
                    for (int n = 0; n < row_bytes; n += 32)
                        if (row_bytes % 32 == 0 || n + lane < row_bytes)
                            copy_async<16>(stage + (i * row_bytes + n + lane) * 16, from[i] + (n + lane) * 16);
                return;
            }
            // Tokens past the last repeat it: nothing beyond the length is read.
            constexpr int pieces = row_bytes / 8;
#pragma unroll 1
            for (int n = lane; n < step * pieces; n += 32) {
                const int token = min(n / pieces, valid - 1);
                const u8* tile = TILES > 1 && token >= 16 ? from[TILES - 1] : from[0];
                copy_async<8>(stage + n * 8, tile + token % 16 * row_bytes + n % pieces * 8);
            }
        }
    };
    static_assert(TILES <= 2, "a step is one or two tiles");
};
