"""What a session's calls are given that is no prompt, number or sampling: one BadInput each."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from kvpareto.planner.errors import BadInput
from kvpareto.runtime import load
from kvpareto.runtime.generation.sampling import Sampling, choose
from kvpareto.runtime.session import Session
from tests.support.runtime_builders import session, small_model


@pytest.fixture(scope="module")
def run() -> Iterator[Session]:
    with session(small_model("llama"), "w16a16-k8v8", tokens=40) as found:
        yield found


@pytest.mark.parametrize(
    "prompt",
    [None, 3, b"x", [["a"]], {"a": 1}, [True], [[1.0]], [1, "a"], [{"role": "user"}], math.inf,
     torch.tensor([[1.5]]), torch.tensor(3), torch.zeros(1, 1, 1, dtype=torch.long), "\ud800"],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("call", ["generate", "stream", "steps"])
def test_what_is_no_prompt_is_said(call: str, prompt: Any, run: Session) -> None:
    if call == "stream" and run.tokenizer is None:
        call = "prefill"
    with pytest.raises(BadInput, match=r"not a (value for )?prompt|no Unicode text") as found:
        list(getattr(run, call)(prompt, *([3] if call in ("generate", "steps") else [])))
    assert found.value.hint


@pytest.mark.parametrize("most", [-1, 1.5, "3", True], ids=repr)
def test_a_number_of_tokens_is_whole(most: Any, run: Session) -> None:
    with pytest.raises(BadInput, match="not a value for max_new_tokens"):
        run.generate([5, 6], most)


@pytest.mark.parametrize("stops", [3, "x", {"a"}, [1.5]], ids=repr)
def test_stops_are_token_ids(stops: Any, run: Session) -> None:
    with pytest.raises(BadInput, match="not a value for stops"):
        run.generate([5, 6], 2, stops=stops)


@pytest.mark.parametrize("sampling", [None, 3, "greedy", {}], ids=repr)
def test_a_sampling_is_one(sampling: Any, run: Session) -> None:
    with pytest.raises(BadInput, match="not a value for sampling"):
        run.generate([5, 6], 2, sampling)


@pytest.mark.parametrize(
    "words",
    [{"temperature": -1}, {"temperature": "a"}, {"temperature": math.nan},
     {"temperature": math.inf}, {"top_k": 0}, {"top_k": -3}, {"top_k": 1.5},
     {"top_p": 0}, {"top_p": 2}, {"top_p": "x"},
     {"seed": "x"}, {"seed": 1.5}, {"seed": 2**64}],
    ids=repr,
)  # fmt: skip
def test_a_sampling_of_other_values_is_refused(words: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"temperature .*, top_k .*, top_p .*, seed"):
        Sampling(**words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"context": True}, "not a value for context"),
        ({"memory_target": "8GB"}, "not a value for memory_target"),
        ({"dtype": "float16"}, "not a dtype for weights: 'float16'"),
        ({"dtype": torch.int8}, "not a dtype for weights: torch.int8"),
        ({"model": None}, "not a model: NoneType"),
        ({"model": b"x"}, "not a model: bytes"),
        ({"model": torch.nn.Linear(2, 2)}, "not a model: Linear"),
    ],
    ids=repr,
)
def test_load_names_what_it_cannot_take(words: dict[str, Any], said: str) -> None:
    asked: dict[str, Any] = {"model": "recall", "config": "w16a16-k8v8", "context": 64, **words}
    with pytest.raises(BadInput, match=said):
        load(**asked)


def test_a_closed_session_has_no_memory() -> None:
    with session(small_model("llama"), "w16a16-k8v8", tokens=40) as over:
        pass
    with pytest.raises(BadInput, match="this session is closed"):
        over.memory()


def test_no_bar_is_drawn_within(capfd: pytest.CaptureFixture[str]) -> None:
    from tqdm.auto import tqdm

    from kvpareto.runtime.checkpoint import without_bars

    def draw() -> Callable[[], str]:
        list(tqdm(range(3), desc="bar"))
        return lambda: capfd.readouterr().err

    with without_bars():
        said = draw()
    assert said() == ""
    assert "bar" in draw()()


@pytest.mark.parametrize("temperature", [1e-30, 1e-40, 5e-324])
@pytest.mark.parametrize("more", [{}, {"top_k": 3}, {"top_p": 0.5}], ids=repr)
def test_the_coldest_samples_are_the_likeliest(temperature: float, more: dict[str, Any]) -> None:
    logits = torch.tensor([[-90.0, 0.5, 88.0, 87.5], [3.0, -2.0, 0.0, 2.9]])
    chosen = choose(
        logits, Sampling(temperature, **more), Sampling().generator(torch.device("cpu"))
    )
    assert chosen.tolist() == [2, 0]
