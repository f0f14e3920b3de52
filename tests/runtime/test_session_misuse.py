"""One session is one conversation: what would mix two is refused, and a model outlives sessions."""

import copy
import threading
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM, PreTrainedModel

from kvpareto.planner.errors import BadInput
from kvpareto.runtime import loan
from kvpareto.runtime.attention import ATTENTION_NAME
from kvpareto.runtime.forward import Forward
from kvpareto.runtime.loading import load
from kvpareto.runtime.serving.queue import PromptRequest
from kvpareto.runtime.session import Session
from tests.support.runtime_builders import session, small_model

NONE: frozenset[int] = frozenset()
PROMPT = [5, 6, 7, 8]


@pytest.fixture
def run() -> Iterator[Session]:
    with session(small_model("llama"), "w16a16-k4v4-g32", tokens=40) as found:
        yield found


@pytest.mark.parametrize("other", ["generate", "prefill", "steps", "logits", "close"])
def test_a_stream_is_not_read_on_after_another_call(other: str, run: Session) -> None:
    expected = [step[0] for step in run.steps(PROMPT, 10, stops=NONE)]
    stream = run.steps(PROMPT, 10, stops=NONE)
    assert [next(stream)[0] for _ in range(3)] == expected[:3]
    calls: dict[str, Any] = {
        "generate": lambda: run.generate([9, 3], 2),
        "prefill": lambda: run.prefill([9, 3]),
        "steps": lambda: run.steps([9, 3], 2),
        "logits": lambda: run.logits([9, 3, 4], torch.tensor([1])),
        "close": run.close,
    }
    calls[other]()
    with pytest.raises(BadInput, match="closed" if other == "close" else "another call"):
        next(stream)


def test_teacher_forced_logits_are_a_stream_too(run: Session) -> None:
    found = run.logits(PROMPT, torch.tensor([0, 1, 2]), [2, 2])
    next(found)
    run.prefill([9, 3])
    with pytest.raises(BadInput, match="another call"):
        next(found)


def test_a_stream_that_was_left_is_no_hindrance(run: Session) -> None:
    expected = run.generate(PROMPT, 6, stops=NONE).tokens
    next(run.steps([9, 3], 6, stops=NONE))
    assert run.generate(PROMPT, 6, stops=NONE).tokens == expected


def test_a_call_that_was_refused_leaves_the_stream_alone(run: Session) -> None:
    expected = [step[0] for step in run.steps(PROMPT, 6, stops=NONE)]
    stream = run.steps(PROMPT, 6, stops=NONE)
    found = [next(stream)[0]]
    with pytest.raises(BadInput, match="does not fit a cache"):
        run.prefill(list(range(3, 60)))
    assert found + [step[0] for step in stream] == expected


def test_a_second_thread_is_refused(run: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run.generate(PROMPT, 4, stops=NONE).tokens
    inside, release = threading.Event(), threading.Event()
    plain, found = Forward.__call__, []

    def slow(self: Forward, ids: torch.Tensor) -> torch.Tensor:
        inside.set()
        assert release.wait(20)
        return plain(self, ids)

    monkeypatch.setattr(Forward, "__call__", slow)
    worker = threading.Thread(
        target=lambda: found.append(run.generate(PROMPT, 4, stops=NONE).tokens)
    )
    worker.start()
    try:
        assert inside.wait(20)
        for call in (run.generate, run.prefill, lambda ids: run.steps(ids, 2)):
            with pytest.raises(BadInput, match="running a call already, in another thread"):
                call(PROMPT)
    finally:
        release.set()
        worker.join()
    assert found == [expected]


def test_sessions_of_one_model_run_in_threads_of_their_own() -> None:
    model = small_model("llama")
    configs = ("w16a16-k4v4-g32", "w16a16-k8v8", "w16a16-k16v16")
    sessions = [session(model, config, tokens=40) for config in configs]
    expected = [run.generate(PROMPT, 20, stops=NONE).tokens for run in sessions]
    found: dict[int, list[Any]] = {index: [] for index in range(3)}

    def work(index: int) -> None:
        for _ in range(4):
            found[index].append(sessions[index].generate(PROMPT, 20, stops=NONE).tokens)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(found[index] == [expected[index]] * 4 for index in range(3))
    for run in sessions:
        run.close()


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_sessions_close_in_any_order(order: tuple[int, ...]) -> None:
    model = small_model("llama")
    model.set_attn_implementation("eager")
    open_ = [session(model, "w16a16-k4v4-g32", tokens=16) for _ in range(3)]
    expected = open_[0].generate(PROMPT, 4, stops=NONE).tokens
    for position, index in enumerate(order):
        for left in order[position:]:
            assert open_[left].generate(PROMPT, 4, stops=NONE).tokens == expected
        assert model.config._attn_implementation == ATTENTION_NAME
        open_[index].close()
        open_[index].close()  # a second time changes nothing
    assert model.config._attn_implementation == "eager"
    assert model not in loan._loans


def test_a_session_that_could_not_be_opened_leaves_no_trace() -> None:
    model = small_model("gemma2")
    model.set_attn_implementation("eager")
    with pytest.raises(BadInput, match="K-smoothing"):
        session(model, "w16a16-k4v4+smooth", tokens=8)
    assert model.config._attn_implementation == "eager"


def test_a_session_that_was_dropped_does_not_hold_the_model() -> None:
    model = small_model("llama")
    model.set_attn_implementation("eager")
    dropped = session(model, "w16a16-k8v8", tokens=8)
    kept = session(model, "w16a16-k8v8", tokens=8)
    del dropped.forward.turn  # the one reference that a session holds to itself
    del dropped
    kept.close()
    assert model.config._attn_implementation == "eager"


def test_each_session_keeps_the_rope_of_its_own_length() -> None:
    """Frequencies of `longrope` follow the length: two sessions of one model take turns."""
    factors = {"long_factor": [9.0] * 8, "short_factor": [1.0] * 8, "rope_type": "longrope"}
    torch.manual_seed(3)
    config = Phi3Config(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=97, max_position_embeddings=256, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, original_max_position_embeddings=32,
        rope_parameters={"rope_theta": 10000.0, **factors},
    )  # fmt: skip
    model: PreTrainedModel = Phi3ForCausalLM._from_config(config, dtype=torch.float32).eval()
    untouched = copy.deepcopy(model)
    short, long = list(range(3, 13)), [3 + i % 90 for i in range(60)]

    def alone(ids: list[int]) -> torch.Tensor:
        with session(copy.deepcopy(untouched), "w16a16-k16v16+pc8", tokens=80) as run:
            return run.prefill(ids)

    a = session(model, "w16a16-k16v16+pc8", tokens=80)
    b = session(model, "w16a16-k16v16+pc8", tokens=80)
    stream = a.steps(short, 6, stops=NONE)
    begun = [next(stream)[0] for _ in range(2)]
    assert torch.equal(b.prefill(long), alone(long))
    rest = [step[0] for step in stream]
    b.close()
    assert torch.equal(a.prefill(short), alone(short))
    with session(copy.deepcopy(untouched), "w16a16-k16v16+pc8", tokens=80) as run:
        assert [step[0] for step in run.steps(short, 6, stops=NONE)] == begun + rest
    a.close()


REQUESTS: list[tuple[Any, str]] = [
    ([3], "a request"),
    ("x", "requests"),
    (None, "requests"),
    ([[1, 2]], "a request"),
    ([PromptRequest(0, "ab", 4)], "tokens of a request"),  # type: ignore[arg-type]
    ([PromptRequest(0, [1, 10**9], 4)], "tokens of a request"),
    ([PromptRequest(0, [1, -1], 4)], "tokens of a request"),
    ([PromptRequest(0, [1, 2], "4")], "most of a request"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("requests", "what"), REQUESTS, ids=lambda value: str(value)[:40])
def test_a_queue_says_what_it_cannot_take(requests: Any, what: str, run: Session) -> None:
    with pytest.raises(BadInput, match=f"not a value for {what}: "):
        run.queue(requests)
    answers, _ = run.queue([PromptRequest(0, PROMPT, 2)])
    assert [len(one.tokens) for one in answers] == [2]


@pytest.mark.parametrize("tokenizer", ["x", 3, [1], print])
def test_what_is_no_tokenizer_is_refused(tokenizer: Any) -> None:
    with pytest.raises(BadInput, match="not a value for tokenizer: "):
        load(small_model("llama"), "w16a16-k4v4-g32", context=32, output=8, tokenizer=tokenizer)
