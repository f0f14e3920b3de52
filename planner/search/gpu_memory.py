"""How much of a GPU's memory a plan may use: what the driver gives, less a desktop's share.

The vendor's size is more than any program gets: the driver keeps some of it, error correction
takes a sixteenth of some cards, and Metal recommends three quarters of an Apple chip's. On a
consumer card a desktop holds some more, unless nothing is attached to it.
"""

import re
from collections.abc import Sequence

from ..errors import BadInput
from ..hardware.gpus import Hardware
from ..units import GiB, format_bytes, parse_bytes
from .request import Request

DESKTOP_RESERVE = 500_000_000
"""Bytes left to a desktop on consumer cards: one or two screens, a browser."""

_NONE = re.compile(r"0+(\.0+)?\s*([kmgtp]?i?b?)", re.ASCII | re.IGNORECASE)


def system_share(ram: int) -> int:
    """Bytes of a machine's memory that are left to its system: a tenth, 1 GB at least."""
    return min(ram // 2, max(10**9, ram // 10))


def machine_with(free: int) -> int:
    """Bytes of a machine of which `free` are left by `system_share`."""
    return max(free + min(free, 10**9), -(-free * 10 // 9))


def parse_reserve(text: str) -> int:
    """`500MB`, `1GiB`, `0` or `0GB` -> bytes. Raises BadInput for anything else."""
    return 0 if _NONE.fullmatch(text.strip()) else parse_bytes(text)


def budget_of(gpu: Hardware, reserve: str | None) -> tuple[int, int]:
    """(the budget that a plan for all of `gpu` has, what of its memory is kept back), bytes.

    Raises BadInput where nothing would be left.
    """
    default = DESKTOP_RESERVE if gpu.consumer else 0
    kept = default if reserve is None else parse_reserve(reserve)
    if kept >= gpu.memory_bytes:
        raise BadInput(
            f"--reserve {reserve} leaves nothing of the {format_bytes(gpu.memory_bytes)} that "
            f"{gpu.name} has",
            "reserve less",
        )
    return gpu.memory_bytes - kept, kept


def within_cards(budget: int, gpus: Sequence[Hardware]) -> int:
    """A budget that was typed beside GPUs: no more of it than they give programs.

    Who types the size that a card is sold with means all of it. Where what it gives is an estimate,
    or the system's to set (a unified memory), the typed size counts up to that. Raises BadInput for
    more than the cards are sold with.
    """
    sold = sum(gpu.marketing_bytes for gpu in gpus)
    gives = sum(gpu.memory_bytes for gpu in gpus)
    if not gpus or budget <= gives:
        return budget
    names = " and ".join(dict.fromkeys(gpu.name for gpu in gpus))
    if budget > sold:
        raise BadInput(
            f"a budget of {format_bytes(budget)} is more than {names} has: programs get "
            f"{format_bytes(gives)}",
            "leave --budget out to plan for all of it, or --gpu to plan for other memory",
        )
    return min(budget, most_typed(gpus))


def most_typed(gpus: Sequence[Hardware]) -> int:
    """The most bytes of a budget that count beside these GPUs."""
    soft = any(gpu.memory_estimated or gpu.unified for gpu in gpus)
    return sum(gpu.marketing_bytes if soft else gpu.memory_bytes for gpu in gpus)


def check_counted_once(budget: int, ram: int | None, gpus: Sequence[Hardware]) -> None:
    """Raise BadInput for host memory beside GPUs whose memory it is, where both together are more
    than there is."""
    shared = [gpu for gpu in gpus if gpu.unified]
    if ram is None or not shared:
        return
    there_is = sum(gpu.marketing_bytes for gpu in gpus)
    if budget + ram > there_is:
        names = " and ".join(dict.fromkeys(gpu.name for gpu in shared))
        raise BadInput(
            f"--ram is a part of the memory of {names}, and beside a budget of "
            f"{format_bytes(budget)} it is counted twice",
            "leave --ram out: the GPU reaches all that programs get",
        )


def gpu_notes(request: Request) -> list[str]:
    """What a reader of a plan should know of its GPU's memory."""
    gpu = request.hardware
    host = request.budget if request.host_only else request.ram
    notes = []
    if request.host_only:
        notes.append("no GPU is named, so all of it runs on the processor: --gpu NAME for a card")
    if host is not None:
        notes.append(f"{format_bytes(host)} of host memory are planned with")
    if gpu is None:
        return notes
    if request.gpus:
        return [*notes, *_several_notes(request)]
    gives = f"{gpu.memory_bytes / GiB:.2f} of its {gpu.marketing_bytes / GiB:.0f} GiB"
    if request.reserve is not None:
        about = " (an estimate on the safe side)" if gpu.memory_estimated else ""
        left = (
            f"; {format_bytes(request.reserve)} of it are left to a desktop: --reserve 0 where "
            "there is none"
        )
        notes.append(f"{gpu.name} gives programs {gives}{about}{left if request.reserve else ''}")
    elif request.budget > gpu.memory_bytes:
        notes.append(f"the budget is more than {gpu.name} has: it gives programs {gives}")
    elif request.budget == gpu.memory_bytes:
        notes.append(f"the budget ends where {gpu.name} does: it gives programs {gives}")
    if gpu.usual:
        notes.append(gpu.note)
    if gpu.unified:
        notes.append(f"{gpu.name} shares its memory with the system, which needs some of it")
    return notes


def _several_notes(request: Request) -> list[str]:
    """The same of several GPUs."""
    names = dict.fromkeys(gpu.name for gpu in request.gpus)
    each = {gpu.name: gpu for gpu in request.gpus}
    notes = [
        f"{name} gives programs {each[name].memory_bytes / GiB:.2f} of its "
        f"{each[name].marketing_bytes / GiB:.0f} GiB"
        + " (an estimate on the safe side)"
        * each[name].memory_estimated
        for name in names
    ]
    notes += [each[name].note for name in names if each[name].usual]
    if request.budget > sum(gpu.memory_bytes for gpu in request.gpus):
        notes.append("the budget is more than these GPUs have together")
    if request.reserve:
        notes.append(f"{format_bytes(request.reserve)} of them are left to desktops: --reserve")
    return notes
