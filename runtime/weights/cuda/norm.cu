// Norm of rows, or of their sum with a residual, in 16 bits and in whole numbers (whole.cuh) at once:
// the product behind it reads them and makes nothing of x. fused_kernels.py has the formula.
//
// Compiled at run time by NVRTC (no headers), with these constants defined:
//   HALF    1: float16, 0: bfloat16     ROWS      rows of the whole numbers, padded: 8 or 16
//   ADD     1: x + residual             OFFSET    1: times 1 + weight
//   WARPS   warps a block, 32 at most   UNITS     units of 128 that a thread has part in
//
// A block takes a row, eight threads a unit: what makes whole numbers of it exchanges no bytes.

#include "bytes.cuh"

struct Args {
    const u16 *x, *residual, *weight;
    u16 *out, *total;
    uint4* whole;
    int width;
    float eps;
};

// Pairs of 16-bit numbers: sums and products are rounded once, as in float32 and back.
INLINE u32 add(u32 a, u32 b) {
    u32 d;
    if (HALF) asm("add.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    else asm("add.rn.bf16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}
INLINE u32 multiply(u32 a, u32 b) {
    u32 d;
    if (HALF) asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    else asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}
INLINE float squares_of(u32 a) { return fmaf(low<HALF>(a), low<HALF>(a), high<HALF>(a) * high<HALF>(a)); }
INLINE u32 normed(u32 a, float scale, u32 weight) {
    const float x[2] = {low<HALF>(a) * scale, high<HALF>(a) * scale};
    if (OFFSET) return pack_io(x[0] * (1.f + low<HALF>(weight)), x[1] * (1.f + high<HALF>(weight)));
    return multiply(pack_io(x[0], x[1]), weight);
}
INLINE void write(const Sixteen& x, u16* to, int i) {
#pragma unroll
    for (int plane = 0; plane < 4; plane++) reinterpret_cast<uint2*>(to)[plane * 8 + i] = x.pairs[plane];
}

extern "C" __global__ void __launch_bounds__(32 * WARPS) whole_norm(const Args args) {
    __shared__ float squares[WARPS];
    let_successor_begin();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = blockIdx.x, units = args.width / 128;
    const int first = warp * 4 + lane / 8, i = lane % 8;
    Sixteen x[UNITS] = {}, weight[UNITS] = {};
    // The weight depends on no launch.
#pragma unroll
    for (int u = 0; u < UNITS; u++)
        if (first + u * WARPS * 4 < units) weight[u].load(args.weight + (first + u * WARPS * 4) * 128, i);
    wait_for_predecessor();
    float sum = 0.f;
#pragma unroll
    for (int u = 0; u < UNITS; u++) {
        const int unit = first + u * WARPS * 4;
        if (unit >= units) break;
        const i64 at = i64(row) * args.width + unit * 128;
        x[u].load(args.x + at, i);
        if (ADD) {
            Sixteen more;
            more.load(args.residual + at, i);
#pragma unroll
            for (int p = 0; p < 4; p++) x[u].pairs[p] = {add(x[u].pairs[p].x, more.pairs[p].x), add(x[u].pairs[p].y, more.pairs[p].y)};
            write(x[u], args.total + at, i);
        }
#pragma unroll
        for (int p = 0; p < 4; p++) sum += squares_of(x[u].pairs[p].x) + squares_of(x[u].pairs[p].y);
    }
#pragma unroll
    for (int mask = 1; mask < 32; mask *= 2) sum += __shfl_xor_sync(~0u, sum, mask);
    if (lane == 0) squares[warp] = sum;
    __syncthreads();
    sum = 0.f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) sum += squares[w];
    const float scale = rsqrtf(sum / args.width + args.eps);
    int2* measures = reinterpret_cast<int2*>(args.whole + units * 8 * SLOTS);
#pragma unroll
    for (int u = 0; u < UNITS; u++) {
        const int unit = first + u * WARPS * 4;
        const bool real = unit < units;
        Sixteen y;
#pragma unroll
        for (int p = 0; p < 4; p++)
            y.pairs[p] = {normed(x[u].pairs[p].x, scale, weight[u].pairs[p].x), normed(x[u].pairs[p].y, scale, weight[u].pairs[p].y)};
        if (real) write(y, args.out + i64(row) * args.width + unit * 128, i);
        to_whole(y, i, row, args.whole + unit * 8 * SLOTS, measures + unit * ROWS + row, real);
    }
}
