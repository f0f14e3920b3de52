// Partial results into one: warps of a block, then blocks of a head, by their log-sum-exps.
#pragma once
#include "range.cuh"

// N numbers to consecutive places of shared memory. Lanes that differ in `odd` write other halves first,
// and meet in no bank where their places are a multiple of 32 apart.
template <int N>
INLINE void write_run(float* to, const float (&y)[N], bool odd) {
    if constexpr (N == 8) {
        const float4 low = {y[0], y[1], y[2], y[3]}, high = {y[4], y[5], y[6], y[7]};
        *(float4*)(to + 4 * odd) = odd ? high : low;
        *(float4*)(to + 4 * !odd) = odd ? low : high;
    } else if constexpr (N == 4) {
        *(float4*)to = {y[0], y[1], y[2], y[3]};
    } else {
#pragma unroll
        for (int j = 0; j < N; j++) to[j] = y[j];
    }
}

// The block's warps merged into one partial: out [8, D] unnormalised, lm [8, 2] (sum, reference).
template <class R>
INLINE void merge_warps(Acc& acc, float* out, float* lm) {
    using V = typename R::V;
    __shared__ float sl[WARPS][8], sm[WARPS][8];  // of sm, weights then
    static_assert(WARPS * GROUP * D * 4 <= SHARED, "the merge fits");
    float(*so)[GROUP][D] = (float(*)[GROUP][D])shared;
    __syncthreads();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int d = 4; d < 32; d *= 2)
#pragma unroll
        for (int c = 0; c < 2; c++) {
            acc.l[c] += __shfl_xor_sync(~0u, acc.l[c], d);
#pragma unroll
            for (int i = 0; i < V::groups; i++) acc.po[c][i] += __shfl_xor_sync(~0u, acc.po[c][i], d);
        }
#pragma unroll
    for (int c = 0; c < 2; c++) {
        if (g == 0) { sl[warp][2 * t + c] = acc.l[c]; sm[warp][2 * t + c] = acc.m[c]; }
        if (2 * t + c < GROUP)
#pragma unroll
            for (int w = 0; w < V::row_words; w++) {
                float y[V::codes];
#pragma unroll
                for (int j = 0; j < V::codes; j++) {
                    const int n = w * V::codes + j;
                    const float o = acc.o[n / 2][2 * (n & 1) + c];
                    // Codes entered the product as code * 2^(lift - 24).
                    y[j] = R::QV ? fmaf(o, power_of_two(24 - lift<R::bits_v>(j % R::fields)), acc.po[c][w / V::group_words]) : o;
                }
                write_run(so[warp][2 * t + c] + V::channel(w, g), y, t & 1);
            }
    }
    __syncthreads();
    float& mine = sm[warp][lane % 8];
    float m = EMPTY;
#pragma unroll
    for (int w = 0; w < WARPS; w++) m = fmaxf(m, sm[w][lane % 8]);
    const float weight = ex2(mine - m);
    __syncthreads();
    if (lane < GROUP) {
        mine = weight;
        if (warp == 0) lm[2 * lane + 1] = m;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < GROUP * D; i += WARPS * 32) {
        const int head = i / D;
        float sum = 0.f, total = 0.f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            sum = fmaf(sm[w][head], so[w][head][i % D], sum);
            if (i % D == 0) total = fmaf(sm[w][head], sl[w][head], total);
        }
        out[i] = sum;
        if (i % D == 0) lm[2 * head] = total;
    }
}

// A row that one block held: the sum's division, with the sink's logit.
INLINE void normalise(float* mix, const float* lm, const float* logits) {
    for (int i = threadIdx.x; i < GROUP * D; i += WARPS * 32) {
        const int g = i / D;
        const float l = lm[2 * g], m = lm[2 * g + 1], sink = logits ? logits[g] * LOG2E : EMPTY, top = fmaxf(m, sink);
        const float all = l * ex2(m - top) + (logits ? ex2(sink - top) : 0.f);
        mix[i] *= all > 0.f ? ex2(m - top) / all : 0.f;
    }
}

// The last of `blocks` to arrive merges the partials, always in the same order: part p lies at
// `slot(p)`; `emit(i, mix)` takes channels i to i + 3 of [GROUP, D]. True in the block that merged.
template <class Slot, class Emit>
INLINE bool merge_splits(const float* out, const float* lm, int parts, const Slot& slot, const Emit& emit, const float* logits, int* arrived, int blocks) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(arrived, 1) == blocks - 1;
    __syncthreads();
    if (!last) return false;
    __threadfence();
    for (int i = threadIdx.x * 4; i < GROUP * D; i += WARPS * 128) {
        const int head = i / D;
        float m = logits ? logits[head] * LOG2E : EMPTY, total = logits ? 1.f : 0.f;
        float4 sum = {0.f, 0.f, 0.f, 0.f};
        for (int p = 0; p < parts; p += 16) {  // 16 partials in flight
            float4 o[16];
            float2 lms[16];
#pragma unroll
            for (int n = 0; n < 16; n++) {
                const int from = slot(min(p + n, parts - 1));
                lms[n] = __ldcg((const float2*)(lm + (from * GROUP + head) * 2));
                o[n] = __ldcg((const float4*)(out + from * (GROUP * D) + i));
            }
            float top = m;
#pragma unroll
            for (int n = 0; n < 16; n++) top = fmaxf(top, lms[n].y);
            const float keep = ex2(m - top);
            m = top;
            total *= keep;
            sum.x *= keep; sum.y *= keep; sum.z *= keep; sum.w *= keep;
#pragma unroll
            for (int n = 0; n < 16; n++) {
                const float w = p + n < parts ? ex2(lms[n].y - m) : 0.f;
                total = fmaf(w, lms[n].x, total);
                sum.x = fmaf(w, o[n].x, sum.x); sum.y = fmaf(w, o[n].y, sum.y);
                sum.z = fmaf(w, o[n].z, sum.z); sum.w = fmaf(w, o[n].w, sum.w);
            }
        }
        const float scale = total > 0.f ? 1.f / total : 0.f;
        emit(i, make_float4(sum.x * scale, sum.y * scale, sum.z * scale, sum.w * scale));
    }
    if (threadIdx.x == 0) *arrived = 0;
    return true;
}
