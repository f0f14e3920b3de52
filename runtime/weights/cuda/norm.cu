// Norm of rows, or of their sum with a residual, in 16 bits and in whole numbers (whole.cuh) at once:
// the product behind it reads them and makes nothing of x. fused_kernels.py has the formula.
//
// Compiled at run time by NVRTC (no headers), with these constants defined:
//   HALF    1: float16, 0: bfloat16     ROWS      rows of the whole numbers, padded: 8 or 16
//   ADD     1: x + residual             OFFSET    1: times 1 + weight
//   WARPS   warps a block, 32 at most   UNITS     units of 128 that a warp has
//
// A block takes a row, a lane four numbers of each of its warp's units.

#include "common.cuh"
#include "whole.cuh"

struct Args {
    const u16 *x, *residual, *weight;
    u16 *out, *total;
    uint4* whole;
    int width;
    float eps;
};

INLINE float rounded(float x) { return low<HALF>(pack_io(x, x)); }
INLINE void read(const u16* from, float (&x)[4]) {
    const uint2 pairs = *reinterpret_cast<const uint2*>(from);
    x[0] = low<HALF>(pairs.x); x[1] = high<HALF>(pairs.x);
    x[2] = low<HALF>(pairs.y); x[3] = high<HALF>(pairs.y);
}
INLINE void write(u16* to, const float (&x)[4]) { *reinterpret_cast<uint2*>(to) = {pack_io(x[0], x[1]), pack_io(x[2], x[3])}; }

extern "C" __global__ void __launch_bounds__(32 * WARPS) whole_norm(const Args args) {
    __shared__ float squares[WARPS];
    let_successor_begin();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = blockIdx.x, units = args.width / 128;
    float x[UNITS][4] = {}, weight[UNITS][4];
    // The weight depends on no launch.
#pragma unroll
    for (int u = 0; u < UNITS; u++)
        if (warp + u * WARPS < units) read(args.weight + (warp + u * WARPS) * 128 + lane * 4, weight[u]);
    wait_for_predecessor();
    float sum = 0.f;
#pragma unroll
    for (int u = 0; u < UNITS; u++) {
        if (warp + u * WARPS >= units) break;
        const i64 at = i64(row) * args.width + (warp + u * WARPS) * 128 + lane * 4;
        read(args.x + at, x[u]);
        if (ADD) {
            float more[4];
            read(args.residual + at, more);
#pragma unroll
            for (int c = 0; c < 4; c++) x[u][c] = rounded(x[u][c] + more[c]);
            write(args.total + at, x[u]);
        }
#pragma unroll
        for (int c = 0; c < 4; c++) sum = fmaf(x[u][c], x[u][c], sum);
    }
#pragma unroll
    for (int mask = 1; mask < 32; mask *= 2) sum += __shfl_xor_sync(~0u, sum, mask);
    if (lane == 0) squares[warp] = sum;
    __syncthreads();
    sum = 0.f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) sum += squares[w];
    const float scale = rsqrtf(sum / args.width + args.eps);
    int2* measures = reinterpret_cast<int2*>(args.whole + units * 8 * 2 * ROWS);
#pragma unroll
    for (int u = 0; u < UNITS; u++) {
        const int unit = warp + u * WARPS;
        if (unit >= units) break;
        float y[4];
#pragma unroll
        for (int c = 0; c < 4; c++) y[c] = rounded(OFFSET ? x[u][c] * scale * (1.f + weight[u][c]) : rounded(x[u][c] * scale) * weight[u][c]);
        write(args.out + i64(row) * args.width + unit * 128 + lane * 4, y);
        to_whole<ROWS>(y, lane, row, args.whole + unit * 8 * 2 * ROWS, measures + unit * ROWS + row);
    }
}
