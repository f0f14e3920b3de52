// Gate and up of one product: y = act(gate) * up of the matrix's halves. GATED says which: 1 is
// SiLU, 2 GELU by tanh, 0 nothing.
#pragma once
#include "common.cuh"

INLINE float rounded(float x) { return low<HALF>(pack_io(x, x)); }

// act(gate) * up as fused_kernels.py has it, with its roundings; the last is the caller's.
INLINE float gated(float gate, float up) {
    gate = rounded(gate);
    const float inner = GATED == 1 ? gate : 1.5957691216057308f * (gate + 0.044715f * gate * gate * gate);
    return rounded(gate / (1.f + __expf(-inner))) * rounded(up);
}
