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

    def writes(self, sequences: int) -> bool:
        return sequences <= 3

    def __call__(self, query: Tensor, pages: Tensor, table: Tensor, lengths: Tensor, out: Tensor,
                 new: tuple[Tensor, ...] | None = None, **options: Any) -> None:  # fmt: skip
        if new is not None:
            reference.write(pages, new[0], new[1], new[2], self.form)
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
    """vLLM's metadata of a step with `new` tokens of each sequence, through our builder; three
    rows of padding have no slot."""
    from kvpareto.runtime.vllm_plugin.metadata import PackedMetadataBuilder

    starts = torch.tensor([0, *new]).cumsum(0).int()
    lengths = torch.tensor(batch.lengths, dtype=torch.int32)
    slots = torch.cat(
        [*(batch.slots[rows] for rows in last_rows(batch, new)), torch.tensor([-1] * 3)]
    )
    common = fake_vllm.CommonAttentionMetadata(
        starts, starts, lengths, len(new), max(new), batch.table, lengths, slots, **changes
    )
    spec = SimpleNamespace(block_size=16)
    builder = PackedMetadataBuilder(spec, [], fake_vllm.config(), torch.device("cpu"))
    return builder.build(0, common)


def last_rows(batch: PagedBatch, new: list[int]) -> list[slice]:
    """Where the last `new` tokens of each sequence lie among all tokens."""
    ends = batch.starts.tolist()[1:]
    return [slice(end - count, end) for end, count in zip(ends, new, strict=True)]


def new_tokens(batch: PagedBatch, new: list[int]) -> list[Tensor]:
    """Keys and values of a step, with three rows of padding; their pages are wiped."""
    rows = last_rows(batch, new)
    page = batch.pages.shape[2]
    for slot in torch.cat([batch.slots[part] for part in rows]).tolist():
        batch.pages[slot // page, :, slot % page] = 0xFF
    return [torch.cat([*(x[part] for part in rows), x[:3]]) for x in (batch.key, batch.value)]


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
    output, pages = torch.zeros_like(query), batch.pages.clone()
    key, value = new_tokens(batch, new)
    layer.forward(None, query, key, value, batch.pages, metadata, output)
    assert layer.asked == ["scales"]
    assert torch.equal(batch.pages, pages)
    first = 0
    for i, tokens in enumerate(new):
        rows = slice(first, first + tokens)
        expected = reference.attend(query[rows], batch.pages, batch.table[i], batch.lengths[i],
                                    batch.form, scaling=0.125, window=window or 0)  # fmt: skip
        assert relative_error(output[rows], expected) < 3e-3, i
        first += tokens
    assert not output[first:].any()


@pytest.mark.parametrize("name", [INT4, INT8])
def test_a_decode_step_writes_within_its_one_launch(
    backend: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delattr(backend, "write_pages")
    batch = paged_batch(name, DIM, HEADS, [20, 3, 16])
    layer = backend.PackedAttentionImpl(QUERY_HEADS, DIM, 0.125, HEADS, None, name)
    query, pages = torch.randn(6, QUERY_HEADS, DIM).half(), batch.pages.clone()
    output = torch.zeros_like(query)
    key, value = new_tokens(batch, [1, 1, 1])
    layer.forward(None, query, key, value, batch.pages, step(backend, batch, [1, 1, 1]), output)
    assert layer.asked == ["scales"]
    assert torch.equal(batch.pages, pages)
    for i, length in enumerate(batch.lengths):
        expected = reference.attend(
            query[i : i + 1], pages, batch.table[i], length, batch.form, scaling=0.125
        )
        assert torch.equal(output[i : i + 1], expected)


def test_many_sequences_are_written_apart(backend: Any) -> None:
    batch = paged_batch(INT4, DIM, HEADS, [20, 3, 16, 2])
    layer = backend.PackedAttentionImpl(QUERY_HEADS, DIM, 0.125, HEADS, None, INT4)
    query, pages = torch.randn(7, QUERY_HEADS, DIM).half(), batch.pages.clone()
    key, value = new_tokens(batch, [1, 1, 1, 1])
    metadata = step(backend, batch, [1, 1, 1, 1])
    assert not layer._steps((key, value, metadata.slot_mapping), query, batch.pages, metadata)
    layer.forward(None, query, key, value, batch.pages, metadata, query.clone())
    assert torch.equal(batch.pages, pages)


def test_tokens_of_a_strange_layout_are_written_apart(backend: Any) -> None:
    batch = paged_batch(INT4, DIM, HEADS, [20, 3])
    layer = backend.PackedAttentionImpl(QUERY_HEADS, DIM, 0.125, HEADS, None, INT4)
    query, pages = torch.randn(5, QUERY_HEADS, DIM).half(), batch.pages.clone()
    key, value = (torch.stack([x, x], 2)[:, :, 0] for x in new_tokens(batch, [1, 1]))
    metadata = step(backend, batch, [1, 1])
    assert not layer._steps((key, value, metadata.slot_mapping), query, batch.pages, metadata)
    layer.forward(None, query, key, value, batch.pages, metadata, query.clone())
    assert torch.equal(batch.pages, pages)


def test_a_layer_that_reads_anothers_cache_writes_nothing(backend: Any) -> None:
    batch = paged_batch(INT4, DIM, HEADS, [20, 3])
    layer = backend.PackedAttentionImpl(QUERY_HEADS, DIM, 0.125, HEADS, None, INT4)
    layer.kv_sharing_target_layer_name = "layers.0"
    query = torch.zeros(5, QUERY_HEADS, DIM).half()
    key, value = new_tokens(batch, [1, 1])
    pages = batch.pages.clone()
    layer.forward(None, query, key, value, batch.pages, step(backend, batch, [1, 1]), query)
    assert torch.equal(batch.pages, pages)


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
    key, value = new_tokens(batch, [1, 1])
    layer.forward(None, query, key, value, batch.pages, metadata, query)
    written = ["update"] if layer._form is None else ["scales"]
    assert layer.asked == [*written, "forward"]


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
    assert layer.asked == ["update", "forward"]


def test_a_fused_output_format_is_the_parents(backend: Any) -> None:
    batch = paged_batch(INT4, DIM, HEADS, [20])
    layer = backend.PackedAttentionImpl(QUERY_HEADS, DIM, 0.125, HEADS, None, INT4)
    query = torch.zeros(1, QUERY_HEADS, DIM).half()
    key, value = new_tokens(batch, [1])
    layer.forward(None, query, key, value, batch.pages, step(backend, batch, [1]), query,
                  torch.ones(1))  # fmt: skip
    assert layer.asked == ["scales", "forward"]


def test_prompts_without_flash_attention_are_the_parents(backend: Any) -> None:
    batch = paged_batch(INT4, DIM, HEADS, [20, 9])
    layer = backend.PackedAttentionImpl(QUERY_HEADS, DIM, 0.125, HEADS, None, INT4)
    layer._dense = None
    query = torch.zeros(5, QUERY_HEADS, DIM).half()
    for new, asked in (([1, 1], ["scales"]), ([1, 4], ["scales", "scales", "forward"])):
        key, value = new_tokens(batch, new)
        layer.forward(None, query, key, value, batch.pages, step(backend, batch, new), query)
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
