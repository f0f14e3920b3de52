// Up to sixty-four rows of x times a packed matrix on the tensor cores, what it reads on a ring.
// docs/weights_runtime.md derives it; layout.py draws the words; kernels_tile.py is the same in Triton.
//
// Compiled at run time by NVRTC (no headers), with these constants defined:
//   BITS    4 or 8                      GROUP   inputs that share a scale (4 bits: 32, 64, 128)
//   HALF    1: float16, 0: bfloat16     SCALES_HALF   1: scales are float16, 0: bfloat16
//   GATED   1: y = silu(gate) * up, 2: with tanh's GELU, of the matrix's halves; 0: as it is
//   TILES   tiles of 8 rows of x a warp takes, 1 to 4
//   BANDS   bands of rows a block takes, each by its own warps: 1 or 2
//   STRIPS  strips of 32 columns a block takes
//   SLICES  units of inputs that it takes at a time, each by its own warps
//   STAGES  steps in its ring           BLOCKS  blocks that shall fit a multiprocessor
//
// A warp takes 32 columns and a unit of 16 rows of words at a time. Thread (g, t) of 8 x 4 takes the
// words of columns 4g to 4g + 3 in rows 4t to 4t + 3: whole lines of memory, and just the operands
// that m16n8k16 wants of it, since a sum does not care about the order of its inputs. The inputs of
// those words lie side by side in x, 16 bytes a plane. Words, scales and x are copied ahead into a
// ring in shared memory. The blocks share all steps of all columns evenly, so a block may end one
// column block and begin the next; a column block that several blocks share is summed by the last
// of them to arrive, in a fixed order: its parts lie as [grid.y][grid.x][2][ROWS][COLUMNS], arrivals as
// [grid.y][column blocks]. Where halves gate each other, a strip is 16 columns of each.

#include "gate.cuh"
#include "few_rows.cuh"
#include "operands.cuh"

#define RINGS (STRIPS * SLICES)               // of words and scales, each of BANDS warps
#define WARPS (RINGS * BANDS)
#define PLANES (16 / BITS)                    // pairs of inputs a word
#define PARTS (BITS == 4 ? 128 / GROUP : 1)   // groups a unit
#define ROWS (8 * TILES * BANDS)
#define PITCH (PLANES * 64 + 64)              // bytes of a row of x in shared memory: no bank twice
#define PAIRS (BITS == 4 ? PARTS * 80 : 0)    // bytes of scales and zeros of a warp
#define WORDS_AT 0
#define PAIRS_AT (RINGS * 2048)
#define X_AT (PAIRS_AT + RINGS * PAIRS)
#define STAGE (X_AT + SLICES * ROWS * PITCH)
#define COLUMNS (32 * STRIPS)
#define CHUNKS (4 * PLANES)                   // of 16 bytes, in a unit's row of x
#define LINES (SLICES * ROWS)                 // rows of x a step
#define AT_ONCE (32 * WARPS / CHUNKS)         // of them that the threads copy at a time
static_assert(AT_ONCE % ROWS == 0 || ROWS % AT_ONCE == 0, "warps are a power of two");
#define WIDTH (GATED ? 16 : 32)               // of a strip in y

template <int BYTES> INLINE void copy(u32 to, const void* from, bool exists) {  // zeros where it does not exist
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(exists ? 16 : 0) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(BYTES), "r"(exists ? BYTES : 0) : "memory");
}
INLINE void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Codes 2p and 2p + 1 of a word as a pair of whole numbers; `zero` is their zero point + WHOLE.
INLINE u32 operand(u32 word, int p, u32 zero) {
    if (BITS == 4) return whole4(word, p, zero);
    u32 pair;
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(pair) : "r"(word), "r"(p ? 0x4342 : 0x4140));
    if (HALF) return minus(pair | WHOLE, 0x64806480u);  // 1024 + byte - 1152
    // A byte has a bit too many for bfloat16's 128 + code: its highest bit goes to the other side.
    return minus(masked(pair, 0x007f007fu), masked(~pair, 0x00800080u));
}

extern __shared__ u8 stages[];

extern "C" __global__ void __launch_bounds__(32 * WARPS, BLOCKS) ring(const Args args) {
    __shared__ int last_block;
    let_successor_begin();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int strip = warp % STRIPS, slice = warp / STRIPS % SLICES, own = warp % RINGS;
    const int band = warp / RINGS, top = blockIdx.y * ROWS, own_top = band * 8 * TILES;
    const int word_rows = args.inputs * BITS / 32, units = (word_rows + 15) / 16;
    const int width = GATED ? args.outputs / 2 : args.outputs;  // of y
    const int steps = (units + SLICES - 1) / SLICES, blocks = (width + WIDTH * STRIPS - 1) / (WIDTH * STRIPS);
    const int all = steps * blocks, share = (all + gridDim.x - 1) / gridDim.x;
    const int begin = min(all, int(blockIdx.x) * share), end = min(all, begin + share);
    const u32 shared = static_cast<u32>(__cvta_generic_to_shared(stages));

    // Column c of 32 of a strip; past the last the first, of which nothing is stored.
    auto place = [&](int block, int c) {
        const int inner = (block * STRIPS + strip) * WIDTH + c % WIDTH;
        return inner < width ? inner + c / WIDTH * width : 0;
    };
    // Where a thread's next words, scales and zeros come from.
    const u32* words_at = nullptr;
    const u16* scales_at = nullptr;
    const u32* zeros_at = nullptr;
    const int part = lane / 8, eighth = lane % 8;  // of a strip's scales
    auto seek = [&](int block, int step) {
        const i64 unit = step * SLICES + slice;
        words_at = args.words + (unit * 16 + 4 * t) * args.words_row + place(block, 4 * g);
        if (BITS == 4) {
            scales_at = args.scales + (unit * PARTS + part) * args.scales_row + place(block, 4 * eighth);
            zeros_at = args.zeros + (unit * PARTS + part) * args.zeros_row + place(block, 8 * eighth) / 8;
        }
    };
    auto copy_weights = [&](int stage, int step) {
        const int unit = step * SLICES + slice;
        const u32 to = shared + stage * STAGE + own * 2048 + lane * 16;
        if (unit < units) {
            const bool exists = BITS == 4 || unit * 16 + 4 * t < word_rows;  // rows come by four
            const u32* from = words_at + band * (4 / BANDS) * args.words_row;
#pragma unroll
            for (int i = 0; i < 4 / BANDS; i++) {
                copy<16>(to + (band * (4 / BANDS) + i) * 512, exists ? from : args.words, exists);
                from += args.words_row;
            }
            if (BITS == 4 && band == 0 && part < PARTS) {
                const u32 pairs = shared + stage * STAGE + PAIRS_AT + own * PAIRS + part * 80;
                copy<8>(pairs + eighth * 8, scales_at, true);
                if (eighth < 4) copy<4>(pairs + 64 + eighth * 4, zeros_at, true);
            }
        }
        words_at += SLICES * 16 * args.words_row;
        if (BITS == 4) {
            scales_at += SLICES * PARTS * args.scales_row;
            zeros_at += SLICES * PARTS * args.zeros_row;
        }
    };
    // A thread's chunks of 16 bytes are of one column of chunks, `AT_ONCE` lines apart: rows, then
    // slices. Rows that do not exist are left as they are: a row of x only reaches its own row of y.
    const int chunk = threadIdx.x % CHUNKS, line = threadIdx.x / CHUNKS;
    const u16* x_at = args.x + i64(top + line % ROWS) * args.inputs
        + (BITS == 4 ? line / ROWS * 128 + chunk * 8 : chunk / 4 * (args.inputs / 2) + line / ROWS * 32 + chunk % 4 * 8);
    auto copy_x = [&](int stage, int step) {
        const u32 to = shared + stage * STAGE + X_AT + line * PITCH + chunk * 16;
        const u16* from = x_at + step * (SLICES * (BITS == 4 ? 128 : 32));
#pragma unroll
        for (int i = 0; i < LINES; i += AT_ONCE) {
            const int unit = step * SLICES + line / ROWS + i / ROWS;
            if ((LINES < AT_ONCE && line >= LINES) || top + line % ROWS + i % ROWS >= args.rows || (SLICES > 1 && unit >= units)) continue;
            const bool exists = BITS == 4 || unit * 16 + chunk % 4 * 4 < word_rows;
            const u16* here = from + i % ROWS * args.inputs + i / ROWS * (BITS == 4 ? 128 : 32);
            copy<16>(to + i * PITCH, exists ? here : args.x, exists);
        }
    };

    float total[TILES][2][4];
    auto clear = [&]() {
#pragma unroll
        for (int n = 0; n < TILES; n++)
#pragma unroll
            for (int i = 0; i < 8; i++) total[n][i / 4][i % 4] = 0.f;
    };
    auto multiply = [&](const u8* stage) {
        uint4 words[4];
#pragma unroll
        for (int j = 0; j < 4; j++) words[j] = reinterpret_cast<const uint4*>(stage + own * 2048 + j * 512)[lane];
        const u8* pairs = stage + PAIRS_AT + own * PAIRS;
        const u8* x = stage + X_AT + (slice * ROWS + own_top + g) * PITCH + t * 16;
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            u32 zero[4] = {};
            float scale[4] = {};
            if (BITS == 4) {
                const uint2 scales = reinterpret_cast<const uint2*>(pairs + p * 80)[g];
                const u32 packed = reinterpret_cast<const u32*>(pairs + p * 80 + 64)[g / 2] >> (g % 2 * 16);
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    const u32 code = packed >> (4 * c) & 15;
                    zero[c] = (code | code << 16) + WHOLE;
                }
                scale[0] = low<SCALES_HALF>(scales.x); scale[1] = high<SCALES_HALF>(scales.x);
                scale[2] = low<SCALES_HALF>(scales.y); scale[3] = high<SCALES_HALF>(scales.y);
            }
            float sums[TILES][2][4] = {};
#pragma unroll
            for (int plane = p * (PLANES / PARTS); plane < (p + 1) * (PLANES / PARTS); plane++) {
                u32 a[2][2][4];
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const u32 one[4] = {words[2 * j].x, words[2 * j].y, words[2 * j].z, words[2 * j].w};
                    const u32 two[4] = {words[2 * j + 1].x, words[2 * j + 1].y, words[2 * j + 1].z, words[2 * j + 1].w};
#pragma unroll
                    for (int h = 0; h < 2; h++)
#pragma unroll
                        for (int c = 0; c < 2; c++) {
                            a[j][h][c] = operand(one[2 * h + c], plane, zero[2 * h + c]);
                            a[j][h][2 + c] = operand(two[2 * h + c], plane, zero[2 * h + c]);
                        }
                }
#pragma unroll
                for (int n = 0; n < TILES; n++) {
                    const uint4 inputs = *reinterpret_cast<const uint4*>(x + n * 8 * PITCH + plane * 64);
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        float(&sum)[4] = BITS == 4 ? sums[n][h] : total[n][h];
                        mma(sum, a[0][h][0], a[0][h][1], a[0][h][2], a[0][h][3], inputs.x, inputs.y);
                        mma(sum, a[1][h][0], a[1][h][1], a[1][h][2], a[1][h][3], inputs.z, inputs.w);
                    }
                }
            }
            if (BITS == 4)
#pragma unroll
                for (int n = 0; n < TILES; n++)
#pragma unroll
                    for (int i = 0; i < 8; i++) total[n][i / 4][i % 4] += scale[i / 2] * sums[n][i / 4][i % 4];
        }
    };
    // Sum of the slices, in the warps of slice 0.
    auto gather = [&]() {
        if (SLICES == 1) return;
        float* sums = reinterpret_cast<float*>(stages + STAGES * STAGE);
        if (slice > 0)
#pragma unroll
            for (int n = 0; n < TILES; n++)
#pragma unroll
                for (int i = 0; i < 8; i++) sums[(((slice - 1) * BANDS + band) * STRIPS + strip) * TILES * 256 + (n * 8 + i) * 32 + lane] = total[n][i / 4][i % 4];
        __syncthreads();
        if (slice > 0) return;
#pragma unroll
        for (int s = 0; s < SLICES - 1; s++)
#pragma unroll
            for (int n = 0; n < TILES; n++)
#pragma unroll
                for (int i = 0; i < 8; i++) total[n][i / 4][i % 4] += sums[((s * BANDS + band) * STRIPS + strip) * TILES * 256 + (n * 8 + i) * 32 + lane];
    };
    // What this block has of a column block: to y, or to the others that have some.
    auto finish = [&](int block) {
        gather();
        const int from = block * steps, first = from / share, last = (from + steps - 1) / share;
        const int column = place(block, 4 * g), inner = strip * 32 + 4 * g;
        const int stored = (block * STRIPS + strip) * WIDTH + 4 * g % WIDTH;
        float* partial = args.partial + i64(blockIdx.y) * gridDim.x * 2 * ROWS * COLUMNS;
        if (first < last) {
            float* mine = partial + (i64(blockIdx.x) * 2 + (begin < from)) * ROWS * COLUMNS;
            if (slice == 0)
#pragma unroll
                for (int n = 0; n < TILES; n++)
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        if (top + own_top + 8 * n + 2 * t + i < args.rows)
                            *reinterpret_cast<float4*>(mine + (own_top + 8 * n + 2 * t + i) * COLUMNS + inner) =
                                {total[n][0][i], total[n][0][2 + i], total[n][1][i], total[n][1][2 + i]};
            __threadfence();
            __syncthreads();
            int* counter = args.arrived + blockIdx.y * blocks + block;
            if (threadIdx.x == 0) last_block = atomicAdd(counter, 1) == last - first;
            __syncthreads();
            if (!last_block) return;
            __threadfence();
            if (threadIdx.x == 0) *counter = 0;
        }
        if (slice > 0) return;
        float scale[4], bias[4] = {};
        if (BITS == 8) {
            const uint2 scales = *reinterpret_cast<const uint2*>(args.scales + column);
            scale[0] = low<SCALES_HALF>(scales.x); scale[1] = high<SCALES_HALF>(scales.x);
            scale[2] = low<SCALES_HALF>(scales.y); scale[3] = high<SCALES_HALF>(scales.y);
        }
        if (args.bias) {
            const uint2 pairs = *reinterpret_cast<const uint2*>(args.bias + column);
            bias[0] = low<HALF>(pairs.x); bias[1] = high<HALF>(pairs.x);
            bias[2] = low<HALF>(pairs.y); bias[3] = high<HALF>(pairs.y);
        }
#pragma unroll
        for (int n = 0; n < TILES; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int row = own_top + 8 * n + 2 * t + i;
                float sum[4] = {total[n][0][i], total[n][0][2 + i], total[n][1][i], total[n][1][2 + i]};
                const bool exists = top + row < args.rows;
                if (first < last && exists) {
                    float4 parts = {0.f, 0.f, 0.f, 0.f};
                    for (int b = first; b <= last; b++) {  // the first may have begun with another column block
                        const int slot = 2 * b + (b == first && first * share < from);
                        const float4 part = load_from_others(partial + i64(slot) * ROWS * COLUMNS + row * COLUMNS + inner);
                        parts.x += part.x; parts.y += part.y; parts.z += part.z; parts.w += part.w;
                    }
                    sum[0] = parts.x; sum[1] = parts.y; sum[2] = parts.z; sum[3] = parts.w;
                }
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    sum[c] = (BITS == 8 ? sum[c] * scale[c] : sum[c]) + bias[c];
                    if (GATED) sum[c] = gated(sum[c], __shfl_down_sync(~0u, sum[c], 16));
                }
                if (exists && stored < width && (!GATED || g < 4))
                    *reinterpret_cast<uint2*>(args.y + i64(top + row) * width + stored) = {pack_io(sum[0], sum[1]), pack_io(sum[2], sum[3])};
            }
    };

    // Weights do not depend on the launch before: they are on their way while that ends.
    int ahead = begin, ahead_block = begin / steps, ahead_step = begin % steps;
    seek(ahead_block, ahead_step);
    auto next = [&]() {
        ahead++;
        if (++ahead_step == steps) {
            ahead_step = 0;
            seek(++ahead_block, 0);
        }
    };
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++)
        if (ahead < end) {
            copy_weights(s, ahead_step);
            next();
        }
    wait_for_predecessor();
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (begin + s < end) copy_x(s, (begin + s) % steps);
        commit();
    }
    clear();
    int block = begin / steps, step = begin % steps, stage = 0;
    for (int at = begin; at < end; at++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
        __syncthreads();
        if (ahead < end) {
            const int to = stage == 0 ? STAGES - 1 : stage - 1;
            copy_x(to, ahead_step);
            copy_weights(to, ahead_step);
            next();
        }
        commit();
        if (SLICES == 1 || step * SLICES + slice < units) multiply(stages + stage * STAGE);
        stage = stage == STAGES - 1 ? 0 : stage + 1;
        if (++step == steps || at + 1 == end) {
            finish(block);
            clear();
            step = 0;
            block++;
        }
    }
}
