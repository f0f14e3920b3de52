"""Kinds of task that retention is predicted for, and which of them is shown first.

A configuration keeps more of one kind than of another: long chains of reasoning fall first,
likelihoods last. What a person is promised is what the weakest kind keeps.
"""

from collections.abc import Collection

from ..errors import BadInput

GENERATED_KINDS = ("reasoning", "long_reasoning", "retrieval")
"""Task kinds whose answers are generated. The weakest of them is the retention shown first: a
mean would hide what breaks. Likelihood scores (MMLU) hardly move under cache noise, so they
cannot tell formats apart."""
OVERALL_KINDS = ("reasoning", "retrieval")
"""Generated kinds that every calibration can measure. Campaigns compare formats by their mean;
where a calibration measured both, the headline rests on measured kinds alone."""
REPORTED_KINDS = ("reasoning", "long_reasoning", "retrieval", "likelihood")
TASKS = tuple(kind.replace("_", "-") for kind in REPORTED_KINDS)
"""The kinds as they are typed."""


def parse_task(text: str) -> str:
    """`long-reasoning` -> the kind `long_reasoning`. Raises BadInput for what is no kind."""
    kind = text.strip().lower().replace("-", "_")
    if kind not in REPORTED_KINDS:
        raise BadInput(f"unknown kind of task: {text!r}", f"choose {', '.join(TASKS)}")
    return kind


def headline_kinds(scored: Collection[str], task: str | None = None) -> tuple[str, ...]:
    """The kinds whose weakest is shown first: `task` alone where one is asked for. `scored` are
    those that the model's calibration measured.

    A calibration that measured reasoning and retrieval speaks for the model by what it measured:
    long reasoning, inferred from other models' rows, then counts only if it was measured too.
    """
    if task is not None:
        return (task,)
    measured = tuple(kind for kind in GENERATED_KINDS if kind in scored)
    return measured if set(OVERALL_KINDS) <= set(measured) else GENERATED_KINDS
