"""Which configurations are measured on a pretrained model, and in which order.

Not a product of all axes, but of those that interact: bits of keys and values x what shares a
scale x smoothing x rotation, whole; then windows, protected layers, prefill chunks and weight
bits, each on the formats that stand for a method. Ordered so that what is done when time is up
is balanced: first the formats that stand for methods, then the rest in turn by kind.
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from ...planner.formats.configuration import Configuration

PAIRS = ((4, 4), (2, 2), (4, 2), (8, 4), (16, 4), (4, 16), (16, 2), (2, 16), (8, 8), (2, 4),
         (8, 2), (4, 8), (2, 8))  # fmt: skip
"""K and V bits, dealt in this order."""
MARKS = (
    "k8v8", "k4v4", "k4v4{g}", "k4v4+smooth", "k4v4+rot", "k4v4{g}+smooth+rot", "k4v4-kc",
    "k4v4-kc+res128", "k4v2{g}", "k4v2-kc", "k4v2-kc+res128", "k2v2-kc", "k2v2-kc+res128",
    "k2v2{g}+smooth+rot", "k2v4-kc", "k16v2{g}", "k16v4", "k8v4", "k8v2{g}", "k4v16", "k8v8-pt",
    "k4v4-pt", "k4v4-pb128", "k4v2{g}+smooth+rot",
)  # fmt: skip
"""One format for each method: what tasks are scored on. {g}: the smallest group."""
CHUNKS = (256, 1024)
CHUNKED = ("k16v16", "k8v8", "k4v4", "k4v4{g}", "k4v4+smooth", "k4v4+rot", "k4v4-kc", "k4v4-pb128",
           "k4v4-pt", "k4v2-kc", "k2v2-kc", "k2v2-kc+res128")  # fmt: skip
WEIGHED = ("k16v16", "k8v8", "k8v4", "k4v4", "k4v4{g}", "k4v4+smooth", "k4v4-kc", "k16v4",
           "k4v2-kc", "k2v2-kc+res128")  # fmt: skip
SMALL = 32
"""The smallest group of channels."""


def marks(weights: int = 16) -> list[Configuration]:
    return [_parse(weights, text) for text in MARKS]


def divergence_design(head: int, layers: int, outliers: Sequence[int] = ()) -> list[Configuration]:
    """Configurations for a model with heads of `head` channels; `outliers` are layers to protect
    first, the worst first, where it is known which."""
    groups = [f"-g{g}" for g in (128, 64) if g < head]
    kinds = [
        [_parse(16, text) for text in MARKS],
        list(_per_token(["", f"-g{SMALL}"])),
        list(_per_channel()),
        list(_windows()),
        list(_protected(layers, outliers)),
        [_parse(16, f"{text}+pc{size}") for text in CHUNKED for size in CHUNKS],
        [_parse(bits, text) for text in WEIGHED for bits in (4, 8)],
        list(_tiles()),
        list(_per_token(groups)),
    ]
    chosen = dict.fromkeys([Configuration(), *kinds[0]])
    for turn in zip_longest(*kinds[1:]):
        chosen.update(dict.fromkeys(config for config in turn if config is not None))
    return list(chosen)


def _per_token(groups: Sequence[str]) -> Iterator[Configuration]:
    for k, v in PAIRS:
        for turn in ("", "+smooth", "+rot", "+smooth+rot"):
            if k < 16 or "smooth" not in turn:
                for group in groups:
                    yield _parse(16, f"k{k}v{v}{group}{turn}")


def _per_channel() -> Iterator[Configuration]:
    for k, v in PAIRS:
        if k < 16:
            yield _parse(16, f"k{k}v{v}-kc")
    for text in ("k4v4-kc128", "k2v2-kc128", "k4v2-kc128", "k2v4-kc128"):
        yield _parse(16, text)
    for text in ("k4v2-kc{g}", "k2v2-kc{g}", "k2v4-kc{g}", "k4v4-kc{g}", "k8v2-kc{g}"):
        yield _parse(16, text)


def _windows() -> Iterator[Configuration]:
    for text in ("k4v4", "k4v2", "k2v4", "k2v2", "k8v2"):
        yield _parse(16, f"{text}-kc+res128")
    for text in ("k4v4{g}", "k4v2{g}", "k2v2{g}", "k16v2{g}", "k2v2{g}+smooth+rot",
                 "k4v2{g}+smooth+rot", "k4v4{g}+smooth+rot", "k4v4+smooth",
                 "k4v4+rot"):  # fmt: skip
        yield _parse(16, f"{text}+res128")
    for text in ("k2v2-kc+res64", "k2v2-kc+res256", "k2v2-kc{g}+res128", "k2v2-kc+res128+sink4",
                 "k4v2-kc+res128+sink4", "k4v4{g}+sink4", "k4v4+smooth+sink4",
                 "k2v2{g}+smooth+rot+sink4"):  # fmt: skip
        yield _parse(16, text)


def _protected(layers: int, outliers: Sequence[int]) -> Iterator[Configuration]:
    last = layers - 1
    sets = [(0,), (0, last), (0, 1, last - 1, last)]
    sets += [tuple(sorted(outliers[:n])) for n in (1, 2, 4) if len(outliers) >= n]
    for chosen in dict.fromkeys(sets):
        listed = ",".join(map(str, sorted(set(chosen))))
        for text in ("k4v4", "k4v4{g}", "k4v4+rot", "k2v2-kc", "k4v2-kc"):
            yield _parse(16, f"{text}+protect{{{listed}}}:k8v8")
        yield _parse(16, f"k4v4+protect{{{listed}}}:k16v16")


def _tiles() -> Iterator[Configuration]:
    for text in ("k4v4-pb128", "k2v2-pb128", "k8v8-pb128", "k4v2-pb128", "k16v4-pb128",
                 "k4v16-pb128", "k16v2-pb128", "k4v4-pb128{g}", "k4v4-pb128+smooth",
                 "k4v4-pb128+rot", "k2v2-pb128{g}+smooth+rot", "k8v8-pt", "k4v4-pt", "k16v4-pt",
                 "k4v16-pt", "k8v16-pt", "k16v8-pt", "k4v4-pt+rot", "k4v4-pt+smooth",
                 "k4v4-pt+smooth+rot"):  # fmt: skip
        yield _parse(16, text)


def _parse(weights: int, text: str) -> Configuration:
    head, dash, tail = text.replace("{g}", f"-g{SMALL}").partition("+")
    return Configuration.parse(f"w{weights}a16-{head}{dash}{tail}")
