"""An orthogonal rotation of each head's channels, so that no single channel rules a group's scale.

Queries and keys are rotated after RoPE by the same R, so scores stay: (Rq)·(Rk) = q·k. Values
are rotated by R and the attention output by its transpose, since the output is linear in V.

R is the Hadamard matrix / sqrt(D) where D is a power of two. Otherwise D = 2^a * m with m odd
(80 = 16 * 5, 96 = 32 * 3) and R = Hadamard(2^a)/sqrt(2^a) ⊗ Q_m with Q_m the orthonormal DCT-II
matrix of size m: every entry is spread over all D channels, and R is orthogonal as both are.
(QuaRot, arXiv 2404.00456, uses known Hadamard matrices of sizes 12, 20, ...; a head of 80 or 96
channels has none as a factor with 2^a that small, so a real orthogonal factor is taken.)
"""

import math
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=32)
def rotation(dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """R, orthogonal [dim, dim]; rows transform channels: x @ R.T rotates, y @ R rotates back."""
    power = dim & -dim
    return torch.kron(_hadamard(power), _cosine(dim // power)).to(device=device, dtype=dtype)


def rotate(x: Tensor) -> Tensor:
    """[..., D] -> [..., D], rotated; computed in the dtype of x (float32 accumulation)."""
    return x @ rotation(x.shape[-1], x.dtype, x.device).T


def rotate_back(y: Tensor) -> Tensor:
    """The inverse of `rotate`."""
    return y @ rotation(y.shape[-1], y.dtype, y.device)


def _hadamard(size: int) -> Tensor:
    """Sylvester's Hadamard matrix of a power-of-two size, normalised to be orthogonal."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while matrix.shape[0] < size:
        top = torch.cat((matrix, matrix), dim=1)
        bottom = torch.cat((matrix, -matrix), dim=1)
        matrix = torch.cat((top, bottom))
    return matrix / math.sqrt(size)


def _cosine(size: int) -> Tensor:
    """The orthonormal DCT-II matrix."""
    rows = torch.arange(size, dtype=torch.float64)[:, None]
    places = torch.arange(size, dtype=torch.float64)[None, :] + 0.5
    matrix = torch.cos(math.pi / size * rows * places) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix
