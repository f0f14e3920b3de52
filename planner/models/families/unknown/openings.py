"""What the unread keys of a config leave open: loops, streams, states, an indexer.

readings.py builds a model's two ends from it.
"""

from collections.abc import Sequence
from math import ceil

from ....light_dataclass import dataclass
from ...spec import Indexer, RecurrentState
from .ranges import Sizes
from .unread import Meaning, Unread

MIXED = frozenset({Meaning.PATTERN, Meaning.BLOCKS, Meaning.STATE})

# What a recurrent layer keeps where the file does not say: an inner width of twice the hidden size
# (Mamba's expansion) and 128 numbers a channel (Mamba-2's, and a head of linear attention).
_EXPANSION, _STATE, _KERNEL, _GROUPS = 2, 128, 4, 8


@dataclass(frozen=True)
class Openings:
    """What the keys nobody read leave open.

    `loops`: how often layers may be run; `further`: layers that predict further tokens; `streams`:
    residual streams; `state`: what a recurrent layer may keep; `recurrent`: which layers a list of
    the file calls so.
    """

    meanings: frozenset[Meaning]
    loops: int = 1
    further: int = 0
    streams: int = 1
    indexer: Indexer | None = None
    state: RecurrentState | None = None
    window: int | None = None
    recurrent: tuple[bool, ...] = ()

    def __contains__(self, meaning: Meaning) -> bool:
        return meaning in self.meanings

    @property
    def mixed(self) -> bool:
        """Whether some layers may have no attention."""
        return bool(self.meanings & MIXED)


def openings(keys: Sequence[Unread], sizes: Sizes) -> Openings:
    """What unread keys open."""
    of: dict[Meaning, list[Unread]] = {}
    for unread in keys:
        of.setdefault(unread.meaning, []).append(unread)
    windows = [
        x
        for unread in of.get(Meaning.WINDOW, ())
        if not any(word in unread.key for word in ("pattern", "layer", "every"))
        for x in whole(unread.value)
    ]
    mixed = bool(MIXED & of.keys())
    return Openings(
        frozenset(of),
        loops=max((x for u in of.get(Meaning.LOOP, ()) for x in whole(u.value)), default=1),
        further=max((x for u in of.get(Meaning.MTP, ()) for x in whole(u.value)), default=1)
        if Meaning.MTP in of
        else 0,
        streams=max((x for u in of.get(Meaning.STREAMS, ()) for x in whole(u.value)), default=1),
        indexer=_indexer(of.get(Meaning.INDEXER, ())),
        state=_state(of.get(Meaning.STATE, ()), sizes) if mixed else None,
        window=min([x for x in (sizes.window, *windows) if x], default=None),
        recurrent=_recurrent_layers([u for m in MIXED for u in of.get(m, ())], sizes.layers),
    )


def _recurrent_layers(keys: Sequence[Unread], layers: int) -> tuple[bool, ...]:
    """Which layers a list of kinds, repeated as often as it takes, calls recurrent."""
    words = "linear recurrent mamba conv ssm lru delta rwkv lightning".split()  # noqa: SIM905
    for unread in keys:
        kinds = unread.value
        if isinstance(kinds, list) and kinds and all(isinstance(kind, str) for kind in kinds):
            named = [any(word in kind.lower() for word in words) for kind in kinds]
            return tuple(named[i % len(named)] for i in range(layers))
    return ()


def whole(value: object) -> list[int]:
    """The whole numbers in a value, true counting as none."""
    if isinstance(value, bool):
        return []
    if isinstance(value, (int, float)):
        return [int(value)] if 0 < value < 2**27 else []
    if isinstance(value, dict):
        return [x for inner in value.values() for x in whole(inner)]
    return [x for inner in value for x in whole(inner)] if isinstance(value, list) else []


def _named(keys: Sequence[Unread], *words: str) -> list[int]:
    """Numbers of the keys, nested ones too, with one of the words in their names."""
    numbers: list[int] = []
    for unread in keys:
        pairs = (
            unread.value.items() if isinstance(unread.value, dict) else [(unread.key, unread.value)]
        )
        for key, value in pairs:
            if any(word in str(key).lower() for word in words):
                numbers += whole(value)
    return numbers


def _indexer(keys: Sequence[Unread]) -> Indexer | None:
    if not keys:
        return None
    heads = max(_named(keys, "heads"), default=64)
    return Indexer(
        heads, max(_named(keys, "dim"), default=128), max(_named(keys, "topk"), default=2048)
    )


def _state(keys: Sequence[Unread], s: Sizes) -> RecurrentState:
    """The largest state that the file's numbers make, or that is usual where it gives none."""
    heads = max([s.heads, *_named(keys, "heads")])
    dims = _named(keys, "dim", "state", "d_head", "head_size")
    dim = max([s.head_dim, _STATE, *dims])
    expand = max([_EXPANSION, *_named(keys, "expand")])
    inner = max([expand * s.hidden, heads * dim, *_named(keys, "width", "inner", "ssm", "lru")])
    kernel = max([_KERNEL, *_named(keys, "conv", "kernel")])
    kernel = kernel if kernel <= 64 else _KERNEL
    groups = max([_GROUPS, *_named(keys, "group")])
    return RecurrentState(
        kind="unknown",
        state=inner * dim,
        conv=kernel * (3 * inner + 2 * groups * dim),
        heads=heads,
        key_dim=dim,
        value_dim=ceil(inner / heads),
        width=2 * inner,
        state_dtype="float32",
    )
