// What products share: 16-bit numbers, launches that overlap. HALF says whether x and y are float16
// or bfloat16.
#pragma once
#include "tensor_cores.cuh"

typedef long long i64;

INLINE float half_to_float(u32 h) { float f; asm("{.reg .b16 a; cvt.u16.u32 a, %1; cvt.f32.f16 %0, a;}" : "=f"(f) : "r"(h)); return f; }
template <bool FP16> INLINE float low(u32 w) { return FP16 ? half_to_float(w & 0xffff) : __uint_as_float(w << 16); }
template <bool FP16> INLINE float high(u32 w) { return FP16 ? half_to_float(w >> 16) : __uint_as_float(w & 0xffff0000u); }
INLINE u32 pack_io(float lo, float hi) {
    u32 d;
    if (HALF) asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo));
    else asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo));
    return d;
}
INLINE uint4 load_once(const u32* p) {  // weights are read once: keep them out of L1
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}
