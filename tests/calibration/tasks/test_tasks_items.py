"""Generated items: exact length, the same by seed, and solvable from their text alone."""

import copy
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from kvpareto.calibration import tasks
from kvpareto.calibration.tasks.arithmetic import Arithmetic
from kvpareto.calibration.tasks.fit_length import largest
from kvpareto.calibration.tasks.haystack import bundled_haystack, read_haystack, sentences_of
from kvpareto.calibration.tasks.needle import Needle
from kvpareto.calibration.tasks.variable_tracking import Variables
from kvpareto.calibration.tasks.words import ADJECTIVES, NOUNS, names
from kvpareto.planner.errors import BadInput
from tests.support.data_files import STORIES

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
NAMES = tuple(tasks.TASKS)
WORD = 24  # tokens of the longest word in the bundled haystack or a list, one byte a token


@pytest.fixture(scope="module")
def stories():
    return AutoTokenizer.from_pretrained(STORIES)


@pytest.fixture(scope="module")
def chat(stories):
    found = copy.deepcopy(stories)
    found.chat_template = TEMPLATE
    return found


@pytest.fixture(scope="module")
def byte_level() -> PreTrainedTokenizerFast:
    """One token a byte, without special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture(params=["stories", "chat", "byte_level"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1000, 1537, 6000])
def test_prompts_are_as_long_as_asked(tokenizer, name: str, length: int) -> None:
    (task,) = tasks.find(name)
    for item in task.items(tokenizer, length, 3):
        assert length - WORD < len(item.prompt_ids) <= length
        special = not tokenizer.chat_template
        assert tokenizer(item.text, add_special_tokens=special).input_ids == list(item.prompt_ids)


@pytest.mark.parametrize("name", NAMES)
def test_prompts_of_a_tiny_model_fit_its_context(stories, name: str) -> None:
    (task,) = tasks.find(name)
    for item in task.items(stories, 400, 4):
        assert 400 - WORD < len(item.prompt_ids) <= 400


def test_templates_and_special_tokens_are_counted(chat, stories) -> None:
    (templated,) = Needle("needle").items(chat, 600, 1)
    assert templated.text.startswith("<user> Secret numbers")
    assert "\n<assistant> The secret number of" in templated.text
    (plain,) = Needle("needle").items(chat, 600, 1, chat=False)
    assert plain.text.startswith("Secret numbers")
    assert plain.prompt_ids[0] == stories.bos_token_id
    assert templated.prompt_ids[0] != stories.bos_token_id  # the template says what comes first


@pytest.mark.parametrize("name", NAMES)
def test_items_depend_on_nothing_but_their_arguments(stories, name: str) -> None:
    (task,) = tasks.find(name)
    items = task.items(stories, 700, 3, seed=5)
    assert items == task.items(stories, 700, 3, seed=5)
    assert items[:2] == task.items(stories, 700, 2, seed=5)
    assert len({item.answers for item in items + task.items(stories, 700, 3, seed=6)}) == 6


def test_items_are_the_same_in_another_process_without_the_harness(stories) -> None:
    code = (
        "import sys, kvpareto.calibration.tasks.lm_eval; from kvpareto.calibration import tasks;"
        "from transformers import AutoTokenizer;"
        f"t = AutoTokenizer.from_pretrained({str(STORIES)!r});"
        "print([i.prompt_ids for x in tasks.find('all') for i in x.items(t, 450, 1)]);"
        "print('lm_eval' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = [i.prompt_ids for x in tasks.find("all") for i in x.items(stories, 450, 1)]
    assert done.stdout.splitlines() == [str(here), "False"]


@pytest.mark.parametrize("name", ["needle", "needle-multikey", "needle-multivalue"])
def test_needles_are_in_the_haystack(stories, name: str) -> None:
    (task,) = tasks.find(name)
    assert isinstance(task, Needle)
    places = []
    for item in task.items(stories, 1500, 20):
        asked = re.search(r"Question: .*of (\S+) given", item.text)[1]  # type: ignore[index]
        held = re.findall(r"The secret number of (\S+) is (\d{7})\.", item.text)
        assert len(held) == task.keys * task.values
        assert {number for key, number in held if key == asked} == set(item.answers)
        assert len(item.answers) == task.values
        places.append(item.text.index(f"is {item.answers[0]}") / len(item.text))
    assert min(places) < 0.3  # early and late in the text
    assert max(places) > 0.7


def test_variables_follow_from_the_assignments(stories) -> None:
    for item in Variables("variables").items(stories, 1500, 20):
        held: dict[str, str] = {}
        for new, source in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)\.", item.text):
            held[new] = held.get(source, source)  # fails to resolve if a hop stands too early
        asked = re.search(r"have the value (\d+)", item.text)[1]  # type: ignore[index]
        assert {name for name, value in held.items() if value == asked} == set(item.answers)
        assert len(held) == 10
        assert len(set(held.values())) == 2


@pytest.mark.parametrize(
    ("length", "level"),
    [(400, (3, 4, 1)), (1000, (5, 6, 2)), (3000, (10, 10, 3)), (9000, (10, 30, 3))],
)
def test_common_words_are_the_most_common(stories, length: int, level: tuple) -> None:
    count, often, seldom = level
    for item in tasks.TASKS["common-words"].items(stories, length, 5):
        found = Counter(re.findall(r"\d+\. (\S+)", item.text)).most_common()
        assert {name for name, _ in found[:count]} == set(item.answers)
        assert {times for _, times in found[:count]} == {often}
        assert found[count][1] == seldom


def test_arithmetic_follows_from_the_steps(stories) -> None:
    for item in Arithmetic("arithmetic").items(stories, 1500, 20):
        total = int(re.search(r"start with (\d+)", item.text)[1])  # type: ignore[index]
        totals = []
        steps = re.findall(r"Step (\d): (add|subtract) (\d+)\.", item.text)
        assert [int(place) for place, *_ in steps] == [1, 2, 3, 4, 5, 6]
        for _, operation, number in steps:
            total += int(number) if operation == "add" else -int(number)
            totals.append(str(total))
        assert tuple(totals) == item.answers
        assert "after step 1:" in item.text[-20:]


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_answer_fits_the_budget(stories, name: str) -> None:
    (task,) = tasks.find(name)
    for item in task.items(stories, 1500, 5):
        answer = ", ".join(item.answers)
        assert len(stories(answer, add_special_tokens=False).input_ids) < item.max_new_tokens
        assert task.score(item, answer) == 1.0
        assert task.score(item, "") == 0.0


def test_too_short_a_length_says_what_it_takes(stories) -> None:
    with pytest.raises(BadInput, match=r"task needle needs \d+ tokens .* more than 30"):
        Needle("needle").items(stories, 30, 1)
    with pytest.raises(BadInput, match="common-words does not fit 60 tokens"):
        tasks.TASKS["common-words"].items(stories, 60, 1)


def test_a_missing_template_is_refused(stories) -> None:
    with pytest.raises(BadInput, match="no chat template"):
        Needle("needle").items(stories, 600, 1, chat=True)


def test_a_users_haystack_is_used(stories, tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_text('The cat sat.  A dog\nran off!\n\nWho "knew?" Nobody did', encoding="utf-8")
    haystack = read_haystack(file)
    assert haystack.sentences == ("The cat sat.", "A dog ran off!", 'Who "knew?"', "Nobody did")
    (item,) = Needle("needle").items(stories, 400, 1, haystack=haystack)
    assert item.text.count("The cat sat.") > 5
    assert "ferry" not in item.text


@pytest.mark.parametrize("content", [b"", b" \n\n ", b"\xff\xfe\x00"])
def test_a_haystack_without_text_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "own.txt"
    file.write_bytes(content)
    with pytest.raises(BadInput, match="haystack"):
        read_haystack(file)
    with pytest.raises(BadInput, match="cannot read"):
        read_haystack(tmp_path / "none.txt")


def test_the_bundled_haystack_holds_no_numbers() -> None:
    sentences = bundled_haystack().sentences
    assert len(sentences) == len(set(sentences)) > 60
    assert not re.search(r"\d|VAR", " ".join(sentences))


def test_facts_keep_their_order_and_their_place() -> None:
    haystack = sentences_of("One two three. Four five six. Seven eight nine ten.")
    facts = [f"Fact {i}." for i in range(8)]
    body = haystack.hide(facts, random.Random(1), ordered=True)
    for words in (0, 1, 5, 40, 200):
        text = body(words)
        assert re.findall(r"Fact \d\.", text) == facts
        assert len(re.sub(r"Fact \d\.", "", text).split()) == words


def test_names_are_many_and_different() -> None:
    pairs = names(random.Random(0), 2000)
    triples = names(random.Random(0), len(ADJECTIVES) * len(NOUNS) + 1)
    assert len(set(pairs)) == 2000
    assert {name.count("-") for name in pairs} == {1}
    assert len(set(triples)) == len(triples)
    assert {name.count("-") for name in triples} == {2}


@pytest.mark.parametrize(
    "count",
    [lambda n: 7 + n, lambda n: 7 + 3 * n, lambda n: 7 + n // 5, lambda n: 7 + n * n],
    ids=["linear", "steep", "slow", "curved"],
)
@pytest.mark.parametrize("limit", [7, 8, 1000, 54321])
def test_the_search_finds_the_last_that_fits(count, limit: int) -> None:
    asked = []

    def counted(n: int) -> int:
        asked.append(n)
        return count(n)

    n = largest(counted, limit)
    assert count(n) == limit or count(n) < limit < count(n + 1)
    assert len(asked) < 40


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("needle", ["needle"]),
        (" variables , needle,variables", ["variables", "needle"]),
        (["arithmetic"], ["arithmetic"]),
        ("all", list(NAMES)),
    ],
)
def test_tasks_are_found_by_name(asked, found: list[str]) -> None:
    assert [task.name for task in tasks.find(asked)] == found


@pytest.mark.parametrize("asked", ["nedle", "", "needle,,variables", "gsm8k"])
def test_unknown_tasks_are_refused_with_the_list(asked: str) -> None:
    with pytest.raises(BadInput) as error:
        tasks.find(asked)
    assert "needle-multikey" in error.value.hint
    assert "lm_eval:" in error.value.hint
