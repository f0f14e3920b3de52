// Products of a warpgroup (sm_90a) with A in registers and B, K-major, in shared memory; clusters.
//
// Element i of a thread's sums is row g + 8 (i / 2 % 2) of its warp's 16, column 8 (i / 4) + 2 t + i % 2,
// with g = lane / 4 and t = lane % 4: A's layout is that of mma.m16n8k16.
#pragma once
#include "common.cuh"

#if SPLITS > 1
#define CLUSTER __cluster_dims__(1, SPLITS, 1)
#else
#define CLUSTER
#endif

INLINE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
INLINE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> INLINE void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }
template <int N> INLINE void held(float (&d)[N]) {  // the compiler leaves them where they are
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

// Rows of 128 bytes, swizzled over groups of eight: the descriptor's lower half says where they
// begin, in units of 16 bytes, the upper half how they lie.
INLINE u32 descriptor(u32 address) { return (address >> 4 & 0x3fff) | 1u << 16; }
#define LAYOUT (1024u / 16 | 1u << 30)

#if HALF
#define KIND ".f32.f16.f16"
#else
#define KIND ".f32.bf16.bf16"
#endif
#define F4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define F16(d, i) F4(d, i), F4(d, i + 4), F4(d, i + 8), F4(d, i + 12)
INLINE void product(float (&d)[8], const u32 (&a)[4], u32 b, int more) {
    asm volatile("{.reg .pred p; .reg .b64 y; mov.b64 y, {%12, %13}; setp.ne.b32 p, %14, 0; wgmma.mma_async.sync.aligned.m64n16k16" KIND
        " {%0,%1,%2,%3,%4,%5,%6,%7}, {%8,%9,%10,%11}, y, p, 1, 1, 0;}"
        : F4(d, 0), F4(d, 4) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(LAYOUT), "r"(more) : "memory");
}
INLINE void product(float (&d)[16], const u32 (&a)[4], u32 b, int more) {
    asm volatile("{.reg .pred p; .reg .b64 y; mov.b64 y, {%20, %21}; setp.ne.b32 p, %22, 0; wgmma.mma_async.sync.aligned.m64n32k16" KIND
        " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, {%16,%17,%18,%19}, y, p, 1, 1, 0;}"
        : F16(d, 0) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(LAYOUT), "r"(more) : "memory");
}
INLINE void product(float (&d)[32], const u32 (&a)[4], u32 b, int more) {
    asm volatile("{.reg .pred p; .reg .b64 y; mov.b64 y, {%36, %37}; setp.ne.b32 p, %38, 0; wgmma.mma_async.sync.aligned.m64n64k16" KIND
        " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, y, p, 1, 1, 0;}"
        : F16(d, 0), F16(d, 16) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(LAYOUT), "r"(more) : "memory");
}

INLINE void meet_cluster() { asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
INLINE float4 load_from_block(u32 address, int block) {  // of the cluster, at this block's address
    float4 v;
    asm volatile("{.reg .b32 a; mapa.shared::cluster.u32 a, %4, %5; ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [a];}"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(address), "r"(block) : "memory");
    return v;
}
