// Instructions by name: conversions, packing, copies to shared memory.
// HALF says whether the model's 16-bit type is float16 or bfloat16.
#pragma once
#include "tensor_cores.cuh"

INLINE float ex2(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
INLINE float lg2(float x) { float y; asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
INLINE float rcp(float x) { float y; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
INLINE u32 prmt(u32 a, u32 b, u32 s) { u32 d; asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(s)); return d; }
INLINE u32 pack_f16(float lo, float hi) { u32 d; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo)); return d; }
INLINE u32 pack_bf16(float lo, float hi) { u32 d; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo)); return d; }
INLINE u32 mul_f16(u32 a, u32 b) { u32 d; asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b)); return d; }
INLINE float f16_lo(u32 w) { float f; asm("{.reg .f16 a, b; mov.b32 {a, b}, %1; cvt.f32.f16 %0, a;}" : "=f"(f) : "r"(w)); return f; }
INLINE float f16_hi(u32 w) { float f; asm("{.reg .f16 a, b; mov.b32 {a, b}, %1; cvt.f32.f16 %0, b;}" : "=f"(f) : "r"(w)); return f; }
INLINE float io_lo(u32 w) { return HALF ? f16_lo(w) : __uint_as_float(w << 16); }
INLINE float io_hi(u32 w) { return HALF ? f16_hi(w) : __uint_as_float(w & 0xffff0000u); }
INLINE u32 pack_io(float lo, float hi) { return HALF ? pack_f16(lo, hi) : pack_bf16(lo, hi); }
INLINE u32 transpose8x8(u32 a) { u32 d; asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(d) : "r"(a)); return d; }
INLINE float power_of_two(int k) { return __int_as_float((127 + k) << 23); }

template <int BYTES>
INLINE void load(const u8* p, u32* w) {
    if constexpr (BYTES == 16) { uint4 x = *(const uint4*)p; w[0] = x.x; w[1] = x.y; w[2] = x.z; w[3] = x.w; }
    else if constexpr (BYTES == 8) { uint2 x = *(const uint2*)p; w[0] = x.x; w[1] = x.y; }
    else if constexpr (BYTES == 4) w[0] = *(const u32*)p;
    else if constexpr (BYTES == 2) w[0] = *(const u16*)p;
    else w[0] = *p;
}

template <int BYTES>
INLINE void copy_async(u32 to, const u8* from) {
    if constexpr (BYTES == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(to), "l"(from) : "memory");
    else asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" :: "r"(to), "l"(from), "n"(BYTES) : "memory");
}
INLINE void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> INLINE void wait_group() { asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory"); }

extern __shared__ __align__(128) u8 shared[];

template <int N>
INLINE void load_pairs(const u32* p, u32* w) {
    if constexpr (N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 4) load<16>((const u8*)(p + i), w + i);
    } else if constexpr (N % 2 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 2) load<8>((const u8*)(p + i), w + i);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) w[i] = p[i];
    }
}
