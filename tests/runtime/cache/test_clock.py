"""The clock: where the next tokens of each sequence stand."""

import torch

from kvpareto.runtime.cache.layer_state import Clock


def test_positions_count_from_where_a_sequence_begins() -> None:
    clock = Clock(3, torch.device("cpu"))
    clock.place(5)
    clock.begin([0, 4, 7])
    one, many = clock.positions(1), clock.positions(4)
    assert (one.dtype, many.dtype) == (torch.int64, torch.int64)
    assert one.tolist() == [[5], [1], [0]]  # padding stands at 0
    assert many.tolist() == [[5, 6, 7, 8], [1, 2, 3, 4], [0, 0, 0, 1]]
    assert clock.host == int(clock.device) == 5
