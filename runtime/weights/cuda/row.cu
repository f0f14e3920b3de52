// One or two rows of x times a packed matrix, or each row times its own expert: decode.
// docs/weights_runtime.md derives it; layout.py draws the words; kernels.py is the same in Triton.
//
// Compiled at run time by NVRTC, with these constants defined:
//   BITS    4 or 8                      GROUP   inputs that share a scale (4 bits: 32, 64, 128)
//   HALF    1: float16, 0: bfloat16     SCALES_HALF   1: scales are float16, 0: bfloat16
//   WARPS   warps a block               ROWS    rows of x a block takes: 1 or 2
//   LANES   lanes side by side on a row of words, 4 columns each: 4, 8 or 16
//   GATED   1: y = silu(gate) * up, 2: with tanh's GELU, of the matrix's halves; 0: as it is
//
// One block a multiprocessor takes strips of 4 * LANES columns with all of their inputs, so blocks
// share nothing. Its warps take turns at pieces of a strip: every lane has 8 rows of words of 4
// columns, half of what shares a scale at most. While a piece is computed the next one is on its
// way from memory, the first two even before the launch before this one has ended. A code is used as
// the fp32 whose bits it is, code * 2^(p - 149) at bit p, without a conversion; x carries the other
// power of two, once for all columns of a block.

#include "gate.cuh"

#define CODES (32 / BITS)                        // codes a word
#define PIECES (32 / LANES)                      // runs of 8 rows of words a warp has at a time
#define STRIP (4 * LANES)                        // columns of a strip
#define WIDTH (GATED ? STRIP / 2 : STRIP)        // of a strip in y
#define PARTS (BITS == 4 ? 128 / GROUP : 1)      // groups of inputs a run
#define SUMS (BITS == 4 ? PARTS : 2)             // sums of x a run: of each group; 8 bits: of each plane
#define MASK ((1u << BITS) - 1)
#define RUN (8 * CODES + 4)                      // floats of a run's inputs, padded: banks differ

struct Args {
    const u16* x;          // rows of inputs
    const u32* words;
    const u32* zeros;      // 4 bits only
    const u16* scales;
    const u16* bias;       // null: none
    u16* y;
    const i64* experts;    // null: one matrix for all rows
    i64 words_expert, zeros_expert, scales_expert, bias_expert;
    int rows, inputs, outputs, words_row, zeros_row, scales_row, x_every;
};

INLINE float power_of_two(int k) { return __int_as_float((127 + k) << 23); }

// The bit a code stands at, once words beyond bit 23 are moved down by 8.
INLINE constexpr int position(int i) { return (i + 1) * BITS > 24 ? i * BITS - 8 : i * BITS; }

// Words of one row of words times the inputs of every row of x, `x_step` floats apart.
INLINE void multiply_words(const uint4& four, const float* x, int x_step, float (&sums)[ROWS][PARTS][4]) {
    const u32 words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int i = 0; i < CODES; i += 4) {
        float scaled[ROWS][4];
#pragma unroll
        for (int m = 0; m < ROWS; m++)
            *reinterpret_cast<float4*>(scaled[m]) = *reinterpret_cast<const float4*>(x + m * x_step + i);
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int k = i; k < i + 4; k++) {
                const u32 word = (k + 1) * BITS > 24 ? words[j] >> 8 : words[j];
                const float code = __uint_as_float(word & (MASK << position(k)));
#pragma unroll
                for (int m = 0; m < ROWS; m++) sums[m][k * PARTS / CODES][j] += scaled[m][k - i] * code;
            }
    }
}

struct Piece {             // what a lane has of a piece
    uint4 words[8];
    uint2 scales;
    u32 zeros;
};

extern __shared__ float4 shared[];

extern "C" __global__ void __launch_bounds__(32 * WARPS, 16 / WARPS) row(const Args args) {
    let_successor_begin();
    if (args.experts) wait_for_predecessor();  // which chose them
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = blockIdx.y * ROWS;
    const int width = GATED ? args.outputs / 2 : args.outputs;  // of y
    const int word_rows = args.inputs / CODES, runs = (word_rows + 7) / 8, pieces = (runs + PIECES - 1) / PIECES;
    const int strips = (width + WIDTH - 1) / WIDTH;
    const int first = i64(strips) * blockIdx.x / gridDim.x, own = int(i64(strips) * (blockIdx.x + 1) / gridDim.x) - first;
    const i64 expert = args.experts ? args.experts[row] : 0;
    const u32* words = args.words + expert * args.words_expert;
    const u32* zeros = args.zeros + expert * args.zeros_expert;
    const u16* scales = args.scales + expert * args.scales_expert;
    // In shared memory: inputs by run, their sums, then every warp's sums of every strip.
    float* inputs = reinterpret_cast<float*>(shared);
    float* inputs_sums = inputs + ROWS * runs * RUN;
    float* results = inputs_sums + (ROWS * runs * SUMS + 3) / 4 * 4;

    // Column c of a strip; past the last the first, of which nothing is stored.
    auto place = [&](int strip, int c) {
        const int inner = strip * WIDTH + c % WIDTH;
        return inner < width ? inner + c / WIDTH * width : 0;
    };
    auto load = [&](Piece& to, int strip, int piece) {
        const int run = piece * PIECES + lane / LANES, column = place(first + strip, lane % LANES * 4);
        const u32* from = words + i64(run) * 8 * args.words_row + column;
        const bool whole = run * 8 + 8 <= word_rows, some = run < runs;  // rows come by four
#pragma unroll
        for (int r = 0; r < 8; r++) {
            to.words[r] = uint4{0, 0, 0, 0};
            if (r < 4 ? some : whole) to.words[r] = load_once(from);
            from += args.words_row;
        }
        if (BITS == 4 && PARTS == 1) {
            const i64 group = min(run, runs - 1) / 2;
            to.scales = *reinterpret_cast<const uint2*>(scales + group * args.scales_row + column);
            to.zeros = zeros[group * args.zeros_row + column / 8] >> (column % 8 * 4);
        }
    };
    float total[ROWS][4] = {};
    auto compute = [&](const Piece& piece, int strip, int at) {
        const int run = at * PIECES + lane / LANES, safe = min(run, runs - 1);
        float sums[ROWS][PARTS][4] = {};
#pragma unroll
        for (int r = 0; r < 8; r++) multiply_words(piece.words[r], inputs + safe * RUN + r * CODES, runs * RUN, sums);
        if (run >= runs) return;
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            uint2 pair = piece.scales;
            u32 zero = piece.zeros;
            if (BITS == 4 && PARTS > 1) {
                const int column = place(first + strip, lane % LANES * 4);
                const i64 group = i64(run / 2) * PARTS + p;
                pair = *reinterpret_cast<const uint2*>(scales + group * args.scales_row + column);
                zero = zeros[group * args.zeros_row + column / 8] >> (column % 8 * 4);
            }
            const float scale[4] = {low<SCALES_HALF>(pair.x), high<SCALES_HALF>(pair.x), low<SCALES_HALF>(pair.y), high<SCALES_HALF>(pair.y)};
#pragma unroll
            for (int m = 0; m < ROWS; m++) {
                const float* of_x = inputs_sums + (m * runs + run) * SUMS;
                const float sum = BITS == 4 ? of_x[p] : of_x[0] + of_x[SUMS - 1];
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const float codes = sums[m][p][j] * power_of_two(80);
                    // a byte is code + 128
                    total[m][j] += BITS == 4 ? scale[j] * (codes - float((zero >> (4 * j)) & 15) * sum) : codes - 128.f * sum;
                }
            }
        }
    };
    // A warp's sums of a strip, all its pieces done.
    auto keep = [&](int strip) {
#pragma unroll
        for (int m = 0; m < ROWS; m++) {
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int mask = LANES; mask < 32; mask *= 2) total[m][j] += __shfl_xor_sync(~0u, total[m][j], mask);
            if (lane < LANES)
                reinterpret_cast<float4*>(results)[((strip * ROWS + m) * WARPS + warp) * LANES + lane] = {total[m][0], total[m][1], total[m][2], total[m][3]};
#pragma unroll
            for (int j = 0; j < 4; j++) total[m][j] = 0.f;
        }
    };
    struct Place {
        int strip, piece;
    };
    auto after = [&](Place at) {
        at.piece += WARPS;
        while (at.piece >= pieces && at.strip < own) {
            at.piece -= pieces;
            at.strip++;
        }
        return at;
    };

    Piece one, two;
    Place here = after({0, warp - WARPS}), next = after(here);
    if (here.strip < own) load(one, here.strip, here.piece);
    if (next.strip < own) load(two, next.strip, next.piece);
    if (pieces < WARPS)  // some warps have no piece of some strips
        for (int i = threadIdx.x; i < own * ROWS * WARPS * STRIP; i += 32 * WARPS) results[i] = 0.f;
    wait_for_predecessor();  // weights do not depend on it, x does

    // x by run: what a lane multiplies with a row of words lies together, each input with its power.
    const int chunks = BITS == 4 ? args.inputs / 8 : 2 * runs * 2;  // of 8 inputs, 4 rows of words in a plane
#pragma unroll
    for (int m = 0; m < ROWS; m++) {
        const int from = ROWS == 1 ? row / args.x_every : min(row + m, args.rows - 1);
        const u16* x = args.x + i64(from) * args.inputs;
        for (int base = 0; base < chunks; base += 32 * WARPS) {
            const int chunk = base + threadIdx.x;
            const int plane = BITS == 4 ? chunk / 4 % 4 : chunk / (2 * runs);
            const int at = BITS == 4 ? chunk : chunk - plane * 2 * runs;            // of its plane, 8 bits
            const int run = BITS == 4 ? chunk / 16 * 2 + chunk % 4 / 2 : at / 2, half = chunk % 2;
            const bool exists = chunk < chunks && (BITS == 4 || at * 4 < word_rows);
            uint4 raw = {0, 0, 0, 0};
            if (exists) raw = *reinterpret_cast<const uint4*>(x + (BITS == 4 ? chunk * 8 : plane * (args.inputs / 2) + at * 8));
            const u32 pairs[4] = {raw.x, raw.y, raw.z, raw.w};
            // Codes 2 plane and 2 plane + 1: their distance from 2^69 is uniform but for the last pair's.
            const int bit = 2 * plane * BITS - (plane == CODES / 2 - 1 ? 8 : 0);
            float even = power_of_two(69 - bit), odd = power_of_two(69 - bit - BITS), sum = 0.f;
            // 8 bits: of the last pair (bytes 2 and 3) only byte 3 was moved.
            if (BITS == 8 && plane == 1) even = odd = power_of_two(69 - 16);
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const float a = low<HALF>(pairs[r]), b = high<HALF>(pairs[r]);
                sum += a + b;
                if (chunk < chunks)
                    *reinterpret_cast<float2*>(inputs + (m * runs + run) * RUN + (half * 4 + r) * CODES + 2 * plane) = {a * even, b * odd};
            }
            sum += __shfl_xor_sync(~0u, sum, 1);
            if (BITS == 4)
#pragma unroll
                for (int mask = 4; mask < 16 / PARTS; mask *= 2) sum += __shfl_xor_sync(~0u, sum, mask);
            const bool leads = half == 0 && (BITS == 8 || plane % (4 / PARTS) == 0);
            if (leads && chunk < chunks) inputs_sums[(m * runs + run) * SUMS + (BITS == 4 ? plane / (4 / PARTS) : plane)] = sum;
        }
    }
    __syncthreads();

    // The pieces in turn, two in flight.
    while (here.strip < own) {
        compute(one, here.strip, here.piece);
        if (next.strip > here.strip) keep(here.strip);
        here = after(next);
        if (here.strip < own) load(one, here.strip, here.piece);
        if (next.strip >= own) break;
        compute(two, next.strip, next.piece);
        if (here.strip > next.strip) keep(next.strip);
        next = after(here);
        if (next.strip < own) load(two, next.strip, next.piece);
    }
    __syncthreads();

    // Sums of the warps, in their order.
    for (int i = threadIdx.x; i < own * ROWS * WIDTH; i += 32 * WARPS) {
        const int strip = i / (ROWS * WIDTH), m = i / WIDTH % ROWS, c = i % WIDTH;
        const int stored = (first + strip) * WIDTH + c;
        if (stored >= width || row + m >= args.rows) continue;
        float value[GATED ? 2 : 1] = {};
#pragma unroll
        for (int h = 0; h < (GATED ? 2 : 1); h++) {
#pragma unroll
            for (int w = 0; w < WARPS; w++) value[h] += results[((strip * ROWS + m) * WARPS + w) * STRIP + h * WIDTH + c];
            const int column = stored + h * width;
            if (BITS == 8) value[h] *= low<SCALES_HALF>(scales[column]);
            if (args.bias) value[h] += low<HALF>((args.bias + expert * args.bias_expert)[column]);
        }
        const float y = GATED ? gated(value[0], value[GATED ? 1 : 0]) : value[0];
        args.y[i64(row + m) * width + stored] = pack_io(y, y);
    }
}
