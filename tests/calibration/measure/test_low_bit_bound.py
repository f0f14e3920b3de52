"""The bound on what rounding single channels loses: benchmarks/low_bit_bound.py."""

import pytest
import torch

from benchmarks.low_bit_bound import MAX_TABLE, apart, mixed, sizes


def test_alike_directions_gain_nothing_from_being_apart() -> None:
    squares = torch.full((2, 8), 1 / 8, dtype=torch.float64)
    for bits in (2, 3):
        assert mixed(squares, bits) == pytest.approx(MAX_TABLE[bits])
        assert apart(squares, bits) == pytest.approx(MAX_TABLE[bits])


def test_bits_go_where_they_save_most() -> None:
    """All that is there lies in one direction of four: 8 bits to it are 2 in the mean."""
    squares = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert apart(squares, 2.0) == pytest.approx(MAX_TABLE[8])
    assert mixed(squares, 2) == pytest.approx(MAX_TABLE[2] / 4)


def test_sizes_do_not_move_with_the_basis() -> None:
    """tr(A B) in the directions of A B, whatever invertible map keys and queries went through."""
    torch.manual_seed(0)
    a, b, m = (torch.randn(1, 5, 5, dtype=torch.float64) for _ in range(3))
    written, read = a @ a.mT, b @ b.mT
    undone = torch.linalg.inv(m)
    moved = sizes(m @ written @ m.mT, undone.mT @ read @ undone)
    assert torch.allclose(sizes(written, read), moved, atol=1e-8)
    assert float(moved.sum()) == pytest.approx(1.0)
