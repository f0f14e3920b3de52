// Rows of a buffer, which may be a ring, copied ahead to shared memory.
#pragma once
#include "instructions.cuh"

struct Side {          // one buffer of rows: packed codes with pairs, or 16-bit
    const u8* rows;    // of all sequences and heads, less than 2^34 bytes
    const u32* pairs;  // (scale, offset) fp16 words, from which `first_pairs` tokens are others'
    int capacity;      // rows before the ring wraps
    int first, first_pairs;  // rows before those of this sequence and head
};

// Where piece `i` of a tile's rows goes. SWAP: rows of 64 bytes whose number has that bit set have
// their halves the other way round; -1: none has. A warp then reads halves of eight rows, or of
// four, without meeting a bank twice.
template <int BYTES, int SWAP>
INLINE int place(int i) {
    static_assert(SWAP < 0 || BYTES == 64, "halves of 32 bytes are swapped");
    return SWAP < 0 ? i : i ^ ((i >> (2 + SWAP) & 1) << 1);
}

// ROWS tokens from slot `base` on, BYTES bytes each, that lie one after the other.
template <int ROWS, int BYTES, int SWAP>
INLINE void copy_together(u32 to, const u8* rows, int base, int lane) {
    constexpr int piece = BYTES % 16 == 0 ? 16 : BYTES % 8 == 0 ? 8 : 4, per_row = BYTES / piece, count = ROWS * per_row;
    const u8* from = rows + (unsigned long long)((u32)base * per_row + lane) * piece;
    to += place<BYTES, SWAP>(lane) * piece;
#pragma unroll
    for (int i = 0; i < count; i += 32)
        if (count % 32 == 0 || i + lane < count) copy_async<piece>(to + i * piece, from + i * piece);
}

// ROWS tokens from slot `base` of a ring on, of which TOKENS share BYTES bytes. Tokens past the last
// valid one repeat it: nothing beyond the length is read.
template <int ROWS, int BYTES, int TOKENS, int SWAP>
INLINE void copy_rows(u32 to, const u8* rows, int first, int base, int valid, int capacity, int lane) {
    constexpr int piece = BYTES % 16 == 0 ? 16 : BYTES % 8 == 0 ? 8 : 4, per_row = BYTES / piece, count = ROWS * per_row;
#pragma unroll 1
    for (int i = lane; i < count; i += 32) {
        int s = base + min(i / per_row, valid - 1);
        s = s >= capacity ? s - capacity : s;
        copy_async<piece>(to + place<BYTES, SWAP>(i) * piece, rows + (unsigned long long)((u32)(first + s / TOKENS) * per_row + i % per_row) * piece);
    }
}
