// Nine to sixty-four rows of x times a 4-bit matrix with groups of 128, by warpgroups (wgmma).
// docs/weights_runtime.md derives it; layout.py draws the words; kernels_tile.py is the same in Triton.
//
// Compiled at run time by NVRTC for sm_90a (no headers), with these constants defined:
//   HALF    1: float16, 0: bfloat16     SCALES_HALF   1: scales are float16, 0: bfloat16
//   ROWS    rows of x, padded: 16, 32 or 64
//   GATED   1: y = silu(gate) * up, 2: with tanh's GELU, of the matrix's halves; 0: as it is
//   SPLITS  blocks of a cluster, which share the inputs of 256 columns: 1 to 8
//   STAGES  units of 128 inputs in shared memory, 5 at least
//   BLOCKS  blocks that a multiprocessor holds
//
// Two warpgroups take 128 columns each, their warps 32: two tiles of the 64 rows of a wgmma. The
// matrix is its A operand, dequantized to whole numbers in registers; x is B, swizzled in shared
// memory. Sums of a unit are scaled once a unit. While one tile's product runs, codes of the other
// become operands. Warpgroups may be a unit apart: a barrier a unit in shared memory says that all of
// it is there. A cluster's blocks add up their sums in each other's shared memory.

#include "few_rows.cuh"
#include "gate.cuh"
#include "operands.cuh"
#include "warpgroup.cuh"

#define THREADS 256
#define COLUMNS 256                              // of a block
#define WIDTH (GATED ? COLUMNS / 2 : COLUMNS)    // of them in y
#define PITCH (4 * COLUMNS + 32)                 // bytes of a row of words: no bank twice
#define X_HALF (ROWS * 128)                      // bytes of 64 inputs of x
#define X_STAGE (2 * X_HALF)
#define SCALES_AT (16 * PITCH)
#define ZEROS_AT (SCALES_AT + 2 * COLUMNS)
#define W_STAGE (ZEROS_AT + COLUMNS / 2)
#define LEAD (STAGES - 2)                        // units on their way
#define SUMS_PITCH (COLUMNS + 4)                 // floats of a row of a block's sums

extern __shared__ __align__(1024) u8 shared[];

INLINE void copy16(u32 to, const void* from) { asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory"); }
INLINE void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

extern "C" __global__ void CLUSTER __launch_bounds__(THREADS, BLOCKS) wide(const Args args) {
    let_successor_begin();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int width = GATED ? args.outputs / 2 : args.outputs;  // of y
    const int units = args.inputs / 128, split = blockIdx.y;
    const int first = units * split / SPLITS, own = units * (split + 1) / SPLITS - first;
    u8* weights = shared + STAGES * X_STAGE;
    const u32 x_at = static_cast<u32>(__cvta_generic_to_shared(shared)), weights_at = x_at + STAGES * X_STAGE;

    // Column c of a block in the matrix: gated, 128 of the gate and the same of up. Past the last
    // the first, of which nothing is stored.
    auto place = [&](int c) {
        const int inner = blockIdx.x * WIDTH + c % WIDTH;
        return inner < width ? inner + c / WIDTH * width : 0;
    };
    const int chunk = threadIdx.x % 64, row_of_words = threadIdx.x / 64;
    const u32* words_from = args.words + i64(first * 16 + row_of_words) * args.words_row + place(4 * chunk);
    const u16* scales_from = args.scales + i64(first) * args.scales_row + place(threadIdx.x % 32 * 8);
    const u32* zeros_from = args.zeros + i64(first) * args.zeros_row + place(threadIdx.x % 8 * 32) / 8;
    auto copy_weights = [&](int stage, int unit) {  // of this block's
        const u32 to = weights_at + stage * W_STAGE;
        const u32* from = words_from + i64(unit) * 16 * args.words_row;
#pragma unroll
        for (int i = 0; i < 4; i++) copy16(to + (row_of_words + 4 * i) * PITCH + chunk * 16, from + i64(4 * i) * args.words_row);
        if (threadIdx.x < 32) copy16(to + SCALES_AT + threadIdx.x * 16, scales_from + i64(unit) * args.scales_row);
        else if (threadIdx.x < 40) copy16(to + ZEROS_AT + (threadIdx.x - 32) * 16, zeros_from + i64(unit) * args.zeros_row);
    };
    const int part = threadIdx.x % 16, line = threadIdx.x / 16;  // 16 bytes of a row of x
    const u16* x_from = args.x + i64(line) * args.inputs + first * 128 + part * 8;
    const u32 x_to = x_at + part / 8 * X_HALF + line * 128 + ((part ^ line) % 8) * 16;
    auto copy_x = [&](int stage, int unit) {
#pragma unroll
        for (int i = 0; i < ROWS / 16; i++)
            if (line + 16 * i < args.rows) copy16(x_to + stage * X_STAGE + i * 2048, x_from + i64(16 * i) * args.inputs + unit * 128);
    };

    __shared__ unsigned long long full[STAGES];
    const u32 full_at = static_cast<u32>(__cvta_generic_to_shared(full));
    if (threadIdx.x < STAGES) asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(full_at + threadIdx.x * 8), "n"(THREADS) : "memory");
    __syncthreads();
    // Weights do not depend on the launch before: they are on their way while that ends.
#pragma unroll
    for (int s = 0; s < LEAD; s++)
        if (s < own) copy_weights(s, s);
    wait_for_predecessor();
#pragma unroll
    for (int s = 0; s < LEAD; s++) {
        if (s < own) copy_x(s, s);
        commit();
    }

    float total[2][ROWS / 2], sums[2][ROWS / 2], scale[2][2];
#pragma unroll
    for (int i = 0; i < ROWS; i++) total[i % 2][i / 2] = 0.f;
    // A tile's codes of a unit as operands, and its scales. Rows g and g + 8 of a tile are columns
    // side by side; gated, tile 0 is the gate.
    auto open = [&](const u8* from, int tile, u32 (&a)[8][4]) {
        const int column = GATED ? tile * 128 + warp * 16 + 2 * g : warp * 32 + tile * 16 + 2 * g;
        const u32 packed = reinterpret_cast<const u32*>(from + ZEROS_AT)[column / 8] >> (column % 8 * 4);
        const u32 zeros[2] = {(packed & 15) * 0x10001 + WHOLE, (packed >> 4 & 15) * 0x10001 + WHOLE};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const uint2 two = *reinterpret_cast<const uint2*>(from + (t + 4 * j) * PITCH + column * 4);
#pragma unroll
            for (int plane = 0; plane < 4; plane++) {  // inputs 32 plane + 2 (t + 4 j), and the next
                a[2 * plane + j / 2][j % 2 * 2] = whole4(two.x, plane, zeros[0]);
                a[2 * plane + j / 2][j % 2 * 2 + 1] = whole4(two.y, plane, zeros[1]);
            }
        }
        const u32 pair = reinterpret_cast<const u32*>(from + SCALES_AT)[column / 2];
        scale[tile][0] = low<SCALES_HALF>(pair);
        scale[tile][1] = high<SCALES_HALF>(pair);
    };
    auto multiply = [&](u32 x, int tile, const u32 (&a)[8][4]) {
        held(sums[tile]);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < 8; k++) product(sums[tile], a[k], x + (k / 4 * X_HALF + k % 4 * 32) / 16, k > 0);
        wgmma_commit();
    };
    auto settle = [&](int tile) {
        held(sums[tile]);
#pragma unroll
        for (int i = 0; i < ROWS / 2; i++) total[tile][i] += scale[tile][i / 2 % 2] * sums[tile][i];
    };
    u32 a[2][8][4];
    // What this thread copied of `unit` is there: wgmma may read it.
    auto arrive = [&](int unit) {
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(full_at + unit % STAGES * 8) : "memory");
    };
    auto meet = [&](int unit) {
        asm volatile("{.reg .pred p; again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @p bra done; bra again; done:}"
                     ::"r"(full_at + unit % STAGES * 8), "r"(unit / STAGES & 1) : "memory");
    };
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 3) : "memory");
    arrive(0);
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 4) : "memory");
    arrive(1);
    meet(0);
    __syncwarp();
    open(weights, 0, a[0]);
    int stage = 0;
    for (int unit = 0; unit < own; unit++) {
        const u32 x = descriptor(x_at + stage * X_STAGE);
        multiply(x, 0, a[0]);
        open(weights + stage * W_STAGE, 1, a[1]);
        multiply(x, 1, a[1]);
        wgmma_wait<1>();
        settle(0);
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 5) : "memory");
        arrive(unit + 2);
        meet(unit + 1);
        __syncwarp();  // so nobody reads the unit two before this any more
        if (unit + LEAD < own) {
            const int to = (unit + LEAD) % STAGES;
            copy_weights(to, unit + LEAD);
            copy_x(to, unit + LEAD);
        }
        commit();
        stage = stage == STAGES - 1 ? 0 : stage + 1;
        open(weights + stage * W_STAGE, 0, a[0]);
        wgmma_wait<0>();
        settle(1);
    }

    // Two sums of a row and two of the other tile: columns 16 further on, or up's.
    constexpr int other = 16;
    auto store = [&](int row, int four, float4 sum) {
        if (row >= args.rows) return;
        const int stored = blockIdx.x * WIDTH + (GATED ? four * 2 : four / 8 * 32 + four % 8 * 2);
        if (stored >= width) return;
        if (args.bias) {
            const u32 one = *reinterpret_cast<const u32*>(args.bias + stored);
            const u32 two = *reinterpret_cast<const u32*>(args.bias + stored + (GATED ? width : other));
            sum.x += low<HALF>(one); sum.y += high<HALF>(one);
            sum.z += low<HALF>(two); sum.w += high<HALF>(two);
        }
        u32* to = reinterpret_cast<u32*>(args.y + i64(row) * width + stored);
        if (GATED) to[0] = pack_io(gated(sum.x, sum.z), gated(sum.y, sum.w));
        else {
            to[0] = pack_io(sum.x, sum.y);
            to[other / 2] = pack_io(sum.z, sum.w);
        }
    };
    if (SPLITS > 1) {
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        __syncthreads();
    }
    float* all = reinterpret_cast<float*>(shared);
#pragma unroll
    for (int n = 0; n < ROWS / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int row = 8 * n + 2 * t + i;
            const float4 sum = {total[0][4 * n + i], total[0][4 * n + 2 + i], total[1][4 * n + i], total[1][4 * n + 2 + i]};
            if (SPLITS == 1) store(row, warp * 8 + g, sum);
            else if (row < args.rows) *reinterpret_cast<float4*>(all + row * SUMS_PITCH + warp * 32 + 4 * g) = sum;
        }
    if (SPLITS == 1) return;
    meet_cluster();
    const int fours = args.rows * (COLUMNS / 4), from = fours * split / SPLITS, to = fours * (split + 1) / SPLITS;
    for (int at = from + threadIdx.x; at < to; at += THREADS) {
        const int row = at / (COLUMNS / 4), four = at % (COLUMNS / 4);
        float4 sum = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
        for (int s = 0; s < SPLITS; s++) {
            const float4 more = load_from_block(x_at + (row * SUMS_PITCH + four * 4) * 4, s);
            sum.x += more.x; sum.y += more.y; sum.z += more.z; sum.w += more.w;
        }
        store(row, four, sum);
    }
    meet_cluster();  // a block's memory lasts as long as others read it
}
