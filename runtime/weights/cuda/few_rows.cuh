// What tile.cu, ring.cu and sweep.cu share: their parameter (few_rows.py), loads past a cache.
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
    int rows, inputs, outputs, words_row, zeros_row, scales_row;
};

INLINE uint4 load_once(const u32* p) {  // weights are read once: keep them out of L1, for x
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}
INLINE float4 load_from_others(const float* p) {  // past L1, which may hold what was there before
    float4 v;
    asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p) : "memory");
    return v;
}
