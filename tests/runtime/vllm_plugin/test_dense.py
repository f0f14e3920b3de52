"""What FlashAttention is asked for: parts of keys by all tokens of a step, not by one prompt."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.runtime.vllm_plugin import fake_vllm


@pytest.fixture
def dense(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake_vllm.install(monkeypatch)
    from kvpareto.runtime.vllm_plugin import dense

    return dense


@pytest.mark.parametrize(
    ("new", "query_heads", "heads", "parts"),
    [
        (8192, 8, 2, 1),  # many short prompts as much as one long
        (1, 32, 8, 16),  # 132 processors, 8 tiles
        (64, 32, 8, 8),  # 256 rows a KV head: 16 tiles
        (100, 64, 1, 2),  # 6,400 rows: 50 tiles
        (600, 32, 8, 1),
    ],
)
def test_parts_by_hand(dense: Any, new: int, query_heads: int, heads: int, parts: int) -> None:
    assert dense.splits(new, query_heads, heads, 132) == parts


@pytest.mark.parametrize("dim", [64, 128, 256])
@pytest.mark.parametrize(("query_heads", "heads"), [(8, 2), (32, 8), (32, 32), (64, 1), (7, 1)])
def test_copies_stay_small(dense: Any, query_heads: int, heads: int, dim: int) -> None:
    """Of any number of new tokens: a tile a processor, or what one part has, if that is more."""
    for new in (1, 2, 8, 31, 100, 333, 1000, 8192):
        parts = dense.splits(new, query_heads, heads, 132)
        copies = parts * new * query_heads * dim * 4
        assert parts == 1 or copies <= 132 * 128 * dim * 4


@pytest.mark.parametrize(("version", "asked"), [(3, {"num_splits": 5}), (2, {})])
def test_the_library_is_asked(
    dense: Any, monkeypatch: pytest.MonkeyPatch, version: int, asked: dict[str, int]
) -> None:
    seen: dict[str, Any] = {}

    def attention(**given: Any) -> torch.Tensor:
        seen.update(given)
        return torch.zeros_like(given["q"])

    monkeypatch.setattr(dense.fa_utils, "flash_attn_varlen_func", attention, raising=False)
    card = SimpleNamespace(multi_processor_count=20)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    query, key = torch.zeros(30, 8, 64), torch.zeros(90, 4, 64)
    starts = torch.tensor([0, 30], dtype=torch.int32)
    mixed = dense.dense_attention(
        query, key, key, starts, 3 * starts, 30, 90,
        scaling=1.0, softcap=0.0, window=0, sinks=None, version=version,
    )  # fmt: skip
    assert mixed.shape == query.shape
    assert {name: seen[name] for name in seen if name == "num_splits"} == asked
