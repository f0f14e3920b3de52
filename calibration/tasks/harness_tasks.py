"""The evaluation harness's tasks as a calibration runs them: loaded once, scored by item.

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

from ...planner.errors import BadInput
from ...runtime import Session
from .lm_eval import PREFIX, run_tasks, task_manager

MAX_NEW_TOKENS = 256  # the harness's own default for tasks that name none
LONG = 2048  # generated tokens from which on a task counts as long reasoning
READING = ("longbench", "ruler", "niah", "squad", "coqa", "babilong", "needle", "hotpotqa")
"""Parts of the names of generation tasks whose answer is found in the prompt."""


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
            found = run_tasks(
                session, list(members.values()), self._manager, limit=limit, seed=self._seed
            )
        tokenizer: Any = session.tokenizer  # there is one: the tasks have just been read with it
        lengths = [
            len(tokenizer(str(instance.args[0]), verbose=False)["input_ids"])
            for task in members.values()
            for instance in task.instances
        ]
        self._tokens[name] = round(mean(lengths)) if lengths else 0
        return [value for member in members for value in found[member].per_item]

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
        return "likelihood"
    if any(part in name.lower() for part in READING):
        return "retrieval"
    return "long_reasoning" if max(map(_generated, members.values())) >= LONG else "reasoning"


def _generated(task: Any) -> int:
    if task.OUTPUT_TYPE != "generate_until":
        return 0
    settings = task.config.generation_kwargs or {}
    return int(settings.get("max_gen_toks", MAX_NEW_TOKENS))
