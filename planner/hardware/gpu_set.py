"""Several GPUs by one text: what `--gpu` takes, for every engine.

    H100    2xH100    H100x2    2 H100    3090+3060    2x3090, 3060    auto

A text that is a card's name is no count: `7900xtx` is one card. Two Macs are two machines, and
refused. `auto` is this machine's one kind of card. An engine that fills one card says so itself
(`Engine.several_cards`).
"""

import re
from collections.abc import Sequence

from ..errors import BadInput
from .gpu_names import candidates, find_gpu, gpu_argument
from .gpus import Hardware

MOST = 64
"""Cards of one text: more than one machine has is a cluster, which nothing here plans."""
COUNTS = (1, 2, 4, 8)
"""Cards of one kind that machines are sold with."""
_JOINED = re.compile(r"[+,;&]")
_BEFORE = re.compile(r"(?P<count>\d{1,9})\s*[x×*]\s*(?P<name>\S.*)", re.IGNORECASE)
_WORDS = {"dual": 2, "two": 2, "three": 3, "quad": 4, "four": 4, "eight": 8}
_COUNTED = (
    _BEFORE,
    re.compile(r"(?P<name>.+?)\s*\(?[x×*]\s*(?P<count>\d{1,9})\)?", re.IGNORECASE),
    re.compile(r"[x×*]\s*(?P<count>\d{1,9})\s+(?P<name>\S.*)", re.IGNORECASE),
    re.compile(rf"(?P<count>\d{{1,3}}|{'|'.join(_WORDS)})\s+(?P<name>\S.*)", re.IGNORECASE),
)
"""Where a count may stand. Which of them is meant is told by the name that is left."""


def find_gpus(text: str) -> tuple[Hardware, ...]:
    """The GPUs that `text` means, in its order, each as often as it is there.

    Raises BadInput for a name that is not known or means two cards, for no card and for more than
    MOST; MissingDependency where `auto` finds none.
    """
    if not text.strip():
        raise BadInput("--gpu names no GPU", "`kvpareto profiles list` names the known ones")
    gpus: list[Hardware] = []
    for part in _JOINED.split(text):
        if not part.strip():
            raise BadInput(
                f"--gpu {text.strip()!r} has an empty part", "join names by +: 3090+3060"
            )
        count, name = _counted(part.strip(), text)
        if len(gpus) + count > MOST:
            raise BadInput(
                f"--gpu {text.strip()!r} is more than {MOST} GPUs", "plan for one machine"
            )
        gpus += [_one(name)] * count
    _refuse_machines(gpus, text.strip())
    return tuple(gpus)


def _refuse_machines(gpus: Sequence[Hardware], text: str) -> None:
    """Raises BadInput where the GPUs cannot be of one machine."""
    whole = [gpu for gpu in gpus if gpu.is_machine]
    if len(whole) > 1 or (len(gpus) > 1 and any(gpu.takes_no_cards for gpu in whole)):
        raise BadInput(
            f"--gpu {text!r} is several machines: {whole[0].name} is part of its machine's "
            "processor, and a plan is for one machine",
            f"--gpu {gpu_argument(whole[0])!r} plans for one of them",
        )


def gpus_text(gpus: Sequence[Hardware]) -> str:
    """The GPUs as `--gpu` takes them: `2xH100 SXM5`, `RTX 3090+RTX 3060 12GB`."""
    parts: list[tuple[str, int]] = []
    for gpu in gpus:
        name = gpu_argument(gpu)
        if parts and parts[-1][0] == name:
            parts[-1] = (name, parts[-1][1] + 1)
        else:
            parts.append((name, 1))
    return "+".join(name if count == 1 else f"{count}x{name}" for name, count in parts)


def more_cards(gpus: Sequence[Hardware]) -> tuple[Hardware, ...]:
    """The next larger of COUNTS of these cards; none where they differ, no count is larger, or a
    machine has one."""
    larger = [count for count in COUNTS if count > len(gpus) and not gpus[0].is_machine]
    if not larger or len(set(gpus)) != 1:
        return ()
    return (gpus[0],) * larger[0]


def _counted(part: str, text: str) -> tuple[int, str]:
    """(how many, of which name) of one part."""
    count, name = (1, part) if _is_known(part) else _reading(part)
    if count < 1:
        raise BadInput(f"--gpu {text.strip()!r} names no GPU", "give one at least: 1xH100")
    return count, name


def _reading(part: str) -> tuple[int, str]:
    """(how many, of which name) by the first reading that leaves a known name; of an unknown one
    as many as a machine may have."""
    for pattern in _COUNTED:
        match = pattern.fullmatch(part)
        if match and _is_known(match["name"]):
            count = match["count"].lower()
            return _WORDS.get(count) or int(count), match["name"].strip()
    match = _BEFORE.fullmatch(part)
    if match and int(match["count"]) <= MOST:
        return int(match["count"]), match["name"].strip()
    return 1, part


def _is_known(name: str) -> bool:
    return name.strip().lower() == "auto" or bool(candidates(name))


def _one(name: str) -> Hardware:
    if name.lower() == "auto":
        from .detect_gpu import detect_gpu

        return detect_gpu()
    return find_gpu(name)
