"""Sessions: several at once, stop tokens, sampling, and mistakes in one readable line."""

import copy
from typing import Any

import pytest
import torch

from kvpareto.planner.errors import BadInput, NothingFits
from kvpareto.runtime.attention import ATTENTION_NAME
from kvpareto.runtime.cache.layer_state import LayerState
from kvpareto.runtime.generation.sampling import Sampling
from tests.support.runtime_builders import session, small_model


def test_sessions_live_side_by_side_and_give_the_model_back() -> None:
    model = small_model("llama")
    other = copy.deepcopy(model)
    model.set_attn_implementation("sdpa")
    ids = torch.tensor([[5, 6, 7, 8]])
    with session(model, "w16a16-k4v4-g32", tokens=8) as a:
        with session(other, "w16a16-k16v16", tokens=8) as b:
            first, second = a.prefill(ids), b.prefill(ids)
            assert torch.equal(a.prefill(ids), first)
            assert not torch.equal(first, second)
        assert model.config._attn_implementation == ATTENTION_NAME
    assert model.config._attn_implementation == "sdpa"


def test_stop_tokens_end_each_sequence() -> None:
    model = small_model("llama")
    rows = [[5, 6, 7], [9, 4, 3]]
    with session(model, "w16a16-k16v16", tokens=20, batch=2) as run:
        free = run.generate(rows, 10, stops=frozenset()).tokens
        stop = free[0][3]
        until = [row[: row.index(stop) + 1] if stop in row else row for row in free]
        assert run.generate(rows, 10, stops=frozenset({stop})).tokens == until
        # a row that has stopped repeats its stop token, whatever else it would have met
        first, later = free[0][0], next(t for t in free[0] if t != free[0][0])
        steps = list(run.steps(rows, 10, stops=frozenset({first, later})))
        assert [step[0] for step in steps] == [first] * len(steps)
        assert len(steps) > free[0].index(later)


def test_as_many_tokens_as_there_is_room_for_by_default() -> None:
    with session(small_model("llama"), "w16a16-k8v8", tokens=20) as run:
        given = run.generate([[5, 6, 7]], stops=frozenset()).tokens
        assert len(given[0]) == 20 - 3 + 1  # the last one is never appended
        assert given == run.generate([[5, 6, 7]], 18, stops=frozenset()).tokens
        with pytest.raises(BadInput, match="19 new tokens do not fit: the cache has room for 18"):
            run.generate([[5, 6, 7]], 19)
    with session(small_model("llama"), "w16a16-k8v8", tokens=200) as run:
        assert len(run.generate([[5, 6, 7]], stops=frozenset()).tokens[0]) == 128


def test_sampling_follows_its_seed_and_its_limits() -> None:
    model = small_model("llama")
    with session(model, "w16a16-k16v16", tokens=40) as run:
        greedy = run.generate([5, 6], 20, stops=frozenset()).tokens
        hot = Sampling(temperature=3.0, seed=1)
        found = run.generate([5, 6], 20, hot, frozenset()).tokens
        assert found == run.generate([5, 6], 20, hot, frozenset()).tokens != greedy
        assert run.generate([5, 6], 20, Sampling(3.0, top_k=1), frozenset()).tokens == greedy
        assert run.generate([5, 6], 20, Sampling(3.0, top_p=1e-6), frozenset()).tokens == greedy


def test_out_of_memory_names_what_did_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("llama")
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])

    def full(*args: object, **kwargs: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with session(model, "w16a16-k4v4+pc4", tokens=8) as run:
        expected = run.prefill(ids)
        with monkeypatch.context() as patch:
            patch.setattr(run.forward, "eager", full)
            message = "activations of a prefill chunk of 4 tokens do not fit, at 0 of 6"
            with pytest.raises(NothingFits, match=message):
                run.prefill(ids)
        assert run.cache.get_seq_length() == 0
        assert torch.equal(run.prefill(ids), expected)
    allocate, calls = LayerState.allocate, []

    def second_fails(*args: Any, **kwargs: Any) -> LayerState:
        calls.append(1)
        return allocate(*args, **kwargs) if len(calls) < 2 else full()

    monkeypatch.setattr(LayerState, "allocate", second_fails)
    with pytest.raises(NothingFits, match=r"the KV cache of 8 tokens does not fit.* 1 of 3 layers"):
        session(model, "w16a16-k4v4", tokens=8)


def test_mistakes_are_one_line() -> None:
    model = small_model("llama")
    with session(model, "w16a16-k16v16", tokens=8) as run:
        with pytest.raises(BadInput, match="9 tokens does not fit a cache of 8"):
            run.prefill(list(range(9)))
        with pytest.raises(BadInput, match="has room for 5"):
            run.generate([5, 6, 7, 8], 6)
        with pytest.raises(BadInput, match="2 sequences for a cache of 1"):
            run.prefill([[5], [6]])
        with pytest.raises(BadInput, match="without a tokenizer"):
            run.generate("hello")
        with pytest.raises(BadInput, match="prompt is empty"):
            run.prefill([[]])
        with pytest.raises(BadInput, match="mask with holes"):
            model(torch.tensor([[5, 6]]), attention_mask=torch.tensor([[0, 1]]))
        with pytest.raises(BadInput, match="without a packed cache"):
            model(torch.tensor([[5, 6]]))


def test_a_capture_that_runs_out_of_memory_leaves_eager_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    with session(small_model("llama"), "w16a16-k4v4-g32+pc8", tokens=100) as run:
        run.forward.why_eager = None
        monkeypatch.setattr(run.forward, "_kind", lambda tokens: fails)
        ids = torch.arange(3, 90)[None]
        assert run.prefill(ids).isfinite().all()
        assert "out of memory" in (run.why_eager or "")
