"""The recall model's tokenizer and training texts: the tasks' own words, token by token."""

import random
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from kvpareto.calibration.recall_model.batches import PROSE_WEIGHT, draw_batch
from kvpareto.calibration.recall_model.curriculum import (
    CurriculumStage,
    Level,
    draw_length,
    longest,
)
from kvpareto.calibration.recall_model.samples import (
    KINDS,
    Sample,
    ask_arithmetic,
    ask_needles,
    ask_variables,
    common_words,
)
from kvpareto.calibration.recall_model.vocabulary import build_tokenizer
from kvpareto.calibration.recall_model.words import Words
from kvpareto.calibration.tasks import TASKS, Task
from kvpareto.calibration.tasks.arithmetic import Arithmetic
from kvpareto.calibration.tasks.common_words import CommonWords
from kvpareto.calibration.tasks.haystack import bundled_haystack
from kvpareto.calibration.tasks.needle import Needle
from kvpareto.calibration.tasks.variable_tracking import Variables
from kvpareto.planner.load_model import shipped_folder

LENGTH = 700
WORDS = Words(build_tokenizer())
STAGES = [CurriculumStage(4, 4, 0.0), CurriculumStage(512, 64, 0.7)]


def shipped_tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(shipped_folder("recall"))


@pytest.mark.parametrize("name", TASKS)
def test_items_survive_the_tokenizer(name: str) -> None:
    tokenizer = shipped_tokenizer()
    (item,) = TASKS[name].items(tokenizer, 512, 1, seed=11)
    assert 500 < len(item.prompt_ids) <= 512
    assert tokenizer.decode(list(item.prompt_ids)) == item.text
    assert tuple(build_tokenizer()(item.text)["input_ids"]) == item.prompt_ids
    tokens = tokenizer.convert_ids_to_tokens(list(item.prompt_ids))
    # one word of the tasks is not in the vocabulary: "assignments"
    spelled = "".join(token for token in tokens if re.fullmatch("[a-z]", token))
    assert spelled == ("assignments" if name == "variables" else "")


@pytest.mark.parametrize(
    "text",
    ["Füße, 東京駅\t\r\n  ✓", "unheard-of xyzzy 12.5 -3 1,234,567", "aVARb VAR_x İ\x00 ", "", " "],
)
def test_any_text_has_tokens_and_comes_back(text: str) -> None:
    tokenizer = shipped_tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


REAL: dict[str, tuple[Task, Callable[[np.random.Generator], Sample]]] = {
    "needle": (Needle("x", keys=3), lambda rng: ask_needles(WORDS, rng, LENGTH, 3, 1)),
    "values": (Needle("x", keys=2, values=3), lambda rng: ask_needles(WORDS, rng, LENGTH, 2, 3)),
    "variables": (
        Variables("x", chains=2, hops=3),
        lambda rng: ask_variables(WORDS, rng, LENGTH, 2, 3),
    ),
    "arithmetic": (Arithmetic("x", steps=4), lambda rng: ask_arithmetic(WORDS, rng, LENGTH, 4)),
    "common words": (CommonWords("x"), lambda rng: common_words(WORDS, rng, LENGTH, 0)),
}


def masked(text: str) -> str:
    """What is drawn at random taken out, the words around it left."""
    text = re.sub(r"\b[a-z]+-[a-z]+\b", "NAME", text)
    text = re.sub(r"\b[A-Z]{5}\b", "VARIABLE", text)
    text = re.sub(r"\b(add|subtract)\b", "CHANGE", text)
    return re.sub(r"\d+", "N", text)


def pieces(text: str) -> tuple[str, set[str], str]:
    """Opening, the facts in the body, and the first question with its answer, all masked."""
    opening, body, question = text.split("\n\n")[:3]
    sentences = re.split(r"(?<=[.])\s+", masked(body))
    filler = {masked(sentence) for sentence in bundled_haystack().sentences}
    facts = {s for s in sentences if re.search(r"NAME|VARIABLE|CHANGE|N\b", s)} - filler
    return masked(opening), facts, masked(question)


@pytest.mark.parametrize("name", REAL)
def test_training_texts_speak_as_the_task_does(name: str) -> None:
    task, draw = REAL[name]
    puzzle = task.puzzles(random.Random(3), bundled_haystack(), LENGTH, lambda t: len(WORDS(t)))[0]
    real = f"{puzzle.before}\n\n{puzzle.body(150)}\n\n{puzzle.after}\n{puzzle.prefix}{puzzle.ideal}"
    sample = draw(np.random.default_rng(3))
    text = WORDS.tokenizer.decode(sample.ids)
    assert pieces(text) == pieces(real)
    assert WORDS.tokenizer(text)["input_ids"] == sample.ids
    last = len(sample.ids) - 1
    assert sample.ends[-1] == last
    start = max(i for i in range(last) if not sample.answer[i]) + 1
    assert masked(WORDS.tokenizer.decode(sample.ids[start:])) == masked(puzzle.ideal)


def test_training_answers_are_right() -> None:
    rng = np.random.default_rng(5)
    text = WORDS.tokenizer.decode(ask_variables(WORDS, rng, 900, 3, 2).ids)
    given = dict(re.findall(r"VAR ([A-Z]{5}) = (?:VAR )?([A-Z]{5}|\d+)\.", text))
    for value, named in re.findall(r"with the value (\d+) are ([A-Z, ]+)\.", text):
        for variable in named.split(", "):
            while not variable.isdigit():
                variable = given[variable]
            assert variable == value
    text = WORDS.tokenizer.decode(ask_arithmetic(WORDS, rng, 900, 3).ids)
    steps = re.findall(r"Step \d: (add|subtract) (\d+)\.", text)
    changes = [int(n) if how == "add" else -int(n) for how, n in steps]
    asked = re.findall(r"start: (\d+)\n.*1: (\d+)\n.*2: (\d+)\n.*3: (\d+)", text)
    assert asked
    for start, *totals in asked:
        assert [int(t) for t in totals] == [int(start) + sum(changes[: k + 1]) for k in range(3)]


@pytest.mark.parametrize("stage", STAGES, ids=["first", "last"])
def test_a_batch_asks_for_what_comes_next(stage: CurriculumStage) -> None:
    batch = draw_batch(WORDS, np.random.default_rng(1), stage, 16384)
    flat = batch.ids.flatten()
    assert flat.numel() == 16384
    assert batch.places.numel() == 4096
    answers = batch.kinds >= 0
    assert answers.any()
    assert batch.weights[answers].min() > PROSE_WEIGHT
    inside = (batch.places + 1) % batch.ids.shape[1] != 0
    following = flat[(batch.places + 1).clamp(max=flat.numel() - 1)]
    differ = inside & (batch.labels != following)
    # the end of an answer is the only place where another token is wanted than the text has
    assert (batch.labels[differ] == WORDS.end).all()
    assert 0 < int(differ.sum()) < int(answers.sum())


def test_where_a_text_ends_in_its_sequence_tells_nothing() -> None:
    batch = draw_batch(WORDS, np.random.default_rng(1), STAGES[0], 16384)
    ends = [int(torch.nonzero(row != WORDS.end)[-1]) for row in batch.ids]
    quarters = np.histogram(ends, bins=4, range=(len(batch.ids[0]) - 33, len(batch.ids[0])))[0]
    assert quarters.min() >= len(ends) // 10


@pytest.mark.parametrize("kind", KINDS)
def test_samples_keep_their_length(kind: str) -> None:
    rng = np.random.default_rng(2)
    for length, facts in ((256, 4), (1000, 16), (2048, 200)):
        sample = KINDS[kind](WORDS, rng, length, facts)
        slack = 40 if kind == "backward" else 0  # its last list may stick out, and is cut
        assert length * 0.9 < len(sample.ids) <= length + slack * facts
        assert len(sample.ids) == len(sample.answer)
        assert all(sample.answer[end] for end in sample.ends)


def test_the_curriculum_rises_with_what_is_right_and_with_time() -> None:
    level = Level(4, 16, 0.95)
    assert not any(level.learn(0.94) for _ in range(100))
    risen = [level.learn(1.0) for _ in range(400)]
    assert sum(risen) == 2
    assert level.facts == 16
    assert longest(CurriculumStage(4, 4, 0.0)) == 256
    assert longest(CurriculumStage(4, 4, 0.65)) == 16384
    rng = np.random.default_rng(0)
    drawn = {draw_length(rng, CurriculumStage(512, 64, 0.0)) for _ in range(300)}
    assert drawn == {256, 512, 1024, 2048, 4096, 8192, 16384}
