"""What happens around a capture, with CUDA's own calls replaced."""

import gc
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch

from kvpareto.runtime import forward
from tests.support.runtime_builders import session, small_model


class _Graph:
    def pool(self) -> None:
        return None


def _graph(*_: object, **__: object) -> AbstractContextManager[None]:
    return nullcontext()


def test_nothing_is_collected_while_a_pass_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph of an earlier session that the collector frees meanwhile would break the capture."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _Graph)
    monkeypatch.setattr(torch.cuda, "graph", _graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(forward, "capturable", lambda state, tokens: True)
    collecting: list[bool] = []
    model = small_model("llama")
    with session(model, "w16a16-k8v8-g64", tokens=40) as run:
        run.forward.why_eager = None
        hook = model.get_input_embeddings().register_forward_pre_hook(
            lambda *_: collecting.append(gc.isenabled())
        )
        run.forward.capture(1)
        hook.remove()
    *warmed_up, captured = collecting
    assert all(warmed_up)
    assert len(warmed_up) == 1 + forward.WARMUPS
    assert not captured
    assert gc.isenabled()


def test_the_collector_comes_back_after_a_capture_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> None:
        if not gc.isenabled():
            raise RuntimeError("operation not permitted when stream is capturing")

    for name, other in {
        "CUDAGraph": _Graph,
        "graph": _graph,
        "current_stream": lambda: None,
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, other)
    monkeypatch.setattr(forward, "capturable", lambda state, tokens: True)
    model = small_model("llama")
    with session(model, "w16a16-k8v8-g64", tokens=40) as run:
        run.forward.why_eager = None
        hook = model.get_input_embeddings().register_forward_pre_hook(refuse)
        run.forward.capture(1)
        hook.remove()
        assert "not permitted" in str(run.why_eager)
    assert gc.isenabled()
