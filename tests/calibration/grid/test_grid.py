"""The grid: what it measures, that a score is what generating would score, and its file."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from kvpareto.calibration.grid import worker
from kvpareto.calibration.grid.design import candidates, grid
from kvpareto.calibration.grid.items import GridQuestion, ItemBatch, make_batches
from kvpareto.calibration.grid.reading import decode_items, encode_items
from kvpareto.calibration.grid.runner import FULL, GridPlan, JobRunner, read_lines
from kvpareto.calibration.grid.score import score
from kvpareto.calibration.grid.variants import GROUPS, VARIANTS, chosen, parts_of
from kvpareto.calibration.tasks.arithmetic import Arithmetic
from kvpareto.calibration.tasks.haystack import bundled_haystack
from kvpareto.calibration.tasks.needle import Needle
from kvpareto.planner.formats.configuration import Configuration
from tests.support.data_files import STORIES
from tests.support.runtime_builders import session, small_model

TEXTS = torch.randint(3, 97, (2, 24), generator=torch.Generator().manual_seed(1))
PADDING = torch.tensor([0, 3])
ASKED, ANSWERED = 5, 6


def batch_of(generated: list[list[int]], seed: int = 2) -> ItemBatch:
    """One question of five tokens a text, with these answers in parts of two tokens."""
    asked = torch.randint(3, 97, (2, ASKED), generator=torch.Generator().manual_seed(seed))
    ids = torch.cat([asked, torch.tensor(generated)], dim=1)
    asks = torch.zeros(2, ids.shape[1], dtype=torch.bool)
    asks[:, ASKED - 1 : -1] = True
    ends = torch.tensor([[6, 8, 10], [6, 8, 10]])
    return ItemBatch(TEXTS, PADDING, (GridQuestion(ids, asks, ends),))


@pytest.mark.parametrize("text", ["k16v16", "k4v4-g32", "k4v4-g32+pc8", "k2v2-g32+rot"])
def test_what_greedy_decoding_generates_is_right_and_nothing_else_is(text: str) -> None:
    with session(small_model("llama"), f"w16a16-{text}", tokens=64, batch=2) as run:
        empty = batch_of([[3] * ANSWERED] * 2)
        asked = empty.questions[0].ids[:, :ASKED]
        prompts = [
            [*row[pad:].tolist(), *more.tolist()]
            for row, pad, more in zip(TEXTS, PADDING.tolist(), asked, strict=True)
        ]
        answer = run.generate(prompts, ANSWERED, stops=frozenset()).tokens
        assert score(run, [batch_of(answer)]) == [3, 3]
        spoiled = [list(row) for row in answer]
        spoiled[0][3] = (spoiled[0][3] + 1) % 97  # the second part of the first item
        spoiled[1][4] = (spoiled[1][4] + 1) % 97  # the third of the second
        assert score(run, [batch_of(spoiled)]) == [1, 2]


@pytest.mark.parametrize("text", ["k4v4-kc+res32+pc8", "k2v2-pb16+smooth", "k4v4-pt"])
def test_a_question_does_not_see_the_one_before_it(text: str) -> None:
    first, second = batch_of([[5] * ANSWERED] * 2), batch_of([[7] * ANSWERED] * 2, seed=3)
    with session(small_model("llama"), f"w16a16-{text}", tokens=64, batch=2) as run:
        chosen: list[torch.Tensor] = []
        from kvpareto.calibration.grid import score as module

        def keep(question: GridQuestion, picked: torch.Tensor) -> torch.Tensor:
            chosen.append(picked.clone())
            return picked[:, 0]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_right", keep)
            both = ItemBatch(TEXTS, PADDING, (*first.questions, *second.questions))
            score(run, [both])
            score(run, [second])
    assert torch.equal(chosen[1], chosen[2])


def test_items_are_the_tasks_own_prompts() -> None:
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    task = Needle("needle-multikey", keys=4)
    (batch,) = make_batches(task, tokenizer, 512, texts=2, questions=9, batch=2, seed=7)
    rng = random.Random("grid needle-multikey 7 1")
    puzzles = task.puzzles(rng, bundled_haystack(), 512, len)
    text = batch.texts[1, int(batch.padding[1]) :]
    assert len(batch.questions) == 4
    for puzzle, question in zip(puzzles, batch.questions, strict=True):
        end = int(question.ends[1, 0])
        whole = tokenizer.decode([*text.tolist(), *question.ids[1, : end + 1].tolist()])
        asked = f"\n\n{puzzle.after}\n{puzzle.prefix}"
        assert whole.endswith(asked + puzzle.ideal)
        assert puzzle.before in whole
        prompt = tokenizer(whole[: -len(puzzle.ideal)].removeprefix("<s>").lstrip())["input_ids"]
        first = int(question.asks[1].nonzero()[0])
        assert prompt == [*text.tolist(), *question.ids[1, : first + 1].tolist()]
        assert len(prompt) <= 512


def test_answer_parts_end_where_the_next_sign_is() -> None:
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    task = Arithmetic("arithmetic", steps=2, starts=2)
    (batch,) = make_batches(task, tokenizer, 300, texts=1, questions=2, batch=1, seed=0)
    for question in batch.questions:
        read = [
            tokenizer.decode(question.ids[0, : int(end) + 1]).splitlines()
            for end in question.ends[0]
        ]
        assert read[0][-2].startswith("after step 1: ")
        assert read[0][-1] == "a"  # of the next line: the number has ended
        assert read[1][-1].startswith("after step 2: ")


def test_copied_answers_are_asked_for_in_the_order_of_the_text() -> None:
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    task = Needle("needle-multivalue", keys=1, values=4)
    batches = make_batches(task, tokenizer, 400, texts=4, questions=1, batch=2, seed=0)
    for batch in batches:
        for text, row in zip(batch.texts, batch.questions[0].ids, strict=True):
            said = tokenizer.decode(text)
            numbers = re.findall(r"\d{7}", tokenizer.decode(row))
            assert numbers == sorted(numbers, key=said.index)


def test_the_grid_is_the_same_however_much_of_it_is_asked() -> None:
    whole = grid(300)
    assert grid(120) == whole[:120]
    assert len(set(whole)) == 300
    assert whole[:2] == [Configuration(), Configuration(weight_bits=4)]
    assert set(whole[2:]) <= set(candidates())
    assert all(c.weight_bits == 16 for c in grid(100, weights=(16,)))


def test_any_beginning_of_the_grid_is_balanced() -> None:
    some = grid(150)[2:]
    pairs = Counter((c.k_bits, c.v_bits) for c in some)
    assert len(pairs) == 15
    assert pairs[2, 2] >= 2 * pairs[8, 8] > 0
    for name in ("weight_bits", "residual", "chunk"):
        counts = Counter(getattr(c, name) for c in some)
        assert max(counts.values()) < 1.3 * min(counts.values())
    kinds = Counter(c.granularity for c in some)
    assert min(kinds.values()) >= 0.08 * len(some)


def test_items_are_one_digit_each() -> None:
    assert encode_items([0, 1, 10, 3]) == "01a3"
    assert decode_items("01a3") == [0, 1, 10, 3]


def test_runs_are_scored_on_the_hardest_variants_the_model_can_do() -> None:
    hard = [group[0].name for group in GROUPS]
    assert chosen(dict.fromkeys(VARIANTS, 1.0)) == hard
    able = {"needle-16": 0.9, "variables-8x2": 0.2, "variables-8x1": 0.7, "arithmetic-3": 0.1}
    assert chosen(able) == ["needle-16", "variables-8x1"]
    assert chosen(able | {"needle-32": 0.8}) == ["needle-16", "variables-8x1", "needle-32"]
    assert chosen({"needle-16": 0.3, "arithmetic-3": 0.1}) == ["needle-16"]
    names = "needle-16", "variables-8x2", "arithmetic-6"
    assert [parts_of(VARIANTS[name]) for name in names] == [1, 3, 6]


def test_a_worker_answers_with_every_item(tmp_path: Path) -> None:
    bench = worker.LoadedModels(tmp_path, "cpu", seed=0, items=32, batch=2)
    job = worker.Job(str(STORIES), "w16a16-k4v4-kc", 700, ("arithmetic-3",))
    answer = bench.run(job)
    assert answer["right"] == {"arithmetic-3": [0] * 32}
    again = worker.LoadedModels(tmp_path, "cpu", seed=0, items=32, batch=2).items(
        str(STORIES), 700, "arithmetic-3"
    )
    assert len(again) == 1
    assert torch.equal(again[0].texts, bench.items(str(STORIES), 700, "arithmetic-3")[0].texts)


def test_what_is_on_disk_is_not_run_again(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    plan = GridPlan(("m/recall",), out, (1024, 4096), 10, 1, None, 0, "cpu", 256, (16,))
    full = {"model": "recall", "config": FULL, "context": 1024}
    full["tasks"] = {"needle-16": {"score": 0.9, "items": ""}, "arithmetic-3": {"score": 0.1}}
    second = {"model": "recall", "config": str(grid(10, weights=(16,))[1]), "context": 1024}
    out.write_text("\n".join(map(json.dumps, ({"environment": {}}, full, second))) + '\n{"torn')
    runner = JobRunner(plan)
    assert len(read_lines(out)) == 2
    assert {job.context for job in runner._ability_jobs()} == {4096}
    jobs = runner._grid_jobs()
    assert len(jobs) == 8  # at 1,024 tokens alone: at 4,096 nothing is known of the model yet
    assert {job.variants for job in jobs} == {("needle-16",)}
    assert second["config"] not in {job.config for job in jobs}
