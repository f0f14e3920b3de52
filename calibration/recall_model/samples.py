"""Training texts, token by token: the generated tasks with many questions behind one long text.

Every task of `calibration/tasks` has its function here and speaks as it does; only more is asked
about each text, and answers whose order is free come in the order of the text. `facts` is how many
the text holds; the curriculum raises it. `pairs` is the bare form that recall is learned from
first: symbols and their values side by side, nothing else.
"""

from dataclasses import dataclass, field

from numpy.random import Generator

from ..tasks.common_words import LEVELS
from .words import Words, distinct

SPACE_FOR_FACTS = 0.45  # of a text, at most
SPACE_FOR_QUESTIONS = 0.45


@dataclass
class Sample:
    """`ids`; for each token whether it is part of an answer; `ends`, the last token of each
    answer, behind which the text would end if nobody asked on."""

    ids: list[int] = field(default_factory=list)
    answer: list[bool] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def say(self, ids: list[int], answer: bool = False) -> None:
        self.ids += ids
        self.answer += [answer] * len(ids)


@dataclass
class SampleQuestion:
    """Tokens of what is asked with the beginning of the answer, and of how the answer goes on."""

    asked: list[int]
    ideal: list[int]


def compose(
    words: Words,
    rng: Generator,
    length: int,
    before: str,
    facts: list[list[int]],
    questions: list[SampleQuestion],
) -> Sample:
    """`facts` in this order at random depths of a filler that makes the whole `length` tokens
    long; questions as many as have room, at least one."""
    out = Sample()
    out.say([*words(before), words.gap])
    room = length - len(out.ids) - sum(map(len, facts))
    limit = min(room, int(length * SPACE_FOR_QUESTIONS))
    asked: list[SampleQuestion] = []
    for question in questions:
        size = 1 + len(question.asked) + len(question.ideal)
        if asked and size > limit:
            break
        asked.append(question)
        limit -= size
        room -= size
    pile = words.filler(rng, max(0, room))
    gaps = len(pile) + 1
    depths = sorted(rng.random(len(facts)).tolist(), reverse=True)
    for depth, fact in zip(depths, reversed(facts), strict=True):
        pile.insert(int(depth * gaps), fact)
    out.say(words.at_line_start(pile[0]))
    for sentence in pile[1:]:
        out.say(sentence)
    for question in asked:
        out.say([words.gap, *question.asked])
        out.say(question.ideal, True)
        out.ends.append(len(out.ids) - 1)
    return out


def needles(words: Words, rng: Generator, length: int, facts: int) -> Sample:
    """Names with 1, 2 or 4 numbers each; each name is asked for once."""
    most = int(length * SPACE_FOR_FACTS) // 12
    values = min(most, (1, 1, 1, 2, 4, 4)[rng.integers(6)])
    return ask_needles(words, rng, length, max(1, min(facts, most) // values), values)


def ask_needles(words: Words, rng: Generator, length: int, keys: int, values: int) -> Sample:
    """`keys` names with `values` numbers each, told in any order; every name is asked for."""
    names = words.names(rng, keys)
    numbers = [words.number(n) for n in distinct(rng, 1_000_000, 10_000_000, keys * values)]
    told = rng.permutation(keys * values).tolist()
    start, verb = words(" The secret number of"), words(" is")
    facts = [[*start, *names[n % keys], *verb, *numbers[n], words.stop] for n in told]
    several = "s" if values > 1 else ""
    ask = words(
        "Question: what are all the secret numbers of"
        if several
        else "Question: what is the secret number of"
    )
    subject = words(f"The secret number{several} of")
    given, then = words(" given in the text"), words(" are" if several else " is")
    questions = []
    for key in rng.permutation(keys).tolist():
        name = names[key]
        asked = [*ask, *name, *given, *words("?\n"), *subject, *name, *given, *then]
        listed = words.listed([numbers[n] for n in told if n % keys == key])
        questions.append(SampleQuestion(asked, listed))
    before = (
        "Secret numbers are hidden in the text below. Remember them for the question behind it."
    )
    return compose(words, rng, length, before, facts, questions)


def variables(words: Words, rng: Generator, length: int, facts: int) -> Sample:
    """Chains of 1, 2, 3 or 5 variables; each chain is asked for once.

    A chain's first variable is the one that must be found by a number, and the last step to be
    learned: chains of one ask for nothing else, and of many values at a time.
    """
    facts = min(facts, int(length * SPACE_FOR_FACTS) // 10)
    sizes = [size for size in (1, 1, 2, 3, 5, 5) if size <= max(2, facts)]
    size = sizes[rng.integers(len(sizes))]
    return ask_variables(words, rng, length, max(1, facts // size), size - 1)


def ask_variables(words: Words, rng: Generator, length: int, chains: int, hops: int) -> Sample:
    """`chains` values, each passed on over `hops` assignments among the others'."""
    size = hops + 1
    names = words.variables(rng, chains * size)
    values = [words.number(n) for n in distinct(rng, 10_000, 100_000, chains)]
    var, equals = words(" VAR"), words(" =")
    turns = rng.permutation(chains * size).tolist()  # which chain goes on, each in its own order
    told = [0] * chains
    facts = []
    for turn in turns:
        chain = turn % chains
        place = chain * size + told[chain]
        source = [*var, *names[place - 1]] if told[chain] else values[chain]
        facts.append([*var, *names[place], *equals, *source, words.stop])
        told[chain] += 1
    questions = []
    for chain in rng.permutation(chains).tolist():
        value = values[chain]
        asked = [
            *words(f"Question: which {size} variables have the value"),
            *value,
            *words(f" in the end?\nThe {size} variables with the value"),
            *value,
            *words(" are"),
        ]
        listed = words.listed(names[chain * size : (chain + 1) * size])
        questions.append(SampleQuestion(asked, listed))
    before = (
        "Variables are assigned in the text below, some of them from other variables. "
        "Follow the assignments."
    )
    return compose(words, rng, length, before, facts, questions)


def arithmetic(words: Words, rng: Generator, length: int, facts: int) -> Sample:
    """1 to 6 steps, asked from many starts."""
    del facts
    return ask_arithmetic(words, rng, length, (1, 2, 3, 6, 6, 6)[rng.integers(6)])


def ask_arithmetic(words: Words, rng: Generator, length: int, steps: int) -> Sample:
    """`steps` additions and subtractions, asked from starts whose totals keep three digits."""
    changes = ((rng.integers(0, 2, steps) * 2 - 1) * rng.integers(11, 100, steps)).tolist()
    facts = [
        [
            *words(f" Step {place}: {'add' if change > 0 else 'subtract'}"),
            *words.number(abs(change)),
            words.stop,
        ]
        for place, change in enumerate(changes, 1)
    ]
    ask, start_line = words("Question: start with"), words("At the start:")
    carry = words(f" and carry out steps 1 to {steps}. What is the total after each step?\n")
    lines = [words(f"\nafter step {place}:") for place in range(1, steps + 1)]
    questions = []
    for start in rng.permutation(400)[: min(64, 2 + length // 80)].tolist():
        total = start + 300
        number = words.number(total)
        totals = []
        for change in changes:
            total += change
            totals.append(total)
        if min(totals) < 100 or max(totals) > 999:
            continue
        asked = [*ask, *number, *carry, *start_line, *number, *lines[0]]
        ideal = words.number(totals[0])
        for line, total in zip(lines[1:], totals[1:], strict=True):
            ideal = [*ideal, *line, *words.number(total)]
        questions.append(SampleQuestion(asked, ideal))
    before = "The steps of a calculation are scattered in the text below, in their order."
    if not questions:  # changes that leave three digits from every start
        return ask_arithmetic(words, rng, length, steps)
    return compose(words, rng, length, before, facts, questions)


def common_words(words: Words, rng: Generator, length: int, facts: int) -> Sample:
    """A list with its most frequent entries, as many as the task takes at this length."""
    del facts
    count, often, seldom = next(
        (level for level in LEVELS if level[0] * level[1] * 6 <= length / 2), LEVELS[-1]
    )
    names = words.names(rng, count + max(20, length // 9))
    common, others = names[:count], names[count:]
    answer = words.listed([common[n] for n in rng.permutation(count).tolist()])
    after = words(
        f"\n\nQuestion: which {count} entries come most often in the list?\n"
        f"The {count} most frequent entries are"
    )
    out = Sample()
    out.say(
        words(
            "Some entries of the numbered list below come more often than the others. "
            "Remember those.\n\n"
        )
    )
    room = length - len(out.ids) - len(after) - len(answer)
    entries, used = 0, 0
    while used < room:  # how many entries fit, numbered as they will be
        entries += 1
        used += len(str(entries) if entries < 1000 else words.number(entries)) + 3
    entries -= 1
    extra = max(0, entries - count * often)
    listed = common * often + [others[i // seldom % len(others)] for i in range(extra)]
    for place, entry in enumerate(rng.permutation(len(listed)).tolist(), 1):
        number = words.number(place)
        out.say([*(number if place > 1 else words.at_line_start(number)), words.stop])
        out.say(listed[entry])
    out.say(after)
    out.say(answer, True)
    out.ends.append(len(out.ids) - 1)
    return out


def pairs(words: Words, rng: Generator, length: int, facts: int) -> Sample:
    """Names or variables and numbers or names, side by side; then each name again, many times."""
    kinds = int(rng.integers(4))
    facts = min(facts, int(length * SPACE_FOR_FACTS) // 6)
    keys = words.names(rng, facts) if kinds & 1 else words.variables(rng, facts)
    if kinds & 2:
        low, high = [(100, 1000), (10_000, 100_000), (1_000_000, 10_000_000)][rng.integers(3)]
        values = [words.number(n) for n in rng.integers(low, high, facts).tolist()]
    else:
        values = words.variables(rng, facts)
    out = Sample()
    for key, value in zip(keys, values, strict=True):
        out.say([*key, *value])
    while True:
        for place in rng.permutation(facts).tolist():
            if len(out.ids) + len(keys[place]) + len(values[place]) > length:
                return out
            out.say(keys[place])
            out.say(values[place], True)


def backward(words: Words, rng: Generator, length: int, facts: int) -> Sample:
    """Values before their names, with parts of one to three tokens; then each name once, with its
    value; and other ones, until the text is full.

    What variables ask for: a name seen again leads to what stood before it.
    """
    facts = min(facts, int(length * SPACE_FOR_FACTS) // 6, 64)  # one token has 90 values
    out = Sample()
    while len(out.ids) < length:
        width, cut = rng.integers(1, 4, 2).tolist()
        keys: dict[tuple[int, ...], None] = {}
        numbers = rng.integers(2) > 0
        while len(keys) < facts:
            key = words.number(int(rng.integers(10_000, 100_000))) if numbers else None
            keys[tuple((key or words.variables(rng, 1)[0])[:width])] = None
        values = [value[:cut] for value in words.variables(rng, facts)]
        known = [(list(key), value) for key, value in zip(keys, values, strict=True)]
        for key, value in known:
            out.say([*value, *key])
        for place in rng.permutation(facts).tolist():
            key, value = known[place]
            out.say(key)
            out.say(value, True)
    return out


def prose(words: Words, rng: Generator, length: int, facts: int) -> Sample:
    """The text that divergence is measured on, from anywhere in it."""
    del facts
    text = words.calibration_text
    out = Sample()
    start = int(rng.integers(len(text)))
    out.say((text[start:] + text * (length // len(text) + 1))[:length])
    return out


KINDS = {
    function.__name__: function
    for function in (needles, variables, arithmetic, common_words, pairs, backward, prose)
}
