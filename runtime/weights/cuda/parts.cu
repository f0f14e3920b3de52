// Five to sixteen rows of x times a 4-bit matrix with groups of 128, on the tensor cores.
// docs/weights_runtime.md derives it; layout.py draws the words; kernels_tile.py is the same in Triton.
//
// Compiled at run time by NVRTC (no headers), with these constants defined:
//   HALF    1: float16, 0: bfloat16     SCALES_HALF   1: scales are float16, 0: bfloat16
//   ROWS    rows of x, padded: 8 or 16
//   GATED   1: y = silu(gate) * up, 2: with tanh's GELU, of the matrix's halves; 0: as it is
//   SPLITS  blocks that share the inputs of a group of columns
//   SLICES  parts of a block's inputs, each by its own warps
//   WARPS   warps a block               AHEAD   tiles a warp has in flight
//   READY   1: x comes as whole numbers (bytes.cuh), with room for ROWS rows, its measures behind it
//   MAKES   1: y is written as such too, to where others have partial sums
//   COARSE  strips of y that belong together: 4, units of 128, where it is made
//   ONE     1: no warp has more than one strip
//   WORDS_ROW, SCALES_ROW, ZEROS_ROW   from one row of them to the next: parts of addresses
//
// A group of blocks takes strips of 32 columns, each block a part of the inputs of all of them: all,
// where their x fits its shared memory. A warp takes strips in turn, of each a slice of the block's
// inputs, tile after tile of 128 inputs, straight from memory into registers, the first of them
// before the launch before this one has ended. Products are of whole numbers, as in stream.cu: thread
// (g, t) of 8 x 4 has the words of columns 4g to 4g + 3 in rows 4t to 4t + 3 of a tile. Sums of
// slices meet in shared memory once at the end, those of a group's blocks in memory.
//
// At 16 rows a thread's registers are all taken. A word that finds none is stored when it has come,
// so a warp would wait for what it has just asked for. Hence addresses from indices with constant
// steps, what a slice is found anew where it is needed, and the next tile is loaded to where this one
// was: words while products of the last of them run, scales and zero points once sums are settled. By
// predicates, not branches, behind which the compiler leaves it; and not as constant memory (`.nc`),
// which it moves behind the wait for the launch before.

#include "bytes.cuh"
#include "few_rows.cuh"
#include "gate.cuh"

#define EACH (GATED ? 2 : 1)                  // strips of the matrix for one of y
#define PARTS (ROWS / 4)                      // products of four rows
#define ACROSS (WARPS / SLICES)               // strips at a time
#define THREADS (32 * WARPS)
#define PITCH 40                              // floats of a row of sums: no bank twice
#define UNIT (16 * ROWS)                      // 16-byte pieces of a unit of x

struct Tile {
    uint4 words[4];
    uint2 scales;
    u32 zeros;
};

// Loads where `wanted`; what is there stays otherwise.
INLINE void load_if(bool wanted, uint4& v, const u32* p) {  // read once: kept out of L1
    asm volatile("{.reg .pred p; setp.ne.s32 p, %5, 0; @p ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];}"
                 : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w) : "l"(p), "r"(int(wanted)));
}
INLINE void load_if(bool wanted, uint2& v, const u16* p) {
    asm volatile("{.reg .pred p; setp.ne.s32 p, %3, 0; @p ld.global.v2.u32 {%0,%1}, [%2];}" : "+r"(v.x), "+r"(v.y) : "l"(p), "r"(int(wanted)));
}
INLINE void load_if(bool wanted, u32& v, const u16* p) {
    asm volatile("{.reg .pred p; setp.ne.s32 p, %2, 0; @p ld.global.u16 %0, [%1];}" : "+r"(v) : "l"(p), "r"(int(wanted)));
}

INLINE int alone(int v) { asm("" : "+r"(v)); return v; }  // the compiler does not know what it is made of

extern __shared__ uint4 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, 1) parts(const Args args) {
    let_successor_begin();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int width = args.outputs / EACH, units = args.inputs / 128, strips = width / (32 * COARSE);  // of y
    const int first = strips * blockIdx.x / gridDim.x * COARSE, after = strips * (blockIdx.x + 1) / gridDim.x * COARSE;
    const int count = alone((after - first) * EACH), begin = units * int(blockIdx.y) / SPLITS, mine = units * int(blockIdx.y + 1) / SPLITS - begin;
    auto slice_now = [&]() {
        int thread;
        asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
        return thread / (32 * ACROSS);
    };
    auto from_now = [&]() { return begin + mine * slice_now() / SLICES; };
    const int to = begin + mine * (slice_now() + 1) / SLICES;
    // In shared memory: x [units][2][slots][t], what one counts and the sum of a row of a unit
    // [units][rows], then sums [slices][strips][rows][columns].
    uint4* inputs = shared;
    int2* measures = reinterpret_cast<int2*>(inputs + mine * UNIT);
    float* results = reinterpret_cast<float*>(measures + mine * ROWS);

    // What is loaded next: a unit, `to` if none, of this thread's columns. A block's strips are, where
    // gated, one of the gate, then one of up.
    int ahead = warp % ACROSS < count ? from_now() : to;
    u32 column = (first + warp % ACROSS / EACH) * 32 + warp % ACROSS % EACH * width + 4 * g;
    auto load_words = [&](Tile& tile, int j) { load_if(ahead < to, tile.words[j], args.words + (column + u32(ahead * 16 + 4 * t) * WORDS_ROW) + j * WORDS_ROW); };
    auto load_rest = [&](Tile& tile) {
        load_if(ahead < to, tile.scales, args.scales + (column + u32(ahead) * SCALES_ROW));
        load_if(ahead < to, tile.zeros, reinterpret_cast<const u16*>(args.zeros) + (column / 4 + u32(ahead) * (2 * ZEROS_ROW)));
        ahead++;
    };
    auto load = [&](Tile& tile) {
#pragma unroll
        for (int j = 0; j < 4; j++) load_words(tile, j);
        load_rest(tile);
    };
    float total[PARTS][4] = {};  // row t, columns 4g to 4g + 3
    auto multiply = [&](Tile& tile, int unit) {  // and load the next in its place
        int sums[PARTS][2][4] = {};
#pragma unroll
        for (int b = 0; b < 2; b++) {
            uint4 x[PARTS];
#pragma unroll
            for (int p = 0; p < PARTS; p++) x[p] = inputs[unit * UNIT + b * SLOTS * 4 + p * 32 + lane];
#pragma unroll
            for (int j = 0; j < 4; j += 2) {
                const u32 one[4] = {tile.words[j].x, tile.words[j].y, tile.words[j].z, tile.words[j].w};
                const u32 two[4] = {tile.words[j + 1].x, tile.words[j + 1].y, tile.words[j + 1].z, tile.words[j + 1].w};
                u32 a[2][4];
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    a[h][0] = codes(one[2 * h], b), a[h][1] = codes(one[2 * h + 1], b);
                    a[h][2] = codes(two[2 * h], b), a[h][3] = codes(two[2 * h + 1], b);
                }
                if (b == 1) {
                    load_words(tile, j);
                    load_words(tile, j + 1);
                }
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int p = 0; p < PARTS; p++) multiply_bytes(sums[p][h], a[h][0], a[h][1], a[h][2], a[h][3], j ? x[p].z : x[p].x, j ? x[p].w : x[p].y);
            }
        }
        const uint2 scales = tile.scales;
        const float scale[4] = {low<SCALES_HALF>(scales.x), high<SCALES_HALF>(scales.x), low<SCALES_HALF>(scales.y), high<SCALES_HALF>(scales.y)};
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            const int2 measure = measures[unit * ROWS + 4 * p + t];
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const int upper = sums[p][c / 2][c % 2 * 2], lower = sums[p][c / 2][c % 2 * 2 + 1];
                const int sum = upper * 256 + lower - int(tile.zeros >> (4 * c) & 15) * measure.y;
                total[p][c] += scale[c] * __int_as_float(measure.x) * float(sum);
            }
        }
        load_rest(tile);
    };
    auto keep = [&](int strip) {  // a slice's sums of a strip, all its tiles done
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            *reinterpret_cast<float4*>(results + ((slice_now() * count + strip) * ROWS + 4 * p + t) * PITCH + 4 * g) = {total[p][0], total[p][1], total[p][2], total[p][3]};
#pragma unroll
            for (int c = 0; c < 4; c++) total[p][c] = 0.f;
        }
    };
    // Weights do not depend on the launch before: they are on their way while that ends.
    Tile flight[AHEAD] = {};
#pragma unroll
    for (int d = 0; d < AHEAD; d++) load(flight[d]);
    wait_for_predecessor();
    if (READY) {
        const u32 at = static_cast<u32>(__cvta_generic_to_shared(shared));
        const uint4* ready = reinterpret_cast<const uint4*>(args.x) + begin * UNIT;
        const uint4* measured = reinterpret_cast<const uint4*>(args.x) + units * UNIT + begin * (ROWS / 2);
        for (int i = threadIdx.x; i < mine * UNIT; i += THREADS) copy16(at + i * 16, ready + i);
        for (int i = threadIdx.x; i < mine * (ROWS / 2); i += THREADS) copy16(at + (mine * UNIT + i) * 16, measured + i);
        wait_for_copies();
    } else {
        // Eight threads a row and unit; what the next ones need is on its way.
        const int pieces = mine * ROWS * 8;
        Sixteen next;
        auto fetch = [&](int at) {
            if (at < pieces) next.load(args.x + i64(min(at / 8 % ROWS, args.rows - 1)) * args.inputs + (begin + at / 8 / ROWS) * 128, at % 8);
        };
        fetch(threadIdx.x);
        for (int base = 0; base < pieces; base += THREADS) {
            const Sixteen here = next;
            const int at = base + threadIdx.x, row = at / 8 % ROWS, unit = at / 8 / ROWS;
            fetch(at + THREADS);
            to_whole(here, at % 8, row, inputs + unit * UNIT, measures + unit * ROWS + row, at < pieces);
        }
    }
    __syncthreads();

    for (int strip = warp % ACROSS; strip < count; strip += ACROSS) {
        for (int unit = from_now(); unit < to; unit += AHEAD) {
            ahead = unit + AHEAD;
            if (!ONE && ahead >= to) {
                ahead = strip + ACROSS < count ? from_now() : to;
                column += ACROSS % EACH == 0 ? ACROSS / EACH * 32 : strip % 2 ? 32 - width : width;
            }
#pragma unroll
            for (int d = 0; d < AHEAD; d++) {
                if (d == 0 || unit + d < to) multiply(flight[d], unit + d - begin);
                else if (!ONE) load(flight[d]);
            }
        }
        keep(strip);
        if (ONE) break;
    }
    __syncthreads();

    const int fours = count / EACH * 8;
    // Four columns of a row of a strip, over slices.
    auto sum_of = [&](int strip, int row, int column) {
        float4 sum = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
        for (int k = 0; k < SLICES; k++) {
            const float4 more = *reinterpret_cast<const float4*>(results + ((k * count + strip) * ROWS + row) * PITCH + column);
            sum.x += more.x; sum.y += more.y; sum.z += more.z; sum.w += more.w;
        }
        return sum;
    };
    if (SPLITS > 1) {
        // A warp meets those of its number in the group's other blocks: the last of them to arrive
        // sums what all have of its columns, in the order of blocks.
        for (int at = threadIdx.x; at < args.rows * fours; at += THREADS) {
            const int row = at / fours, four = at % fours;
#pragma unroll
            for (int e = 0; e < EACH; e++)
                *reinterpret_cast<float4*>(args.partial + (i64(blockIdx.y) * args.rows + row) * args.outputs + first * 32 + four * 4 + e * width) = sum_of(four / 8 * EACH + e, row, four % 8 * 4);
        }
        __threadfence();
        __syncwarp();
        int* arrived = args.arrived + blockIdx.x * WARPS + warp;
        int before = 0;
        if (lane == 0) before = atomicAdd(arrived, 1);
        if (__shfl_sync(~0u, before, 0) != SPLITS - 1) return;
        if (lane == 0) *arrived = 0;
        __threadfence();
    }
    for (int at = threadIdx.x; at < args.rows * fours; at += THREADS) {
        const int row = at / fours, four = at % fours, strip = four / 8;
        float sum[EACH][4] = {};
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            const int stored = first * 32 + four * 4 + e * width;
#pragma unroll
            for (int k = 0; k < SPLITS; k++) {
                const float4 more = SPLITS == 1 ? sum_of(strip * EACH + e, row, four % 8 * 4)
                                                : load_from_others(args.partial + (i64(k) * args.rows + row) * args.outputs + stored);
                sum[e][0] += more.x; sum[e][1] += more.y; sum[e][2] += more.z; sum[e][3] += more.w;
            }
            if (args.bias) {
                const uint2 pairs = *reinterpret_cast<const uint2*>(args.bias + stored);
                sum[e][0] += low<HALF>(pairs.x); sum[e][1] += high<HALF>(pairs.x);
                sum[e][2] += low<HALF>(pairs.y); sum[e][3] += high<HALF>(pairs.y);
            }
        }
        if (GATED)
#pragma unroll
            for (int c = 0; c < 4; c++) sum[0][c] = gated(sum[0][c], sum[EACH - 1][c]);
        *reinterpret_cast<uint2*>(args.y + i64(row) * width + first * 32 + four * 4) = {pack_io(sum[0][0], sum[0][1]), pack_io(sum[0][2], sum[0][3])};
        if (MAKES) {  // a warp has a unit of a row
#pragma unroll
            for (int c = 0; c < 4; c++) sum[0][c] = rounded(sum[0][c]);
            uint4* made = reinterpret_cast<uint4*>(args.made);
            const int unit = (first + strip) / 4;
            to_whole<ROWS>(sum[0], lane, row, made + unit * UNIT, reinterpret_cast<int2*>(made + width / 128 * UNIT) + unit * ROWS + row);
        }
    }
}
