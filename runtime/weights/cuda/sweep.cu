// Three to sixteen rows of x times a 4-bit matrix with groups of 128, on the tensor cores.
// docs/weights_runtime.md derives it; layout.py draws the words; kernels_tile.py is the same in Triton.
//
// Compiled at run time by NVRTC (no headers), with these constants defined:
//   HALF    1: float16, 0: bfloat16     SCALES_HALF   1: scales are float16, 0: bfloat16
//   TILES   tiles of 8 rows of x: 1 or 2
//   SLICES  slices of inputs a block takes, each by its own warps
//   UNITS   units of 128 inputs a slice
//   STRIPS  strips of 32 columns a block takes at a time
//   AHEAD   units of weights a warp has in flight, a multiple of UNITS
//   BUFFERS results of warps in shared memory: 1 or 2
//
// A block keeps some inputs of x in shared memory and sweeps over columns: an item is STRIPS strips
// of one split of the inputs, whose sums lie as [splits][rows][columns]. Warps wait for each other once an item, for the sum of the slices.
// Thread (g, t) of 8 x 4 takes the words of columns 4g to 4g + 3 in rows 4t to 4t + 3 of a unit. A
// word masked at bit 4q holds two codes 64 inputs apart, so x is staged in such pairs, and a code
// costs a shift and a mask for two. Zero points are settled once a unit, by the sum of x.

#include "few_rows.cuh"
#include "operands.cuh"

#define WARPS (SLICES * STRIPS)
#define ROWS (8 * TILES)
#define PITCH 36                              // floats of a row of results: no bank twice
#define RESULTS (ROWS * PITCH)                // of a warp
#define WIDTH 32                              // columns of a strip
#define X_UNIT (TILES * 4 * 32)               // 16-byte chunks of a unit's x
#define ONES (HALF ? 0x3c003c00u : 0x3f803f80u)
#define MOST_ITEMS 128

INLINE u32 bytes_of(u32 a, u32 b, u32 which) {
    u32 d;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(which));
    return d;
}
INLINE u32 codes(u32 word, int q) {  // as whole numbers, with WHOLE
    u32 d;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(word >> (4 * q)), "r"(0x000f000fu), "r"(WHOLE));
    return d;
}

struct Unit {
    uint4 words[4];
    uint2 scales;
    u32 zeros;
};

extern __shared__ uint4 shared[];

extern "C" __global__ void __launch_bounds__(32 * WARPS, 1) sweep(const Args args) {
    __shared__ int last_of[MOST_ITEMS];
    let_successor_begin();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int strip = warp % STRIPS, slice = warp / STRIPS;
    const int units = args.inputs / 128, groups = (args.outputs + WIDTH * STRIPS - 1) / (WIDTH * STRIPS);
    const int splits = (units + SLICES * UNITS - 1) / (SLICES * UNITS), items = groups * splits;
    const int first = i64(items) * blockIdx.x / gridDim.x, own = int(i64(items) * (blockIdx.x + 1) / gridDim.x) - first;
    const i64 partial_row = i64(groups) * STRIPS * WIDTH, partial_split = args.rows * partial_row;
    float* results = reinterpret_cast<float*>(shared + SLICES * UNITS * X_UNIT);

    // Column c of 32 of a strip; past the last the first, of which nothing is stored.
    auto place = [&](int group, int c) {
        const int column = (group * STRIPS + strip) * WIDTH + c;
        return column < args.outputs ? column : 0;
    };
    int ahead = 0, ahead_split = first / groups, ahead_group = first - ahead_split * groups;
    auto load = [&](Unit& to, int u) {  // the next unit of this warp, the u-th of its item
        const int unit = (ahead_split * SLICES + slice) * UNITS + u;
        if (ahead < own && unit < units) {
            const u32* from = args.words + i64(unit * 16 + 4 * t) * args.words_row + place(ahead_group, 4 * g);
#pragma unroll
            for (int j = 0; j < 4; j++) to.words[j] = load_once(from + j * args.words_row);
            const int column = place(ahead_group, 4 * g);
            to.scales = *reinterpret_cast<const uint2*>(args.scales + i64(unit) * args.scales_row + column);
            to.zeros = args.zeros[i64(unit) * args.zeros_row + column / 8] >> (column % 8 * 4);
        } else {
            to.scales = uint2{0, 0};
        }
        if (u == UNITS - 1) {
            ahead++;
            if (++ahead_group == groups) {
                ahead_group = 0;
                ahead_split++;
            }
        }
    };

    float inputs_sums[UNITS][TILES][2];
    auto stage = [&](int split) {
        __syncthreads();  // nobody reads the last split's any more
        for (int i = threadIdx.x; i < SLICES * UNITS * ROWS * 8; i += 32 * WARPS) {
            const int chunk = i % 8, row = i / 8 % ROWS, at = i / 8 / ROWS, unit = split * SLICES * UNITS + at;
            uint4 a = {0, 0, 0, 0}, b = a;
            if (unit < units && row < args.rows) {
                const uint4* from = reinterpret_cast<const uint4*>(args.x + i64(row) * args.inputs) + unit * 16 + chunk;
                a = from[0];
                b = from[8];
            }
            uint4* to = shared + at * X_UNIT + (row / 8 * 4 + chunk / 4 * 2) * 32 + row % 8 * 4 + chunk % 4;
            to[0] = {bytes_of(a.x, b.x, 0x5410), bytes_of(a.y, b.y, 0x5410), bytes_of(a.z, b.z, 0x5410), bytes_of(a.w, b.w, 0x5410)};
            to[32] = {bytes_of(a.x, b.x, 0x7632), bytes_of(a.y, b.y, 0x7632), bytes_of(a.z, b.z, 0x7632), bytes_of(a.w, b.w, 0x7632)};
        }
        __syncthreads();
#pragma unroll
        for (int u = 0; u < UNITS; u++)
#pragma unroll
            for (int n = 0; n < TILES; n++) {
                float sum[4] = {};
#pragma unroll
                for (int q = 0; q < 4; q++) {
                    const uint4 x = shared[(slice * UNITS + u) * X_UNIT + (n * 4 + q) * 32 + lane];
                    mma(sum, ONES, ONES, ONES, ONES, x.x, x.y);
                    mma(sum, ONES, ONES, ONES, ONES, x.z, x.w);
                }
                inputs_sums[u][n][0] = sum[0];
                inputs_sums[u][n][1] = sum[1];
            }
    };

    float total[TILES][2][4];
    auto multiply = [&](const Unit& unit, int u) {
        float sums[TILES][2][4] = {};
#pragma unroll
        for (int q = 0; q < 4; q++) {
            uint4 x[TILES];
#pragma unroll
            for (int n = 0; n < TILES; n++) x[n] = shared[(slice * UNITS + u) * X_UNIT + (n * 4 + q) * 32 + lane];
#pragma unroll
            for (int j = 0; j < 4; j += 2) {
                const u32 one[4] = {unit.words[j].x, unit.words[j].y, unit.words[j].z, unit.words[j].w};
                const u32 two[4] = {unit.words[j + 1].x, unit.words[j + 1].y, unit.words[j + 1].z, unit.words[j + 1].w};
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const u32 a0 = codes(one[2 * h], q), a1 = codes(one[2 * h + 1], q);
                    const u32 a2 = codes(two[2 * h], q), a3 = codes(two[2 * h + 1], q);
#pragma unroll
                    for (int n = 0; n < TILES; n++) mma(sums[n][h], a0, a1, a2, a3, j ? x[n].z : x[n].x, j ? x[n].w : x[n].y);
                }
            }
        }
        const float scale[4] = {low<SCALES_HALF>(unit.scales.x), high<SCALES_HALF>(unit.scales.x),
                                low<SCALES_HALF>(unit.scales.y), high<SCALES_HALF>(unit.scales.y)};
        float zero[4];  // with the whole number that WHOLE adds: 128 or 1024 counts 2^-16 or 2^-13 in the last place
#pragma unroll
        for (int c = 0; c < 4; c++)
            zero[c] = __uint_as_float(HALF ? 0x44800000u | (unit.zeros >> (4 * c) & 15) << 13 : 0x43000000u | (unit.zeros >> (4 * c) & 15) << 16);
#pragma unroll
        for (int n = 0; n < TILES; n++)
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int c = 2 * h + i / 2;
                    const float product = scale[c] * (sums[n][h][i] - zero[c] * inputs_sums[u][n][i % 2]);
                    total[n][h][i] = u ? total[n][h][i] + product : product;
                }
    };

    // Two columns of a row of an item, in y: `column` of its group.
    auto store = [&](int group, int column, int row, float2 sum) {
        const int stored = group * STRIPS * WIDTH + column;
        if (row >= args.rows || stored >= args.outputs) return;
        if (args.bias) {
            const u32 pair = *reinterpret_cast<const u32*>(args.bias + stored);
            sum.x += low<HALF>(pair);
            sum.y += high<HALF>(pair);
        }
        *reinterpret_cast<u32*>(args.y + i64(row) * args.outputs + stored) = pack_io(sum.x, sum.y);
    };
    int buffer = 0;
    auto finish = [&](int split, int group) {
        float* all = results + buffer * WARPS * RESULTS;
#pragma unroll
        for (int n = 0; n < TILES; n++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                *reinterpret_cast<float4*>(all + warp * RESULTS + (8 * n + 2 * t + i) * PITCH + 4 * g) =
                    {total[n][0][i], total[n][0][2 + i], total[n][1][i], total[n][1][2 + i]};
        __syncthreads();
        for (int i = threadIdx.x; i < STRIPS * ROWS * WIDTH / 2; i += 32 * WARPS) {
            const int c = i % (WIDTH / 2) * 2, row = i / (WIDTH / 2) % ROWS, s = i / (WIDTH / 2) / ROWS;
            float2 sum = {0.f, 0.f};
#pragma unroll
            for (int k = 0; k < SLICES; k++) {
                const float2 part = *reinterpret_cast<const float2*>(all + (k * STRIPS + s) * RESULTS + row * PITCH + c);
                sum.x += part.x;
                sum.y += part.y;
            }
            if (splits == 1) store(group, s * WIDTH + c, row, sum);
            else if (row < args.rows)
                *reinterpret_cast<float2*>(args.partial + split * partial_split + row * partial_row + (group * STRIPS + s) * WIDTH + c) = sum;
        }
        if (BUFFERS == 1) __syncthreads();
        else buffer ^= 1;
    };

    // Weights do not depend on the launch before: they are on their way while that ends.
    Unit flight[AHEAD];
#pragma unroll
    for (int d = 0; d < AHEAD; d++) load(flight[d], d % UNITS);
    wait_for_predecessor();
    int split = first / groups, group = first - split * groups, staged = -1;
    for (int base = 0; base < own * UNITS; base += AHEAD)
#pragma unroll
        for (int d = 0; d < AHEAD; d++) {
            if (base + d >= own * UNITS) break;
            if (d % UNITS == 0 && split != staged) {
                stage(split);
                staged = split;
            }
            multiply(flight[d], d % UNITS);
            load(flight[d], d % UNITS);
            if (d % UNITS == UNITS - 1) {
                finish(split, group);
                if (++group == groups) {
                    group = 0;
                    split++;
                }
            }
        }
    if (splits == 1) return;

    // The last of a column's splits to arrive sums them, in their order.
    __threadfence();
    __syncthreads();
    for (int i = threadIdx.x; i < own; i += 32 * WARPS) {
        int* counter = args.arrived + (first + i) % groups;
        last_of[i] = atomicAdd(counter, 1) == splits - 1;
        if (last_of[i]) *counter = 0;
    }
    __syncthreads();
    __threadfence();
    const int pairs = STRIPS * ROWS * WIDTH / 2;
    for (int i = threadIdx.x; i < own * pairs; i += 32 * WARPS) {
        const int item = i / pairs, c = i % (WIDTH / 2) * 2, row = i / (WIDTH / 2) % ROWS, s = i % pairs / (WIDTH / 2) / ROWS;
        if (!last_of[item] || row >= args.rows) continue;
        const int whole = (first + item) % groups;
        float2 sum = {0.f, 0.f};
        const float* from = args.partial + row * partial_row + (whole * STRIPS + s) * WIDTH + c;
#pragma unroll 4
        for (int k = 0; k < splits; k++) {
            const float2 part = __ldcg(reinterpret_cast<const float2*>(from + k * partial_split));
            sum.x += part.x;
            sum.y += part.y;
        }
        store(whole, s * WIDTH + c, row, sum);
    }
}
