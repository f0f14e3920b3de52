"""Which GPU a name means: what people type, and what nvidia-smi, torch, ROCm and macOS print.

    4090    rtx4090    A100 40GB    M3 Max 64GB    NVIDIA A100-SXM4-40GB    Tesla T4

A GPU that is not in profiles/hardware/gpus.json has no rates here and therefore no latency: an
unknown name is an error that names its neighbours, never a guess. A name that means two cards, of
other memory or another form, is asked back with its choices.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ..errors import BadInput
from .gpus import Hardware, gpu_called, named_gpus

_VENDOR_WORDS = ("nvidia", "geforce", "amd", "instinct", "radeon", "intel", "apple", "tesla", "oam")
_SERIES_WORDS = ("rtx", "rx")  # "4090" alone is what people type
_NO_WORDS = ("gpu", "graphics")
_WORD = re.compile(r"[a-z0-9]+")
_SIZE = re.compile(r"(?<![a-z0-9])(\d+)\s*(?:gib|gb|g)(?![a-z0-9])")
_BARE = re.compile(r"(.*[a-z]|.*[a-z0-9][\s-]+)(\d{1,3})")
_SEVERAL = re.compile(
    r"(\d{1,2})\s*[x×*]\s*(\S.*)|(.+\d(?:gb?)?|.+\s)[x×*]\s*(\d{1,2})", re.IGNORECASE
)
_HINT = "`kvpareto profiles list` names the known GPUs; without --gpu the plan has no seconds"
_SHOWN = 8


def find_gpu(name: str, memory: int | None = None) -> Hardware:
    """The GPU that `name` means.

    An exact name or alias wins (vendor words, spaces, dashes and case do not count); else the one
    GPU whose name has all the words given. `memory`, the bytes that a driver reports, tells sizes
    of one name apart; without it the usual size is meant, where the profile says which that is.
    Raises BadInput, naming what is near, if there is no such GPU or if there are several, and for
    several GPUs at once (`2xH100`).
    """
    exact = gpu_called(name)
    if exact is not None:  # as the program itself names it: no word is looked at
        return exact
    name = _one(name)
    gpus = _of_memory(candidates(name), memory)
    if len(gpus) == 1:
        return gpus[0]
    if memory is None and gpus == _names().get(_key(_split(name))):
        for gpu in gpus:
            if gpu.usual:
                return gpu
    if gpus:
        raise BadInput(
            f"more than one GPU is called {name!r}: {_some([g.name for g in gpus])}",
            "say which one: " + _some([f"--gpu {gpu_argument(g)!r}" for g in gpus]),
        )
    from difflib import get_close_matches  # only on the way to an error

    names = _names()
    near = [
        g.name
        for k in get_close_matches(_key(_split(name)), names, n=8, cutoff=0.6)
        for g in names[k]
    ]
    close = f"; near: {_some(list(dict.fromkeys(near)), 5)}" if near else ""
    raise BadInput(f"unknown GPU: {name!r}{close}", _HINT)


def candidates(name: str) -> tuple[Hardware, ...]:
    """The GPUs that `name` may mean: none, one, or several that differ in memory or form."""
    exact = _names().get(_key(_split(name)))
    if exact:
        return exact
    words = _words(name)
    if all(len(word) == 1 for word in words):  # a count, or nothing
        return ()
    held = tuple(gpu for gpu, names in named_gpus() if any(words <= _words(n) for n in names))
    return held or _of_size(name) or _of_bare_size(name)


def _of_size(name: str) -> tuple[Hardware, ...]:
    """The GPUs that `name` means with its size left out, if that is their size: `L4 24GB`."""
    sizes = _SIZE.findall(name.lower())
    without = _SIZE.sub(" ", name.lower())
    if len(sizes) != 1 or not _words(without):
        return ()
    size = int(sizes[0])
    return tuple(gpu for gpu in candidates(without) if round(gpu.marketing_bytes / 2**30) == size)


def _of_bare_size(name: str) -> tuple[Hardware, ...]:
    """The GPUs that `name` means where its last number is their size: `M3 Max 64`, `3060 12`."""
    match = _BARE.fullmatch(name.strip().lower())
    return candidates(f"{match[1]} {match[2]}gb") if match else ()


def gpu_argument(gpu: Hardware) -> str:
    """The GPU's name as short as it can be typed."""
    words = [word for word in gpu.name.split() if word.lower() not in _VENDOR_WORDS]
    return " ".join(words)


def _one(name: str) -> str:
    """`name`, or the name in `1xH100`. Raises BadInput for more of them."""
    match = _SEVERAL.fullmatch(name.strip())
    if match is None:
        return name
    count, one = match[1] or match[4], match[2] or match[3]
    if int(count) == 1:
        return one
    raise BadInput(
        f"{name.strip()!r} is several GPUs, and a plan is for one",
        f"--gpu {one.strip()!r} plans for one of them",
    )


def _of_memory(gpus: Sequence[Hardware], memory: int | None) -> tuple[Hardware, ...]:
    """Those of `gpus` whose size a driver could report as `memory` bytes."""
    if memory is None or len(gpus) < 2:
        return tuple(gpus)
    fitting = [gpu for gpu in gpus if 0.85 < memory / gpu.marketing_bytes < 1.05]
    return tuple(fitting or gpus)


@lru_cache(maxsize=1)
def _names() -> dict[str, tuple[Hardware, ...]]:
    """The GPUs by each normalised name and alias."""
    names: dict[str, tuple[Hardware, ...]] = {}
    for gpu, aliases in named_gpus():
        for alias in aliases:
            words = _split(alias)
            for key in {_key(words), _key(words, _VENDOR_WORDS + _SERIES_WORDS)}:
                known = names.get(key, ())
                names[key] = known if gpu in known else (*known, gpu)
    return names


def _split(name: str) -> list[str]:
    """The words of a name; `64 GB`, `64GiB` and `64g` are one word."""
    words = _WORD.findall(_SIZE.sub(r" \1gb ", name.lower()))
    return ["laptop" if w == "mobile" else w for w in words if w not in _NO_WORDS]


def _words(name: str) -> frozenset[str]:
    return frozenset(w for w in _split(name) if w not in _VENDOR_WORDS)


def _key(words: Iterable[str], dropped: Sequence[str] = _VENDOR_WORDS) -> str:
    key = "".join(word for word in words if word not in dropped)
    for vendor in _VENDOR_WORDS:  # "nvidiah200", written in one
        key = key.removeprefix(vendor)
    return key


def _some(names: Iterable[str], limit: int = _SHOWN) -> str:
    listed = list(names)
    return ", ".join(listed[:limit]) + (", …" if len(listed) > limit else "")
