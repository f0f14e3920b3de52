// Staging for chunk8.cu: packed rows written out in 8 bits, as tiles that shared memory takes whole.
//
// Compiled at run time by NVRTC with decode.cu's names for the format, and TILE. All positions are
// packed and none has left: there are no sinks, no residual and no window. A tile's keys are
// int8, less the head's sampled mean: a query's product with it is the same for all keys, and a
// softmax does not see it. Its values are e4m3, channels along rows, then a row of ones and seven of
// zeros, tokens in the order in which chunk8.cu's threads hold their weights. One scale a tile and side.
#include "stage_rows.cuh"
#include "wgmma.cuh"

struct Stage8Args {
    StageSide k, v;  // `out` is not used
    float* mean;  // [H, D], of the heads staged
    u8 *keys, *values;
    float *key_scales, *value_scales;  // [H, tiles, 4], of which the first
    int heads, head, first, count, tiles;  // `head`: the first one staged
    int *arrived, counters;  // chunk8.cu's, to begin with
};

constexpr int THREADS = 256, PIECES = D / 8, WIDTH = D + 8, BLOCK_BYTES = 64 * WIDTH;
constexpr int SAMPLES = 256;

INLINE void spread(uint4 w, float (&x)[8]) {
    x[0] = io_lo(w.x); x[1] = io_hi(w.x); x[2] = io_lo(w.y); x[3] = io_hi(w.y);
    x[4] = io_lo(w.z); x[5] = io_hi(w.z); x[6] = io_lo(w.w); x[7] = io_hi(w.w);
}
INLINE float largest(float x) {
    __shared__ float of[THREADS / 32];
#pragma unroll
    for (int i = 16; i; i /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
    if (threadIdx.x % 32 == 0) of[threadIdx.x / 32] = x;
    __syncthreads();
    x = of[0];
#pragma unroll
    for (int i = 1; i < THREADS / 32; i++) x = fmaxf(x, of[i]);
    return x;
}
INLINE u32 e4m3x2(float lo, float hi) {
    unsigned short y;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %2, %1;" : "=h"(y) : "f"(lo), "f"(hi));
    return y;
}

INLINE uint4 keys_at(const Stage8Args& a, int head, int position, int channel) {
    return eight_packed<KB, KX, K_TABLE, KG, KT, KC, K_TENSOR>(a.k, a.head + head, a.heads, position, channel);
}

// The mean of up to 256 of the keys, evenly spread: [H, D].
extern "C" __global__ void __launch_bounds__(THREADS) mean8(const __grid_constant__ Stage8Args a) {
    constexpr int rows = THREADS / PIECES;
    __shared__ float sums[rows][D];
    for (int i = threadIdx.x; blockIdx.x == 0 && i < a.counters; i += THREADS) a.arrived[i] = 0;
    const int channel = threadIdx.x % PIECES * 8, row = threadIdx.x / PIECES, samples = min(a.count, SAMPLES);
    float sum[8] = {}, x[8];
    for (int i = row; i < samples && row < rows; i += rows) {
        const int position = a.first + (int)((long long)i * a.count / samples);
        spread(keys_at(a, blockIdx.x, position, channel), x);
#pragma unroll
        for (int j = 0; j < 8; j++) sum[j] += x[j];
    }
    if (row < rows)
#pragma unroll
        for (int j = 0; j < 8; j++) sums[row][channel + j] = sum[j];
    __syncthreads();
    if (threadIdx.x >= D) return;
    float total = 0.f;
    for (int r = 0; r < rows; r++) total += sums[r][threadIdx.x];
    a.mean[blockIdx.x * D + threadIdx.x] = total / samples;
}

INLINE void stage_keys(const Stage8Args& a, int head, int tile) {
    constexpr int turns = TILE * PIECES / THREADS;
    const int channel = threadIdx.x % PIECES * 8;
    float mean[8], x[8], most = 0.f;
#pragma unroll
    for (int j = 0; j < 8; j++) mean[j] = a.mean[head * D + channel + j];
    uint4 held[turns];
#pragma unroll
    for (int i = 0; i < turns; i++) {
        const int token = tile * TILE + (i * THREADS + threadIdx.x) / PIECES;
        held[i] = keys_at(a, head, a.first + min(token, a.count - 1), channel);
    }
#pragma unroll
    for (int i = 0; i < turns; i++) {
        spread(held[i], x);
#pragma unroll
        for (int j = 0; j < 8; j++) most = fmaxf(most, fabsf(x[j] - mean[j]));
    }
    most = fmaxf(largest(most), 1e-20f);
    const float inverse = 127.f / most;
    const long long place = (long long)head * a.tiles + tile;
    u8* out = a.keys + place * (TILE * D);
#pragma unroll
    for (int i = 0; i < turns; i++) {
        const int row = (i * THREADS + threadIdx.x) / PIECES;
        uint2 w = {0, 0};
        if (tile * TILE + row < a.count) {
            u32 y[8];
            spread(held[i], x);
#pragma unroll
            for (int j = 0; j < 8; j++) y[j] = __float_as_uint(__fadd_rn(__fmul_rn(x[j] - mean[j], inverse), 12582912.f));  // rounded, in the last byte
            w.x = prmt(prmt(y[0], y[1], 0x40), prmt(y[2], y[3], 0x40), 0x5410);
            w.y = prmt(prmt(y[4], y[5], 0x40), prmt(y[6], y[7], 0x40), 0x5410);
        }
        *(uint2*)(out + swizzled<D>(row, channel)) = w;
    }
    if (threadIdx.x == 0) a.key_scales[4 * place] = most / 127.f;
}

INLINE void stage_values(const Stage8Args& a, int head, int tile) {
    constexpr int words = TILE / 4, turns = words * PIECES / THREADS;
    __shared__ __align__(16) u8 image[TILE * WIDTH];
    uint4 held[turns][4];
    float most = 0.f, x[8];
#pragma unroll
    for (int i = 0; i < turns; i++) {
        const int at = i * THREADS + threadIdx.x, word = at % words, channel = at / words * 8;
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const int token = tile * TILE + word / 4 * 16 + word % 4 * 2 + n / 2 * 8 + n % 2;
            held[i][n] = eight_packed<VB, VX, V_TABLE, VG, VT, false, V_TENSOR>(a.v, a.head + head, a.heads, a.first + min(token, a.count - 1), channel);
            if (token >= a.count) held[i][n] = {0, 0, 0, 0};
            spread(held[i][n], x);
#pragma unroll
            for (int j = 0; j < 8; j++) most = fmaxf(most, fabsf(x[j]));
        }
    }
    most = fmaxf(largest(most), 1e-20f);
    const float inverse = 448.f / most;
#pragma unroll
    for (int i = 0; i < turns; i++) {
        const int at = i * THREADS + threadIdx.x, word = at % words, channel = at / words * 8;
        float y[4][8];
#pragma unroll
        for (int n = 0; n < 4; n++) spread(held[i][n], y[n]);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const u32 w = e4m3x2(y[0][j] * inverse, y[1][j] * inverse) | e4m3x2(y[2][j] * inverse, y[3][j] * inverse) << 16;
            *(u32*)(image + word / 16 * BLOCK_BYTES + swizzled<64>(channel + j, word % 16 * 4)) = w;
        }
    }
    for (int i = threadIdx.x; i < TILE / 64 * 512; i += THREADS)
        image[i / 512 * BLOCK_BYTES + 64 * D + i % 512] = i % 512 < 64 ? 0x38 : 0;  // a row of ones
    __syncthreads();
    const long long place = (long long)head * a.tiles + tile;
    uint4* out = (uint4*)(a.values + place * (TILE * WIDTH));
    for (int i = threadIdx.x; i < TILE * WIDTH / 16; i += THREADS) out[i] = ((const uint4*)image)[i];
    if (threadIdx.x == 0) a.value_scales[4 * place] = most / 448.f;
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) stage8(const __grid_constant__ Stage8Args a) {
    if (blockIdx.z == 0) stage_keys(a, blockIdx.y, blockIdx.x);
    else stage_values(a, blockIdx.y, blockIdx.x);
}
