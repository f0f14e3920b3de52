// One to eight rows of x times a 4-bit matrix with groups of 128, on the tensor cores.
// docs/weights_runtime.md derives it; layout.py draws the words; kernels.py is the same in Triton.
//
// Compiled at run time by NVRTC (no headers), with these constants defined:
//   HALF    1: float16, 0: bfloat16     SCALES_HALF   1: scales are float16, 0: bfloat16
//   ROWS    rows of x, padded: 1, 2, 4 or 8
//   GATED   1: y = silu(gate) * up, 2: with tanh's GELU, of the matrix's halves; 0: as it is
//   WARPS   warps a block               AHEAD   tiles a warp has in flight
//
// One block a multiprocessor takes strips of 32 columns with all of their inputs, so blocks share
// nothing. Its warps take turns at tiles of a strip, 128 inputs each, straight from memory into
// registers, the first of them before the launch before this one has ended. Thread (g, t) of 8 x 4
// has the words of columns 4g to 4g + 3 in rows 4t to 4t + 3 of a tile.
//
// Products are of whole numbers (bytes.cuh). Sums are exact, zero points are settled with them, and one
// conversion a tile and column is left. What 16 bits leave out of x is 2^-15 of the largest of
// its 128.

#include "few_rows.cuh"
#include "gate.cuh"
#include "bytes.cuh"

#define EACH (GATED ? 2 : 1)                  // strips of the matrix for one of y
#define PARTS (ROWS == 8 ? 2 : 1)             // products of four rows

struct Tile {
    uint4 words[4];
    uint2 scales;
    u32 zeros;
};

extern __shared__ uint4 shared[];

extern "C" __global__ void __launch_bounds__(32 * WARPS, 1) stream(const Args args) {
    let_successor_begin();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int width = args.outputs / EACH, units = args.inputs / 128, strips = width / 32;  // of y
    const int first = i64(strips) * blockIdx.x / gridDim.x, own = int(i64(strips) * (blockIdx.x + 1) / gridDim.x) - first;
    // In shared memory: bytes of x [units][2][slots][t], of 128 inputs and a row what one counts and
    // their sum [units][rows], then every warp's sums of every strip [strips][warps][rows][columns].
    uint4* inputs = shared;
    int2* measures = reinterpret_cast<int2*>(inputs + units * 8 * SLOTS);
    float* results = reinterpret_cast<float*>(measures + (units * ROWS + 1) / 2 * 2);

    // The next tile of this warp to be loaded.
    const u32 *words_at, *zeros_at;
    const u16* scales_at;
    int ahead_strip = 0, ahead_unit = warp;
    auto seek = [&]() {
        while (ahead_unit >= units) {
            ahead_unit -= units;
            ahead_strip++;
        }
        const int column = (first + ahead_strip / EACH) * 32 + ahead_strip % EACH * width + 4 * g;
        words_at = args.words + i64(ahead_unit * 16 + 4 * t) * args.words_row + column;
        scales_at = args.scales + i64(ahead_unit) * args.scales_row + column;
        zeros_at = args.zeros + i64(ahead_unit) * args.zeros_row + column / 8;
    };
    auto load = [&](Tile& to) {
        if (ahead_strip >= own * EACH) return;
#pragma unroll
        for (int j = 0; j < 4; j++) to.words[j] = load_once(words_at + j * args.words_row);
        to.scales = *reinterpret_cast<const uint2*>(scales_at);
        to.zeros = *zeros_at;
        ahead_unit += WARPS;
        if (ahead_unit >= units) return seek();
        words_at += WARPS * 16 * args.words_row;
        scales_at += WARPS * args.scales_row;
        zeros_at += WARPS * args.zeros_row;
    };
    float total[PARTS][4] = {};  // row t, columns 4g to 4g + 3
    auto multiply = [&](const Tile& tile, int unit) {
        int sums[PARTS][2][4] = {};
#pragma unroll
        for (int b = 0; b < 2; b++) {
            uint4 x[PARTS];
#pragma unroll
            for (int p = 0; p < PARTS; p++) x[p] = inputs[((unit * 2 + b) * SLOTS + p * 8 + g % SLOTS) * 4 + t];
#pragma unroll
            for (int j = 0; j < 4; j += 2) {
                const u32 one[4] = {tile.words[j].x, tile.words[j].y, tile.words[j].z, tile.words[j].w};
                const u32 two[4] = {tile.words[j + 1].x, tile.words[j + 1].y, tile.words[j + 1].z, tile.words[j + 1].w};
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int p = 0; p < PARTS; p++)
                        multiply_bytes(sums[p][h], codes(one[2 * h], b), codes(one[2 * h + 1], b), codes(two[2 * h], b), codes(two[2 * h + 1], b),
                                       j ? x[p].z : x[p].x, j ? x[p].w : x[p].y);
            }
        }
        const u32 zeros = tile.zeros >> (g % 2 * 16);
        const float scale[4] = {low<SCALES_HALF>(tile.scales.x), high<SCALES_HALF>(tile.scales.x),
                                low<SCALES_HALF>(tile.scales.y), high<SCALES_HALF>(tile.scales.y)};
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            const int2 measure = measures[unit * ROWS + 4 * p + t % ROWS];
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const int upper = sums[p][c / 2][c % 2 * 2], lower = sums[p][c / 2][c % 2 * 2 + 1];
                const int sum = upper * 256 + lower - int(zeros >> (4 * c) & 15) * measure.y;
                total[p][c] += scale[c] * __int_as_float(measure.x) * float(sum);
            }
        }
    };
    auto keep = [&](int strip) {  // a warp's sums of a strip, all its tiles done
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            if (t < ROWS)
                *reinterpret_cast<float4*>(results + ((strip * WARPS + warp) * ROWS + 4 * p + t) * 32 + 4 * g) = {total[p][0], total[p][1], total[p][2], total[p][3]};
#pragma unroll
            for (int c = 0; c < 4; c++) total[p][c] = 0.f;
        }
    };
    // Weights do not depend on the launch before: they are on their way while that ends.
    Tile flight[AHEAD];
    seek();
#pragma unroll
    for (int d = 0; d < AHEAD; d++) load(flight[d]);
    if (units < WARPS)  // some warps have no tile of some strips
        for (int i = threadIdx.x; i < own * EACH * WARPS * ROWS * 32; i += 32 * WARPS) results[i] = 0.f;
    wait_for_predecessor();
    const int pieces = units * ROWS * 8;  // eight threads a row and unit
    for (int base = 0; base < pieces; base += 32 * WARPS) {
        const int at = base + threadIdx.x, row = at / 8 % ROWS, unit = at / 8 / ROWS;
        Sixteen x = {};
        if (at < pieces) x.load(args.x + i64(min(row, args.rows - 1)) * args.inputs + unit * 128, at % 8);
        to_whole(x, at % 8, row, inputs + unit * 8 * SLOTS, measures + unit * ROWS + row, at < pieces);
    }
    __syncthreads();

    int strip = 0, unit = warp;
    while (unit >= units) {
        unit -= units;
        strip++;
    }
    while (strip < own * EACH) {
#pragma unroll
        for (int d = 0; d < AHEAD; d++) {
            multiply(flight[d], unit);
            load(flight[d]);
            unit += WARPS;
            if (unit >= units) {
                keep(strip);
                while (unit >= units) {
                    unit -= units;
                    strip++;
                }
                if (strip >= own * EACH) break;
            }
        }
    }
    __syncthreads();

    for (int at = threadIdx.x; at < own * 32 * args.rows; at += 32 * WARPS) {
        const int c = at % 32, strip = at / 32 % own, row = at / 32 / own, stored = (first + strip) * 32 + c;
        float sum[EACH];
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            sum[e] = args.bias ? low<HALF>(args.bias[stored + e * width]) : 0.f;
            const float* from = results + ((strip * EACH + e) * WARPS * ROWS + row) * 32 + c;
            float parts = 0.f;
#pragma unroll
            for (int w = 0; w < WARPS; w++) parts += from[w * ROWS * 32];
            sum[e] += parts;
        }
        if (GATED) sum[0] = gated(sum[0], sum[EACH - 1]);
        args.y[i64(row) * width + stored] = u16(pack_io(sum[0], sum[0]));
    }
}
