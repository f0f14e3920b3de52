// Three to thirty-two rows of x times a 4-bit matrix on the tensor cores: decoding several sequences.
// docs/weights_runtime.md derives it; layout.py draws the words; kernels_tile.py is the same in Triton.
//
// Compiled at run time by NVRTC (no headers), with these constants defined:
//   GROUP   inputs that share a scale: 32, 64 or 128
//   HALF    1: float16, 0: bfloat16     SCALES_HALF   1: scales are float16, 0: bfloat16
//   WARPS   warps a block               BLOCKS  blocks that shall fit a multiprocessor
//   TILES   tiles of 8 rows of x a block takes: 1, 2 or 4
//
// A warp takes 32 columns and walks down the inputs in units of 128, 16 rows of words. Thread
// (g, t) of 8 x 4 loads the words of columns 4g to 4g + 3 in rows 4t to 4t + 3: whole lines of
// memory, and just the operands that m16n8k16 wants of it, since a sum does not care about the
// order of its inputs. The inputs of those words lie side by side in x, 16 bytes a plane. While a
// unit is multiplied, the next one is on its way. grid.y blocks share the inputs: their sums lie as
// [splits][rows][outputs], arrivals as [grid.z][column blocks].

#include "few_rows.cuh"
#include "operands.cuh"

#define PARTS (128 / GROUP)  // groups a unit
#define PLANES (GROUP / 32)  // planes of 32 inputs a group


// Codes 2p and 2p + 1 of a word as a 16-bit pair, each with the whole number above added.
INLINE u32 codes(u32 word, int p) {
    u32 pair;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(pair) : "r"(word), "r"(word >> 4), "r"(0x4400 + 0x1111 * p));
    return (pair & 0x000f000fu) | WHOLE;
}

struct Unit {
    uint4 words[4];
    uint2 scales[PARTS];
    u32 zeros[PARTS];
};

extern "C" __global__ void __launch_bounds__(32 * WARPS, BLOCKS) tile(const Args args) {
    __shared__ int last_block;
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int column = (blockIdx.x * WARPS + threadIdx.x / 32) * 32 + 4 * g;
    // Threads past the last column read the first columns instead, and store nothing.
    const int safe = column < args.outputs ? column : 0;
    const int units = args.inputs / 128, share = (units + gridDim.y - 1) / gridDim.y;
    const int first = blockIdx.y * share, last = min(first + share, units);
    const int top = blockIdx.z * 8 * TILES;

    const uint4* x[TILES];
#pragma unroll
    for (int n = 0; n < TILES; n++) {
        const int row = min(top + 8 * n + g, args.rows - 1);
        x[n] = reinterpret_cast<const uint4*>(args.x + i64(row) * args.inputs) + t;
    }
    auto load = [&](Unit& to, int unit) {
#pragma unroll
        for (int j = 0; j < 4; j++)
            to.words[j] = load_once(args.words + i64(unit * 16 + 4 * t + j) * args.words_row + safe);
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            const i64 group = i64(unit) * PARTS + p;
            to.scales[p] = *reinterpret_cast<const uint2*>(args.scales + group * args.scales_row + safe);
            to.zeros[p] = args.zeros[group * args.zeros_row + safe / 8] >> (safe % 8 * 4);
        }
    };

    float total[TILES][2][4] = {};
    Unit here, next;
    if (first < last) load(here, first);
    for (int unit = first; unit < last; unit++) {
        if (unit + 1 < last) load(next, unit + 1);
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            float sums[TILES][2][4] = {};
            u32 zero[4];
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const u32 code = here.zeros[p] >> (4 * c) & 15;
                zero[c] = (code | code << 16) + WHOLE;
            }
#pragma unroll
            for (int q = 0; q < PLANES; q++) {
                const int plane = p * PLANES + q;
                uint4 inputs[TILES];
#pragma unroll
                for (int n = 0; n < TILES; n++) inputs[n] = x[n][unit * 16 + plane * 4];
#pragma unroll
                for (int j = 0; j < 4; j += 2) {
                    const u32 one[4] = {here.words[j].x, here.words[j].y, here.words[j].z, here.words[j].w};
                    const u32 two[4] = {here.words[j + 1].x, here.words[j + 1].y, here.words[j + 1].z, here.words[j + 1].w};
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        const u32 a0 = minus(codes(one[2 * h], plane), zero[2 * h]);
                        const u32 a1 = minus(codes(one[2 * h + 1], plane), zero[2 * h + 1]);
                        const u32 a2 = minus(codes(two[2 * h], plane), zero[2 * h]);
                        const u32 a3 = minus(codes(two[2 * h + 1], plane), zero[2 * h + 1]);
#pragma unroll
                        for (int n = 0; n < TILES; n++)
                            mma(sums[n][h], a0, a1, a2, a3, j ? inputs[n].z : inputs[n].x, j ? inputs[n].w : inputs[n].y);
                    }
                }
            }
            const float scale[4] = {low<SCALES_HALF>(here.scales[p].x), high<SCALES_HALF>(here.scales[p].x),
                                    low<SCALES_HALF>(here.scales[p].y), high<SCALES_HALF>(here.scales[p].y)};
#pragma unroll
            for (int n = 0; n < TILES; n++)
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int i = 0; i < 4; i++) total[n][h][i] += scale[2 * h + i / 2] * sums[n][h][i];
        }
        here = next;
    }

    const bool stores = column < args.outputs;
    const i64 size = i64(args.rows) * args.outputs;
    if (gridDim.y > 1) {
#pragma unroll
        for (int n = 0; n < TILES; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int row = top + 8 * n + 2 * t + i;
                if (stores && row < args.rows)
                    *reinterpret_cast<float4*>(args.partial + blockIdx.y * size + i64(row) * args.outputs + column) =
                        {total[n][0][i], total[n][0][2 + i], total[n][1][i], total[n][1][2 + i]};
            }
        __threadfence();
        __syncthreads();
        int* counter = args.arrived + blockIdx.z * gridDim.x + blockIdx.x;
        if (threadIdx.x == 0) last_block = atomicAdd(counter, 1) == int(gridDim.y) - 1;
        __syncthreads();
        if (!last_block) return;
        __threadfence();
        if (threadIdx.x == 0) *counter = 0;
    }
    if (!stores) return;
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int row = top + 8 * n + 2 * t + i;
            if (row >= args.rows) continue;
            float4 sum = {total[n][0][i], total[n][0][2 + i], total[n][1][i], total[n][1][2 + i]};
            if (gridDim.y > 1) {
                sum = {0.f, 0.f, 0.f, 0.f};
                const float* from = args.partial + i64(row) * args.outputs + column;
                for (int split = 0; split < int(gridDim.y); split++) {
                    const float4 part = load_from_others(from + split * size);
                    sum.x += part.x; sum.y += part.y; sum.z += part.z; sum.w += part.w;
                }
            }
            if (args.bias) {
                const uint2 bias = *reinterpret_cast<const uint2*>(args.bias + column);
                sum.x += low<HALF>(bias.x); sum.y += high<HALF>(bias.x);
                sum.z += low<HALF>(bias.y); sum.w += high<HALF>(bias.y);
            }
            *reinterpret_cast<uint2*>(args.y + i64(row) * args.outputs + column) = {pack_io(sum.x, sum.y), pack_io(sum.z, sum.w)};
        }
}
