"""The backend's flow: which rows go where, what is written, what is left to vLLM's own kernels.

vLLM is faked (fake_vllm.py), the decode kernel and FlashAttention are their
references; writing, staging and rotating run in Triton's interpreter.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from kvpareto.runtime.kernels.paged import reference
from tests.runtime.kernels.paged_batch import PagedBatch, paged_batch
from tests.runtime.vllm_plugin import fake_vllm
from tests.support.runtime_builders import relative_error

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels need their own device")
INT4, INT8 = "int4_per_token_head", "int8_per_token_head"
HEADS, QUERY_HEADS, DIM = 2, 4, 64


class ReferenceDecoder:
    def __init__(self, form: Any, *shape: Any, softcap: bool) -> None:
        self.form = form

    def __call__(self, query: Tensor, pages: Tensor, table: Tensor, lengths: Tensor, out: Tensor,
                 **options: Any) -> None:  # fmt: skip
        for i in range(len(query)):
            out[i : i + 1] = reference.attend(
                query[i : i + 1], pages, table[i], int(lengths[i]), self.form, **options
            )


def dense(query: Tensor, key: Tensor, value: Tensor, query_starts: Tensor, starts: Tensor,
          longest_query: int, longest: int, *, scaling: float, window: int,
          **rest: Any) -> Tensor:  # fmt: skip
    out = torch.empty_like(query)
    key, value = (x.float().repeat_interleave(QUERY_HEADS // HEADS, 1) for x in (key, value))
    for i in range(len(starts) - 1):
        new, held = slice(*query_starts[i : i + 2]), slice(*starts[i : i + 2])
        tokens, length = int(new.stop - new.start), int(held.stop - held.start)
        assert tokens <= longest_query
        assert length <= longest
        at, last = torch.arange(length), length - tokens + torch.arange(tokens)[:, None]
        hidden = (at > last) | ((at <= last - window) if window else False)
        scores = torch.einsum("nhd,thd->hnt", query[new].float(), key[held]) * scaling
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        out[new] = torch.einsum("hnt,thd->nhd", weights, value[held]).to(out.dtype)
    return out


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake_vllm.install(monkeypatch)
    from kvpareto.runtime.vllm_plugin import backend

    backend._decoder.cache_clear()
    monkeypatch.setattr(backend, "PageDecoder", ReferenceDecoder)
    monkeypatch.setattr(backend, "supports", lambda *args: True)
    monkeypatch.setattr(backend, "dense_attention", dense)
    # an interpreter's tensors need no alignment
    monkeypatch.setattr(backend, "fits", lambda pages, form: pages.shape[3] == form.row_bytes)
    return backend


def step(backend: Any, batch: PagedBatch, new: list[int], **changes: Any) -> Any:
    """vLLM's metadata of a step with `new` tokens of each sequence, through our builder."""
    from kvpareto.runtime.vllm_plugin.metadata import PackedMetadataBuilder

    starts = torch.tensor([0, *new]).cumsum(0).int()
    lengths = torch.tensor(batch.lengths, dtype=torch.int32)
    common = fake_vllm.CommonAttentionMetadata(
        starts, starts, lengths, len(new), max(new), batch.table, lengths, **changes
    )
    spec = SimpleNamespace(block_size=16)
    builder = PackedMetadataBuilder(spec, [], fake_vllm.config(), torch.device("cpu"))
    return builder.build(0, common)


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("name", [INT4, INT8])
def test_a_mixed_batch(backend: Any, name: str, window: int | None) -> None:
    new = [1, 1, 7, 30, 12]
    batch = paged_batch(name, DIM, HEADS, [33, 5, 7, 70, 40])
    metadata = step(backend, batch, new)
    assert metadata.decodes == 2
    # 7 + 70 tokens fit the workspace of 100, 40 more do not
    assert [(p.part.first, p.part.last) for p in metadata.prompts] == [(2, 4), (4, 5)]
    layer = backend.PackedAttentionImpl(QUERY_HEADS, DIM, 0.125, HEADS, window, name)
    query = torch.randn(sum(new) + 3, QUERY_HEADS, DIM).half()  # 3 rows of padding
    output = torch.zeros_like(query)
    layer.forward(None, query, query, query, batch.pages, metadata, output)
    assert layer.asked == []
    first = 0
    for i, tokens in enumerate(new):
        rows = slice(first, first + tokens)
        expected = reference.attend(query[rows], batch.pages, batch.table[i], batch.lengths[i],
                                    batch.form, scaling=0.125, window=window or 0)  # fmt: skip
        assert relative_error(output[rows], expected) < 3e-3, i
        first += tokens
    assert not output[first:].any()


@pytest.mark.parametrize("name", [INT4, INT8])
def test_new_tokens_are_written_once_the_parent_set_scales(backend: Any, name: str) -> None:
    batch = paged_batch(name, DIM, HEADS, [20, 3])
    layer = backend.PackedAttentionImpl(QUERY_HEADS, DIM, 0.125, HEADS, None, name)
    pages = torch.full_like(batch.pages, 0xFF)
    padded = [torch.cat([x, x[:2]]) for x in (batch.key, batch.value)]
    layer.do_kv_cache_update(None, *padded, pages, batch.slots)
    assert layer.asked == ["scales"]
    assert torch.equal(pages, batch.pages)


@pytest.mark.parametrize(
    ("options", "changes"),
    [({"kv_cache_dtype": "auto"}, {}), ({"kv_cache_dtype": "fp8_per_token_head"}, {}),
     ({"attn_type": "encoder_decoder"}, {}), ({}, {"causal": False})],
)  # fmt: skip
def test_what_is_not_taken_is_the_parents(
    backend: Any, options: dict[str, Any], changes: dict[str, Any]
) -> None:
    batch = paged_batch(INT4, DIM, HEADS, [20, 3])
    settings = {"sliding_window": None, "kv_cache_dtype": INT4} | options
    layer = backend.PackedAttentionImpl(QUERY_HEADS, DIM, 0.125, HEADS, **settings)
    query = torch.zeros(2, QUERY_HEADS, DIM).half()
    metadata = step(backend, batch, [1, 1], **changes)
    layer.forward(None, query, query, query, batch.pages, metadata, query)
    assert layer.asked == ["forward"]


def test_batches_that_overlap_are_the_parents(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = fake_vllm.config()
    config.parallel_config.use_ubatching = True
    monkeypatch.setattr(backend, "get_current_vllm_config", lambda: config)
    batch = paged_batch(INT4, DIM, HEADS, [20])
    layer = backend.PackedAttentionImpl(QUERY_HEADS, DIM, 0.125, HEADS, None, INT4)
    query = torch.zeros(1, QUERY_HEADS, DIM).half()
    layer.forward(None, query, query, query, batch.pages, step(backend, batch, [1]), query)
    assert layer.asked == ["forward"]


def test_a_fused_output_format_is_the_parents(backend: Any) -> None:
    batch = paged_batch(INT4, DIM, HEADS, [20])
    layer = backend.PackedAttentionImpl(QUERY_HEADS, DIM, 0.125, HEADS, None, INT4)
    query = torch.zeros(1, QUERY_HEADS, DIM).half()
    layer.forward(None, query, query, query, batch.pages, step(backend, batch, [1]), query,
                  torch.ones(1))  # fmt: skip
    assert layer.asked == ["forward"]


def test_prompts_without_flash_attention_are_the_parents(backend: Any) -> None:
    batch = paged_batch(INT4, DIM, HEADS, [20, 9])
    layer = backend.PackedAttentionImpl(QUERY_HEADS, DIM, 0.125, HEADS, None, INT4)
    layer._dense = None
    query = torch.zeros(5, QUERY_HEADS, DIM).half()
    for new, asked in (([1, 1], []), ([1, 4], ["forward"])):
        layer.forward(None, query, query, query, batch.pages, step(backend, batch, new), query)
        assert layer.asked == asked


def test_a_measuring_run_reserves_and_gives_zeros(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[Any] = []
    monkeypatch.setattr(backend, "_warm", lambda *args: warmed.append(args))
    layer = backend.PackedAttentionImpl(QUERY_HEADS, DIM, 0.125, HEADS, None, INT4)
    output = torch.full((9, QUERY_HEADS, DIM), float("nan"))
    layer.forward(None, output.half(), None, None, None, None, output)
    assert not output.any()
    assert len(warmed) == 1
