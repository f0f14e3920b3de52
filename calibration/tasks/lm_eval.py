"""Tasks of EleutherAI's lm-evaluation-harness, run by our sessions: `--tasks lm_eval:gsm8k,mmlu`.

The generated tasks measure what the cache does to recall; what a person will use the model for is
better measured by a task of that kind, and the harness has hundreds. Needs the `harness` extra,
imported only here and in lm_eval_model.py, and, for most tasks, a download of their data.

    calibrate --tasks needle,lm_eval:gsm8k,mmlu,lm_eval:./my_task.yaml

A name is a task, a group or a tag of the harness, or a file of the user's own. Their prompts have
the lengths they have: they are run at the calibration's longest context, and a row says how long
its prompts were. A group's items are spread evenly over its members.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stderr
from pathlib import Path
from statistics import mean
from typing import Any

from ...planner.accuracy.task_kinds import EXAMS
from ...planner.errors import BadInput
from ...planner.libraries import importing
from ...runtime import Session
from ..records.record_file import HARNESS
from . import TASKS
from .scores import Score

PREFIX = HARNESS
MAX_NEW_TOKENS = 256  # the harness's own default for tasks that name none
LONG = 2048  # generated tokens from which on a task counts as long reasoning
READING = ("longbench", "ruler", "niah", "squad", "coqa", "babilong", "needle", "hotpotqa")
"""Parts of the names of generation tasks whose answer is found in the prompt."""


def split_names(names: str | Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of generated tasks, and of the harness's (without prefix).

    What follows a `lm_eval:` belongs to the harness up to the next generated task's name:
    `needle,lm_eval:gsm8k,mmlu,variables` has two of each.
    """
    asked = names.split(",") if isinstance(names, str) else list(names)
    generated: list[str] = []
    harness: list[str] = []
    for name in (name.strip() for name in asked):
        if name.startswith(PREFIX):
            harness.append(name.removeprefix(PREFIX))
        elif harness and name not in (*TASKS, "all"):
            harness.append(name)
        else:
            generated.append(name)
    return generated, harness


def evaluate_harness(
    session: Session,
    names: Sequence[str],
    *,
    limit: int | None = None,
    chat: bool | None = None,
    folder: Path | None = None,
    seed: int = 0,
) -> dict[str, Score]:
    """Each task's score by its own first metric and filter; a group gives one score a member.

    `limit` is the number of items a task; the same ones for every session, so that scores can be
    paired. `chat` applies the tokenizer's template, by default where it has one. `folder` holds
    the user's own task files, which are then the only ones known. Raises MissingDependency
    without the harness, BadInput for unknown tasks, data that cannot be had, or a metric that is
    not a number an item (perplexities: see divergence.py).
    """
    manager = task_manager(names, folder)
    unknown = sorted(set(names) - set(manager.all_tasks))
    if unknown:
        raise BadInput(
            f"the harness has no task called {unknown[0]!r}", "`lm-eval ls tasks` lists its tasks"
        )
    return run_tasks(session, names, manager, limit=limit, chat=chat, seed=seed)


def task_manager(names: Sequence[str], folder: Path | None = None) -> Any:
    """The harness's index of tasks: of `folder` alone, or of its own unless all names are files.

    Raises MissingDependency without the harness.
    """
    with importing("the evaluation harness", "harness"):
        from lm_eval.tasks import TaskManager
    own = folder is None and not all(name.endswith((".yaml", ".yml")) for name in names)
    return TaskManager(include_path=None if folder is None else str(folder), include_defaults=own)


def run_tasks(
    session: Session,
    tasks: Sequence[Any],
    manager: Any,
    *,
    limit: int | None,
    chat: bool | None = None,
    seed: int = 0,
) -> dict[str, Score]:
    """`evaluate_harness` for tasks that `manager` knows by name, or that it has loaded."""
    from lm_eval import simple_evaluate

    from .lm_eval_model import SessionLM

    model = SessionLM(session)
    templated = bool(model.tokenizer.chat_template) if chat is None else chat
    try:
        results = simple_evaluate(
            model=model,
            tasks=list(tasks),
            limit=limit,
            apply_chat_template=templated,
            task_manager=manager,
            bootstrap_iters=0,  # errors are ours, from the items
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    except OSError as error:  # what `datasets` raises without a connection, or for a missing file
        named = ", ".join(str(getattr(task, "task_name", task)) for task in tasks)
        raise BadInput(
            f"the data of {named} could not be loaded: {error}",
            "check the connection and HF_TOKEN, or give tasks with local data",
        ) from error
    return {name: _score(name, samples) for name, samples in results["samples"].items()}


def _score(name: str, samples: Sequence[Mapping[str, Any]]) -> Score:
    """The score of a task from the harness's rows, one for each document and filter."""
    metric = samples[0]["metrics"][0]
    kept = [row for row in samples if row["filter"] == samples[0]["filter"]]
    values = [row[metric] for row in sorted(kept, key=lambda row: row["doc_id"])]
    if not all(isinstance(value, int | float) for value in values):
        raise BadInput(
            f"{name} has no score an item: its metric {metric} is of the whole text",
            "measure divergence and perplexity with a text instead",
        )
    return Score.of(values)


class HarnessTasks:
    """The tasks called `names`, with or without prefix.

    Raises MissingDependency without the harness, BadInput for an unknown task or data that cannot
    be had.
    """

    def __init__(self, names: Sequence[str], seed: int) -> None:
        asked = [name.removeprefix(PREFIX) for name in names]
        self._manager = task_manager(asked)
        self._seed = seed
        self._members: dict[str, Mapping[str, Any]] = {
            f"{PREFIX}{_label(name)}": _load(self._manager, name) for name in dict.fromkeys(asked)
        }
        self._tokens: dict[str, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """As rows call them: with prefix, a file by its stem."""
        return tuple(self._members)

    @property
    def kinds(self) -> dict[str, str]:
        """What each task asks of the cache: one of rows.KINDS."""
        return {name: _kind(name, members) for name, members in self._members.items()}

    @property
    def answer_tokens(self) -> int:
        """The longest answer that any task may generate."""
        return max(
            _generated(task) for members in self._members.values() for task in members.values()
        )

    def score(self, session: Session, name: str, items: int) -> list[float]:
        """The scores of the first `items`, member by member; fewer where there are fewer."""
        members = self._members[name]
        limit = -(-items // len(members))
        with _quiet():
            scores = run_tasks(
                session, list(members.values()), self._manager, limit=limit, seed=self._seed
            )
        tokenizer: Any = session.tokenizer  # there is one: the tasks have just been read with it
        lengths = [
            len(tokenizer(str(instance.args[0]), verbose=False)["input_ids"])
            for task in members.values()
            for instance in task.instances
        ]
        self._tokens[name] = round(mean(lengths)) if lengths else 0
        return [value for member in members for value in scores[member].per_item]

    def prompt_tokens(self, name: str) -> int | None:
        """Mean tokens of a task's prompts, once it was run."""
        return self._tokens.get(name)


def _label(name: str) -> str:
    return Path(name).stem if _is_file(name) else name


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _load(manager: Any, name: str) -> Mapping[str, Any]:
    """Member tasks by name."""
    try:
        with _quiet():
            return manager.load([name])["tasks"]
    except KeyError as error:
        raise BadInput(
            f"the harness has no task called {name!r}", "`lm-eval ls tasks` lists its tasks"
        ) from error
    except Exception as error:  # whatever `datasets` and the task's own code raise
        raise BadInput(
            f"the data of {name} could not be loaded: {error}",
            "check the connection and HF_TOKEN, or give tasks with local data",
        ) from error


def _quiet() -> AbstractContextManager[object]:
    """No progress bars of the harness's own beside ours. What fails is raised all the same."""
    return redirect_stderr(io.StringIO())


def _kind(name: str, members: Mapping[str, Any]) -> str:
    generates = [task.OUTPUT_TYPE == "generate_until" for task in members.values()]
    if not all(generates):
        return "short_reasoning" if name.lower().startswith(EXAMS) else "likelihood"
    if any(part in name.lower() for part in READING):
        return "retrieval"
    return "long_reasoning" if max(map(_generated, members.values())) >= LONG else "reasoning"


def _generated(task: Any) -> int:
    if task.OUTPUT_TYPE != "generate_until":
        return 0
    settings = task.config.generation_kwargs or {}
    return int(settings.get("max_gen_toks", MAX_NEW_TOKENS))
