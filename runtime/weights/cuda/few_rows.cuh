// What tile.cu, ring.cu and sweep.cu share: their parameter (few_rows.py), a load past L1.
#pragma once
#include "common.cuh"

struct Args {
    const u16* x;          // rows of inputs
    const u32* words;
    const u32* zeros;      // 4 bits only
    const u16* scales;
    const u16* bias;       // null: none
    u16* y;
    float* partial;        // sums of parts of the inputs
    int* arrived;          // zero between launches
    void* made;            // y in whole numbers (parts.cu)
    int rows, inputs, outputs, words_row, zeros_row, scales_row;
};

INLINE float4 load_from_others(const float* p) {  // past L1, which may hold what was there before
    float4 v;
    asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p) : "memory");
    return v;
}
