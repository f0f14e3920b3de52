"""Names that the shell completes: models, GPUs, engines, objectives and kinds of tasks.

Each function takes what is typed so far and gives the names that go on from it; a word inside a
name counts too, since nobody types `NVIDIA GeForce` before `4090`.
"""

from collections.abc import Iterable

_MOST = 40


def models(incomplete: str) -> list[str]:
    """Hub ids of the bundled models, and the models that ship."""
    from ..planner.load_model import SHIPPED
    from ..planner.models.bundled import bundled_models

    return _going_on([*SHIPPED, *bundled_models()], incomplete)


def gpus(incomplete: str) -> list[str]:
    """Names as --gpu takes them, as one word of the shell: `RTX-4090`; `4090` where that is how
    the word begins, since a shell offers nothing that begins otherwise."""
    from ..planner.hardware.gpu_names import gpu_argument
    from ..planner.hardware.gpus import list_gpus

    names = ["-".join(gpu_argument(gpu).split()) for gpu in list_gpus()]
    if incomplete[:1].isdigit():
        names = [
            name.split("-", 1)[1] if name.startswith(("RTX-", "RX-")) else name for name in names
        ]
    return _going_on(["auto", *names], incomplete)


def engines(incomplete: str) -> list[str]:
    """Names of the engines."""
    from ..planner.engines import NAMES

    return _going_on(NAMES, incomplete)


def objectives(incomplete: str) -> list[str]:
    """What a plan may put first."""
    from ..planner.search.request import OBJECTIVES

    return _going_on(OBJECTIVES, incomplete)


def task_kinds(incomplete: str) -> list[str]:
    """Kinds of tasks as --task takes them."""
    from ..planner.accuracy.task_kinds import TASKS

    return _going_on(TASKS, incomplete)


def _going_on(names: Iterable[str], incomplete: str) -> list[str]:
    """Names that begin with what is typed; else those that hold it after `/`, `-` or a blank."""
    wanted = incomplete.lower()
    every = list(dict.fromkeys(names))
    begin = [name for name in every if name.lower().startswith(wanted)]
    if begin:
        return begin[:_MOST]
    marks = ("/", "-", " ")
    inside = [name for name in every if any(mark + wanted in name.lower() for mark in marks)]
    return inside[:_MOST]
