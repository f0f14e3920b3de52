"""Sessions behind the evaluation harness: local tasks, held to transformers' own log-likelihoods.

The harness itself is an extra; what needs it is skipped where it is not installed.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from kvpareto.calibration.tasks.lm_eval import evaluate_harness, split_names
from kvpareto.planner.errors import BadInput, MissingDependency
from kvpareto.runtime import Session, load
from tests.calibration.tasks.harness import needs_harness, third_party
from tests.support.data_files import STORIES
from tests.support.runtime_builders import RoundedCache

DATA = Path(__file__).parents[2] / "data"
START = "Once upon a time, there was a little girl named"


@pytest.mark.parametrize(
    ("names", "generated", "harness"),
    [
        ("needle,variables", ["needle", "variables"], []),
        ("lm_eval:gsm8k,mmlu", [], ["gsm8k", "mmlu"]),
        ("needle, lm_eval:gsm8k, mmlu ,variables", ["needle", "variables"], ["gsm8k", "mmlu"]),
        (["lm_eval:gsm8k", "lm_eval:mmlu", "all"], ["all"], ["gsm8k", "mmlu"]),
        ("nedle", ["nedle"], []),
    ],
)
def test_names_are_split(names: Any, generated: list[str], harness: list[str]) -> None:
    assert split_names(names) == (generated, harness)


def test_without_the_harness_the_install_command_is_named(monkeypatch) -> None:
    loaded = [name for name in sys.modules if name.startswith("lm_eval.")]  # by other tests
    for name in ("lm_eval", *loaded):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency) as error:
        evaluate_harness(SimpleNamespace(), ["gsm8k"])  # type: ignore[arg-type]
    assert "[harness]" in error.value.hint


@pytest.fixture(scope="module")
def own() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(STORIES, dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(STORIES)


@pytest.fixture
def opened() -> Iterator[Callable[..., Session]]:
    sessions: list[Session] = []

    def open_(config: str = "w16a16-k16v16", context: int = 128, batch: int = 1) -> Session:
        session = load(STORIES, config, context=context, output=0, batch=batch, dtype=torch.float32)
        sessions.append(session)
        return session

    yield open_
    for session in sessions:
        session.close()


def request(*args: Any) -> SimpleNamespace:
    return SimpleNamespace(args=args)


def own_log_p(model: PreTrainedModel, ids: list[int], count: int) -> float:
    """log p of the last `count` of `ids`, by transformers, keys and values held in bfloat16."""
    with torch.no_grad():
        found = model(torch.tensor([ids]), past_key_values=RoundedCache())
    log_p = found.logits[0].log_softmax(-1)
    return sum(float(log_p[at - 1, ids[at]]) for at in range(len(ids) - count, len(ids)))


@needs_harness
@third_party
@pytest.mark.parametrize("batch", [1, 2])
def test_log_likelihoods_are_transformers_own(opened, own, tokenizer, batch: int) -> None:
    from kvpareto.calibration.tasks.lm_eval_model import SessionLM

    pairs = [
        (START, " Lily."),
        ("She loved to play with her", " toys and her friends in the big park."),
        ("", "One day, a boy went home."),
    ]
    model = SessionLM(opened("w16a16-k16v16+pc64", batch=batch))
    found = model.loglikelihood([request(*pair) for pair in pairs], disable_tqdm=True)
    for (context, answer), (log_p, _) in zip(pairs, found, strict=True):
        ids = tokenizer(context + answer)["input_ids"]
        count = len(ids) - len(tokenizer(context)["input_ids"])
        if not context:  # the first special token is the context
            count = len(ids) - 1
        assert log_p == pytest.approx(own_log_p(own, ids, count), rel=1e-3)


@needs_harness
@third_party
def test_greedy_continuations_are_recognised(opened) -> None:
    from kvpareto.calibration.tasks.lm_eval_model import SessionLM

    session = opened()
    model = SessionLM(session)
    text = model.generate_until([request(START, {"until": ["."], "max_gen_toks": 12})])[0]
    assert text
    assert "." not in text
    pairs = [(START, " " + text.strip()), (START, " zebra")]
    likely, unlikely = model.loglikelihood([request(*pair) for pair in pairs], disable_tqdm=True)
    assert likely[1]
    assert not unlikely[1]
    assert likely[0] / len(text) > unlikely[0] / len(" zebra")


@needs_harness
@third_party
def test_a_long_text_is_scored_in_windows(opened, own, tokenizer) -> None:
    from kvpareto.calibration.tasks.lm_eval_model import SessionLM

    text = "One day, a boy named Tim went to the park. He saw a big dog and was happy. " * 3
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert 64 < len(ids) < 128
    found = SessionLM(opened(context=64)).loglikelihood_rolling([request(text)])
    # by hand: the first window predicts 64 tokens from <s>; the second feeds the 64 tokens before
    # the last one and predicts those that are left
    expected = own_log_p(own, [tokenizer.bos_token_id, *ids[:64]], 64)
    rest = len(ids) - 64
    expected += own_log_p(own, ids[-65:], rest)
    assert found[0] == pytest.approx(expected, rel=1e-3)


@needs_harness
@third_party
def test_generation_is_cut_at_stop_strings_in_every_sequence(opened) -> None:
    from kvpareto.calibration.tasks.lm_eval_model import SessionLM

    settings = {"until": ["girl", "."], "max_gen_toks": 30}
    prompts = ["Once upon a time, there was a little", "One day,", "The dog"]
    alone = SessionLM(opened()).generate_until([request(p, settings) for p in prompts])
    together = SessionLM(opened(batch=2)).generate_until([request(p, settings) for p in prompts])
    assert alone == together
    assert all("girl" not in text and "." not in text for text in alone)


@needs_harness
@third_party
def test_answers_that_do_not_fit_are_refused(opened) -> None:
    from kvpareto.calibration.tasks.lm_eval_model import SessionLM

    with pytest.raises(BadInput, match="leave no room"):
        SessionLM(opened(context=64)).generate_until([request("One", {"max_gen_toks": 64})])


@needs_harness
@third_party
def test_local_tasks_are_scored_item_by_item(opened, local_tasks: Path) -> None:
    found = evaluate_harness(opened(), ["story_choice", "story_next"], folder=local_tasks)
    # the data's fifth line names the wrong end as right
    assert found["story_choice"].per_item == (1.0, 1.0, 1.0, 1.0, 0.0)
    assert found["story_choice"].value == 0.8
    assert found["story_choice"].stderr == pytest.approx(0.2)  # s² = 0.2, n = 5
    assert found["story_next"].per_item[1:] == (0.0, 0.0)


@needs_harness
@third_party
def test_a_limit_takes_the_first_items(opened, local_tasks: Path) -> None:
    found = evaluate_harness(opened(), ["story_choice"], folder=local_tasks, limit=2)
    assert found["story_choice"].per_item == (1.0, 1.0)


@needs_harness
@third_party
def test_a_chat_template_is_applied_where_there_is_one(opened, local_tasks, monkeypatch) -> None:
    session = opened()
    session.tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<answer>{% endif %}"
    )
    prompts: list[str] = []

    def steps(rows: list[list[int]], *settings: Any) -> Iterator[list[int]]:
        prompts.append(session.tokenizer.decode(rows[0], skip_special_tokens=True))
        yield [session.tokenizer.eos_token_id]

    monkeypatch.setattr(session, "steps", steps)
    evaluate_harness(session, ["story_next"], folder=local_tasks)
    assert prompts[0].startswith("<user>")
    assert all(prompt.endswith("<answer>") for prompt in prompts)
    prompts.clear()
    evaluate_harness(session, ["story_next"], folder=local_tasks, chat=False)
    assert len(prompts) == 3
    assert not any("<user>" in prompt for prompt in prompts)


@needs_harness
@third_party
def test_unknown_tasks_and_metrics_without_items_are_refused(opened, local_tasks: Path) -> None:
    with pytest.raises(BadInput, match="no task called 'gsm9k'"):
        evaluate_harness(opened(), ["gsm9k"], folder=local_tasks)
    with pytest.raises(BadInput, match="no score an item"):
        evaluate_harness(opened(), ["story_rolling"], folder=local_tasks)


@needs_harness
@third_party
def test_data_that_cannot_be_had_is_a_clear_error(opened, local_tasks: Path, tmp_path) -> None:
    text = (local_tasks / "story_next.yaml").read_text().replace("story_next", "story_lost")
    (tmp_path / "story_lost.yaml").write_text(text)
    with pytest.raises(BadInput, match="story_lost could not be loaded"):
        evaluate_harness(opened(), ["story_lost"], folder=tmp_path)


def test_the_data_is_well_formed() -> None:
    for file in (DATA / "lm_eval").glob("*.jsonl"):
        assert all(json.loads(line) for line in file.read_text().splitlines())
