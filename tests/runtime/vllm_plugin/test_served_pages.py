"""The runtime attends to pages that were served, and holds each code to its own value."""

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.vllm.served_pages import PagedLayer, watch_pages
from kvpareto.runtime.cache.packed_layer import PackedLayer
from kvpareto.runtime.kernels.paged.page_format import PageFormat, pack
from tests.support.runtime_builders import session, small_model

PROMPT = torch.randint(3, 97, (1, 23), generator=torch.Generator().manual_seed(1))
PLACES = torch.arange(20, 23)


def paged_layers(run: Any, name: str) -> list[PagedLayer]:
    layers = [layer for layer in run.cache.layers if isinstance(layer, PackedLayer)]
    form = PageFormat.of(name, layers[0].state.key.dim)
    assert form is not None
    return [PagedLayer.of(layer, form) for layer in layers]


def logits(run: Any, pages: list[PagedLayer], served: Tensor | None = None) -> Tensor:
    for i, page in enumerate(pages):
        page.begin(None if served is None else served[i])
    return torch.cat(list(run.logits(PROMPT, PLACES)), dim=1)


@pytest.fixture(params=["int4_per_token_head", "int8_per_token_head"])
def written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A session with its layers in pages, its logits, and what it has written."""
    rows: dict[int, list[Tensor]] = {}
    own = PagedLayer._own

    def keep(layer: PagedLayer, x: Tensor) -> Tensor:
        assert layer.form is not None
        rows.setdefault(id(layer), []).append(pack(x[0], layer.form))
        return own(layer, x)

    with session(small_model("llama"), "w16a16-k16v16+pc10", tokens=40) as run:
        pages = paged_layers(run, request.param)
        with monkeypatch.context() as patch:
            patch.setattr(PagedLayer, "_own", keep)
            found = logits(run, pages)
        # chunks of keys and values in turn
        sides = [(torch.cat(rows[id(p)][::2], 1), torch.cat(rows[id(p)][1::2], 1)) for p in pages]
        yield run, pages, found, torch.stack([torch.cat(pair, -1) for pair in sides])


def test_own_pages_served_are_the_same(written: Any) -> None:
    run, pages, found, rows = written
    assert torch.equal(logits(run, pages, rows), found)
    assert [page.differing.other for page in pages] == [0] * len(pages)
    assert pages[0].differing.codes == 2 * rows.shape[1] * 23 * pages[0].state.key.dim


def test_a_changed_code_is_found(written: Any) -> None:
    run, pages, found, rows = written
    rows[0, 0, 2, 3] ^= 1  # a code of token 2, a step away
    assert not torch.equal(logits(run, pages, rows), found)
    first = pages[0].differing
    assert first.other == 1
    assert 0.5 < first.farthest < 1.5


def test_noise_moves_codes(written: Any) -> None:
    run, pages, found, _ = written
    for page in pages:
        page.noise = 0.01
    assert not torch.equal(logits(run, pages), found)
    for page in pages:
        page.noise = 0.0
    assert torch.equal(logits(run, pages), found)


def test_pages_are_kept_before_a_request_frees_them() -> None:
    from types import SimpleNamespace as Namespace

    freed: list[Any] = []
    cache = torch.arange(6 * 2 * 4 * 3, dtype=torch.uint8).view(6, 2, 4, 3)
    manager = Namespace(free=freed.append, get_block_ids=lambda name: ([5, 2],))
    core = Namespace(scheduler=Namespace(kv_cache_manager=manager))
    layers = {"0": Namespace(kv_cache=cache), "1": Namespace(kv_cache=cache + 1)}
    config = Namespace(compilation_config=Namespace(static_forward_context=layers))
    engine = Namespace(engine_core=Namespace(engine_core=core), vllm_config=config)
    held: dict[tuple[int, ...], Tensor] = {}
    watch_pages(Namespace(llm_engine=engine), held)
    request = Namespace(request_id="a", num_tokens=7, prompt_token_ids=[1, 2])
    manager.free(request)
    assert freed == [request]
    rows = held[1, 2]  # seven tokens, six of them written: four of page 5, two of page 2
    assert torch.equal(rows[0], torch.cat([cache[5], cache[2][:, :2]], 1))
    assert torch.equal(rows[1], rows[0] + 1)
