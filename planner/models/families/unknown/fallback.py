"""A model type that no family reads: read as a similar type, or by its fields, within bounds.

A sister family is tried first; it counts if it reads every key that can carry size. A config that
nests a text model is read by that. Anything else is read by the field's usual names (sizes.py).
Then the keys that nobody read are judged (unread.py): what they may mean opens the bounds to hold
every reading (readings.py), and a key that no bounds can be put on is named and the file refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ....errors import BadConfig
from ...config_fields import Fields
from ...read_keys import ReadKeys
from ...spec import Bounds, Part, Reading, Role, TensorGroup
from ...tensor_list import Tensors
from .. import reader_of
from ..config_defaults import fields_of
from ..decoder import Decoder, text_decoder
from ..registry import style_of
from .openings import Openings, openings, whole
from .ranges import Sizes
from .readings import HIGH, LOW, READ, Build
from .similar_types import similar_types
from .size_names import EXPERTS
from .sizes import not_known, read_sizes
from .tower_sizes import LARGEST_TOWER, largest_towers
from .unread import UNBOUNDED, Meaning, Unread, judge, new_keys, without_said

# Where configs of several towers keep their text model (Qwen-Omni; InternVL's own; DeepSeek-VL).
TEXT_SECTIONS = (
    ("text_config",),
    ("thinker_config", "text_config"),
    ("llm_config",),
    ("language_config",),
    ("language_model_config",),
    ("lm_config",),
    ("text_model_config",),
    ("decoder_config",),
)
_SEVERAL = ("unified", "vl", "vision", "omni", "audio", "conditionalgeneration", "imagetexttotext")


def read(f: Fields, t: Tensors) -> Decoder:
    """Read a config of an unknown model type. Raises BadConfig where it resembles nothing known,
    or where a key that nobody read may mean anything."""
    decoder = _as_similar_type(f, t)
    if decoder is not None:
        return decoder
    for path in TEXT_SECTIONS:
        nested: Any = f.raw
        for name in path:
            nested = nested.get(name) if isinstance(nested, Mapping) else None
        if isinstance(nested, dict):
            return _nested(f, nested, ".".join(path), t)
    return _by_fields(f, t, ())


def _as_similar_type(f: Fields, t: Tensors) -> Decoder | None:
    """The reading of a family of nearly the same name, if it leaves no size unread."""
    for name in similar_types(f.kind, f.raw):
        reader = reader_of(name)
        raw, tensors, notes = ReadKeys(f.raw), Tensors(), list[str]()
        if reader is None:
            continue
        try:
            decoder = reader(fields_of(raw, name, path=f.path, notes=notes), tensors)
        except BadConfig:
            continue
        unread = judge(raw.unread())
        if any("is not in the config" in note for note in notes) or any(
            key.meaning is not Meaning.TOWER for key in unread
        ):
            continue
        if isinstance(f.raw, ReadKeys):
            f.raw.read |= raw.read
        t.include(tensors)
        f.notes += [note for note in notes if note not in f.notes]
        f.note(f"model_type {f.kind!r} is not known: read as {name}, which reads all its sizes")
        towers = bool(unread) or _several_towers(f, t)
        if towers:
            f.note(f"towers of {f.kind} that are not in its config, or not known, are not planned")
        because = f"{f.kind} is not known: norms, biases and tied embeddings are assumed {name}'s"
        return _opened(decoder, t, f, because, towers)
    return None


def _several_towers(f: Fields, t: Tensors) -> bool:
    """Whether the names speak of towers, and none was described."""
    if any(group.part is not Part.TEXT for group in t.groups()):
        return False
    named = f.raw.get("architectures")
    names = [f.kind, *(named if isinstance(named, list) else ())]
    return any(word in str(name).lower() for name in names for word in _SEVERAL)


def _opened(decoder: Decoder, t: Tensors, f: Fields, because: str, towers: bool) -> Decoder:
    """A sister's reading, open for norms, biases, tied embeddings and towers."""
    groups = t.groups()
    tied = f.has("tie_word_embeddings")
    small = (Role.NORM, Role.BIAS) if tied else (Role.NORM, Role.BIAS, Role.LM_HEAD)
    least = tuple(group for group in groups if group.role not in small)
    width = max(
        (g.shape[0] for g in groups if g.part is Part.TEXT and len(g.shape) == 2), default=0
    )
    more = len(decoder.layers) * 16 * decoder.hidden + 2 * min(width, 32 * decoder.hidden)
    more += decoder.vocab * decoder.hidden if decoder.tied_embeddings else 0
    most = [*groups, TensorGroup("slack", (more,), 1, Role.OTHER)]
    if towers:
        most.append(TensorGroup("towers", (LARGEST_TOWER,), 1, Role.OTHER, Part.VISION))
    readings = Reading(decoder.layers, least), Reading(decoder.layers, tuple(most))
    return replace(decoder, readings=readings, bounds=(_bounds(t, readings, because),))


def _nested(f: Fields, nested: dict[str, Any], path: str, t: Tensors) -> Decoder:
    """A text model under a name of its own, known or not, beside towers that are not planned."""
    kind = nested.get("model_type")
    kind = kind[:100] if isinstance(kind, str) else ""
    inner = fields_of(nested, kind or f.kind, path=f"{path}.", notes=f.notes)
    style = style_of(kind)
    f.note(
        f"model_type {f.kind!r} is not known: its text model is planned, its other towers are not"
    )
    outer_tie = f.flag("tie_word_embeddings") if f.has("tie_word_embeddings") else None
    others = _others(f)
    if style is not None:
        decoder = text_decoder(inner, t, style)
        left: tuple[Unread, ...] = ()
        if isinstance(nested, ReadKeys):
            left = (*new_keys(nested, inner.path), *without_said(others, nested))
        if all(key.meaning is Meaning.TOWER for key in left):
            groups = t.groups()
            most, why = largest_towers(f.kind, f.raw, decoder.hidden)
            tower = TensorGroup("towers", (most,), 1, Role.OTHER, Part.VISION)
            readings = [Reading(decoder.layers, (*groups, tower))]
            if outer_tie and not decoder.tied_embeddings:
                tied = tuple(group for group in groups if group.role is not Role.LM_HEAD)
                readings.append(Reading(decoder.layers, tied))
            bounds = _bounds(t, readings, f"the other towers of {f.kind} are unknown, and {why}")
            return replace(decoder, readings=tuple(readings), bounds=(bounds,))
        t.clear()
        unread = next(key.name for key in left if key.meaning is not Meaning.TOWER)
        f.note(f"{kind} does not read {unread}: read by the field's usual names")
    by_fields = Fields(nested, kind=kind or f.kind, path=f"{path}.", notes=f.notes)
    try:
        return _by_fields(by_fields, t, others, outer_tie)
    except BadConfig as error:
        if style is None:
            raise
        raise BadConfig(
            f"model_type {f.kind!r} is not known, and {unread} of its config is not understood",
            error.hint,
        ) from error


def _others(f: Fields) -> tuple[Unread, ...]:
    """What stands beside a nested text model and may carry size; towers, if nothing says so.

    A number without a telling name is one of the towers' there.
    """
    raw = f.raw
    unread = judge(raw.unread()) if isinstance(raw, ReadKeys) else ()
    beside = [
        replace(key, meaning=Meaning.TOWER) if key.meaning is Meaning.UNNAMED else key
        for key in unread
        if not key.path
    ]
    return (*beside, Unread(f.path, "towers", True, Meaning.TOWER))


def _by_fields(
    f: Fields, t: Tensors, others: Sequence[Unread], outer_tie: bool | None = None
) -> Decoder:
    """By the names that most families share, with every reading of what is left over.

    `outer_tie`: what the section around this one says of tied embeddings.
    """
    sizes = _sizes(f)
    if outer_tie is not None and outer_tie != sizes.tied:
        sizes = replace(sizes, tied=None)
    left = judge(f.raw.unread(f.path)) if isinstance(f.raw, ReadKeys) else ()
    unexplained = tuple(key for key in (*left, *others) if not _explained(key, sizes, f))
    for key in unexplained:
        placed = key.meaning is Meaning.PLACEMENT and sizes.experts is None
        endless = key.meaning is Meaning.LOOP and not whole(key.value)
        if key.meaning in UNBOUNDED or placed or endless:
            raise not_known(
                f, f"{key.name} may change its size in ways that no bounds can be put on"
            )
    o = openings(unexplained, sizes)
    if Meaning.WINDOW in o and o.window is None:
        key = next(key for key in unexplained if key.meaning is Meaning.WINDOW)
        raise not_known(f, f"{key.name} speaks of a window whose size it does not say")
    f.note(f"model_type {f.kind!r} is not known: read as {_like(sizes)} by its fields")
    layers = Build(sizes, o, READ).decoder(t)
    ends = [Build(sizes, o, LOW), Build(sizes, o, HIGH)]
    if o.window is not None:
        ends.append(Build(sizes, o, HIGH, windowed=True))
    readings = tuple(end.reading() for end in ends)
    names = [key.name for key in unexplained if key.key != "towers"]
    if names:
        f.note(
            f"{', '.join(names[:4])}{' and others' * (len(names) > 4)} may change the size of "
            f"{f.kind}, which is not known: what is shown is one reading; the bounds hold all "
            "readings of its fields, not what its code alone says"
        )
    return Decoder(
        hidden=sizes.hidden,
        vocab=sizes.vocab,
        max_context=sizes.max_context,
        layers=layers,
        tied_embeddings=bool(sizes.tied),
        readings=readings,
        bounds=(_bounds(t, readings, _because(f, sizes, o)),),
    )


def _like(sizes: Sizes) -> str:
    """What the plainest reading resembles."""
    base = "llama" if sizes.latent is None else "llama with latent attention"
    if sizes.experts is None:
        return base
    return f"{base} {'with' if sizes.latent is None else 'and'} experts"


def _sizes(f: Fields) -> Sizes:
    """The file's sizes; what is wrong with them is said of the type, which is not known."""
    try:
        return read_sizes(f)
    except BadConfig as error:
        if error.message.startswith("model_type"):
            raise
        what = error.message.removeprefix("config.json: ")
        raise not_known(f, f"read by the field's usual names {what}") from None


def _explained(key: Unread, sizes: Sizes, f: Fields) -> bool:
    """Whether the sizes that were read already hold all that a key may mean."""
    if key.meaning is Meaning.EXPERTS:  # whether they stand beside a dense FFN and the like
        return isinstance(key.value, bool) and sizes.experts is not None
    if key.meaning is Meaning.PLACEMENT:  # a file that says 0 or 1 expert has none to place
        return sizes.experts is None and any(f.has(name) for name in EXPERTS)
    if key.meaning is Meaning.WINDOW:
        return sizes.kinds is not None or f.raw.get("use_sliding_window") is False
    if key.meaning is Meaning.UNNAMED:
        return "embed" in key.key and key.value == sizes.hidden
    return False


def _because(f: Fields, sizes: Sizes, o: Openings) -> str:
    """What the bounds leave open, in words."""
    open_ = ["biases, norms and tied embeddings are assumed to be Llama's"]
    if o.meanings:
        open_.append(f"it names {', '.join(sorted(o.meanings))} in keys nobody reads")
    if sizes.experts is not None and sizes.experts.sparse.low < sizes.experts.sparse.high:
        open_.append("it does not say which layers have experts")
    if sizes.kv_heads.low < sizes.kv_heads.high:
        open_.append("it does not say its KV heads")
    if sizes.matrices < 6:
        open_.append("its FFN may have a gate or none")
    return f"{f.kind} is unknown: " + "; ".join(open_)


def _bounds(t: Tensors, readings: Sequence[Reading], because: str) -> Bounds:
    counts = [sum(g.parameters for g in r.tensors) for r in (*readings, Reading((), t.groups()))]
    return Bounds("parameters", min(counts), max(counts), because)
