// x in whole numbers, as stream.cu and parts.cu multiply it: 16 bits of fixed point, a power of two
// for each 128 inputs (weights/whole_rows.py is the same in torch). HALF says whether x is float16.
//
// A unit of 128 inputs of N rows lies as [2][2 N][4] pieces of 16 bytes: inputs of even and of
// odd number, a row's upper and its lower bytes. Its measure is what one counts, a float's bits,
// and the sum of its 128 whole numbers.
#pragma once

#define TOP (HALF ? 13 : 14)                  // exponent of the largest of 128: float16's have more digits

// The exponent of 128 numbers by the bits of the largest: what is not a number is more than any.
__device__ __forceinline__ int exponent_of(int most) { return max(most >> 23, 15); }
__device__ __forceinline__ float steps_of_one(int exponent) { return __int_as_float((254 + TOP - exponent) << 23); }
// In the last 16 bits + 128: the upper byte is rounded, the lower one has a sign.
__device__ __forceinline__ unsigned whole(float x, float steps) {
    return __float_as_uint(fminf(fmaf(x, steps, 12582912.f), 12582912.f + 32639.f)) + 128;
}
// Infinities and what is not a number stay so.
__device__ __forceinline__ int2 measure_of(int exponent, int sum) { return {exponent == 255 ? 0x7fc00000 : (exponent - TOP) << 23, sum}; }

// A warp's 128 numbers of a row, lane 8 plane + i inputs 32 plane + 4 i to + 3.
template <int N>
__device__ __forceinline__ void to_whole(const float (&x)[4], int lane, int row, uint4* unit, int2* measure) {
    int most = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) most = max(most, __float_as_int(fabsf(x[k])));
    most = __reduce_max_sync(~0u, most);
    const int exponent = exponent_of(most), plane = lane / 8, i = lane % 8;
    const float steps = steps_of_one(exponent);
    unsigned upper[4], lower[4];
    int sum = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const unsigned v = whole(x[k], steps);
        sum += int(v << 16) >> 16;
        upper[k] = (v >> 8 & 255) << 8 * plane;
        lower[k] = ((v & 255) ^ 128) << 8 * plane;
#pragma unroll
        for (int mask = 8; mask < 32; mask *= 2) {
            upper[k] |= __shfl_xor_sync(~0u, upper[k], mask);
            lower[k] |= __shfl_xor_sync(~0u, lower[k], mask);
        }
    }
    sum = __reduce_add_sync(~0u, sum - 4 * 128);
    uint2* to = reinterpret_cast<uint2*>(unit + 2 * row * 4 + i / 2) + i % 2;
    if (plane == 0) to[0] = {upper[0], upper[2]};
    if (plane == 1) to[8] = {lower[0], lower[2]};
    if (plane == 2) to[N * 16] = {upper[1], upper[3]};
    if (plane == 3) to[N * 16 + 8] = {lower[1], lower[3]};
    if (lane == 0) *measure = measure_of(exponent, sum);
}
