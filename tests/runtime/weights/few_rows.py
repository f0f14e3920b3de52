"""Random packed matrices and rows of x on a GPU, for products of few rows."""

import torch

from kvpareto.runtime.weights.layout import Packed, Packed4
from kvpareto.runtime.weights.random import random4, random8
from kvpareto.runtime.weights.workspace import Workspace


def weight_of(bits: int, inputs: int, out: int, group: int = 128) -> Packed:
    make = torch.Generator("cuda").manual_seed(inputs + out)
    weight = (random4 if bits == 4 else random8)((), inputs, out, make)
    if group == 128:
        return weight
    groups = inputs // group
    scales = torch.rand(groups, out, device="cuda", generator=make) * 0.01 + 0.001
    size = (groups, out // 8)
    zeros = torch.randint(-(2**31), 2**31 - 1, size, device="cuda", generator=make)
    return Packed4(weight.words, zeros.int(), scales.to(weight.scales.dtype))


def activations(rows: int, inputs: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    make = torch.Generator("cuda").manual_seed(rows)
    x = torch.randn(rows, inputs, device="cuda", dtype=dtype, generator=make)
    x[:, 5] *= 50  # one massive channel, as language models have
    return x


def workspace_of(inputs: int, out: int) -> Workspace:
    workspace = Workspace(inputs * out, "cuda")
    workspace.scratch.fill_(0xFF)  # NaN
    return workspace


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got.double() - want).norm() / want.norm()).item()
