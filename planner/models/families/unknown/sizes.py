"""The sizes of a decoder of an unknown family, by the field's usual names, as ranges.

Every spelling that many families share is understood; what a file leaves open (KV heads, where
the experts sit, whether an FFN is gated) becomes a range and not a default.
"""

from collections.abc import Collection, Sequence
from math import ceil
from typing import Any

from ....errors import BadConfig
from ...config_fields import MAX_LAYERS, Fields
from ...read_keys import ReadKeys
from ..blocks.ffn import activation
from ..decoder import LEGACY_LAYER_TYPES, max_context
from .ranges import Experts, Latent, Range, Sizes, exactly
from .size_names import (
    EXPERT_WIDTHS,
    EXPERTS,
    FIRST_DENSE,
    GATED,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    MORE_WIDTHS,
    SHARED,
    SHARED_WIDTHS,
    SWITCHES,
    TOP_K,
    VOCAB,
    WIDTHS,
    WINDOWS,
)


def read_sizes(f: Fields) -> Sizes:
    """Read the section of an unknown decoder. Raises BadConfig where it lacks a basic size."""
    hidden, layers = _need(f, HIDDEN), _need(f, LAYERS, MAX_LAYERS)
    heads, widths = _need(f, HEADS), _widths(f)
    vocab = _need(f, VOCAB)
    latent = _latent(f)
    acts = activation(f)
    named = f.has("hidden_act") or f.has("hidden_activation")
    experts = _experts(f, layers, widths[0])
    dense_layers = experts is not None and experts.sparse.high < layers
    tied = f.flag("tie_word_embeddings") if f.has("tie_word_embeddings") else None
    rotary = any(
        value not in (None, False)
        for key, value in f.raw.items()
        if any(word in key for word in ("rope", "rotary", "alibi"))
    )
    longest = max_context(f)
    return Sizes(
        hidden=hidden,
        layers=layers,
        vocab=vocab,
        heads=heads,
        kv_heads=_kv_heads(f, heads),
        head_dim=max(1, hidden // heads, *_given(f, HEAD_DIM))
        if latent
        else _head_dim(f, hidden, heads),
        latent=latent,
        width=Range(min(widths), widths[0], sum(widths)),
        matrices=6 if acts in GATED and named else 3,
        activation=acts,
        experts=experts,
        beside=experts is not None and not dense_layers and _other_width(f, experts),
        tied=tied,
        positions=0 if rotary else longest or 0,
        window=_window(f),
        kinds=_kinds(f, layers),
        max_context=longest,
    )


def _given(f: Fields, names: Sequence[str], high: int = 2**27) -> list[int]:
    """Every value, once, that the file gives under any of the names; zero and negative are off."""
    values: list[int] = []
    for name in names:
        for value in _numbers(f, name, high):
            if value not in values:
                values.append(value)
    return values


def _numbers(f: Fields, name: str, high: int) -> list[int]:
    """A number, or each of a list of numbers."""
    if not f.has(name) or isinstance(f.raw.get(name), bool):
        return []
    given = f.raw.get(name)
    if isinstance(given, list):
        return [x for x in f.counts(name, low=0, high=high) or () if x > 0]
    value = f.count(name, low=-(2**31), high=high)
    return [value] if value > 0 else []


def _need(f: Fields, names: Sequence[str], high: int = 2**27) -> int:
    values = _given(f, names, high)
    if len(values) == 1:
        return values[0]
    if values:
        given = " and ".join(name for name in names if f.has(name))
        raise not_known(f, f"{given} disagree, and which of them counts is not known")
    for name in names:
        if f.has(name):
            raise f.wrong(name, f.raw.get(name), "a number above 0")
    raise not_known(
        f, f"its config has no {f.path}{names[0]}, so it cannot be read as a Llama either"
    )


def not_known(f: Fields, why: str) -> BadConfig:
    """The refusal of a type this version does not know: what is missing is ours, not the file's."""
    return BadConfig(
        f"model_type {f.kind!r} is not known, and {why}",
        "`kvpareto profiles list` names the bundled models, docs/models.md the families",
    )


def _widths(f: Fields) -> list[int]:
    widths = _given(f, WIDTHS)
    widths += [x for x in _given(f, MORE_WIDTHS) if x not in widths]
    widths = widths or _given(f, EXPERT_WIDTHS)[:1]
    if not widths:
        raise not_known(
            f, f"its config has no {f.path}{WIDTHS[0]}, so it cannot be read as a Llama either"
        )
    return widths


def _kv_heads(f: Fields, heads: int) -> Range:
    counts = _given(f, KV_HEADS)
    one = any(f.raw.get(name) is True for name in ("multi_query", "multi_query_attention"))
    if not counts:
        return Range(1, 1 if one else heads, heads)
    return Range(1 if one else min(counts), 1 if one else counts[0], max(counts))


def _head_dim(f: Fields, hidden: int, heads: int) -> int:
    dims = _given(f, HEAD_DIM)
    if len(dims) > 1:
        given = " and ".join(name for name in HEAD_DIM if f.has(name))
        raise not_known(f, f"{given} disagree")
    if not dims and hidden % heads:
        raise not_known(
            f, f"its {heads} heads do not divide {hidden} channels, and no head_dim is given"
        )
    if not dims:
        f.note(f"head_dim is not in the config: taken as {hidden} / {heads} = {hidden // heads}")
    return dims[0] if dims else hidden // heads


def _latent(f: Fields) -> Latent | None:
    if not f.has("kv_lora_rank"):
        return None
    names = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    missing = [name for name in names if not f.has(name)]
    if missing:
        raise not_known(f, f"its kv_lora_rank has no {missing[0]} beside it")
    rank, value = f.count("kv_lora_rank"), f.count("v_head_dim")
    nope, rope = f.count("qk_nope_head_dim", low=0), f.count("qk_rope_head_dim", low=0)
    if not nope + rope:
        raise not_known(f, "its latent attention has queries of no channels")
    f.optional_count("qk_head_dim", low=0)  # the sum of the two
    return Latent(f.optional_count("q_lora_rank", low=0) or None, rank, nope, rope, value)


def _experts(f: Fields, layers: int, dense: int) -> Experts | None:
    for name in EXPERTS:
        if isinstance(given := _peek(f, name), int) and given < 0:  # a placeholder, of which only
            raise f.wrong(name, given, "a number of experts, or 0")  # the code knows the meaning
    counts = max((_per_kind(f, name, layers) for name in EXPERTS), key=sum)
    first = max(_given(f, FIRST_DENSE), default=0)
    if sum(counts) < 2 or any(_peek(f, name) is False for name in SWITCHES):
        return None
    widths = max((_per_kind(f, name, layers) for name in EXPERT_WIDTHS), key=sum) or [dense]
    if len(counts) == len(widths):  # kinds of experts with widths of their own
        count = sum(counts)
        width = ceil(sum(c * w for c, w in zip(counts, widths, strict=True)) / count)
    else:
        count, width = sum(counts), sum(widths)
    chosen = min(count, max(_given(f, TOP_K), default=8))
    return Experts(count, width, chosen, _shared(f, width), _sparse(f, layers, first))


def _per_kind(f: Fields, name: str, layers: int) -> list[int]:
    """A number for each kind of expert; one number where every layer has the same."""
    values, differs = _numbers(f, name, 2**27), False
    if len(values) == layers > 1:
        values = list(dict.fromkeys(values))
        differs = len(values) > 1
    if differs or len(values) > 4:
        raise not_known(f, f"{f.path}{name} differs from layer to layer")
    return values


def _shared(f: Fields, width: int) -> Range:
    numbers, widths = _given(f, SHARED), _given(f, SHARED_WIDTHS)
    if not numbers and not widths:  # some families have one and do not say so (Hunyuan)
        stated = any(f.has(name) for name in (*SHARED, *SHARED_WIDTHS))
        return Range(0, 0, 0 if stated else width)
    count = max(numbers, default=1)
    readings = [count * width] if numbers else []
    readings = [*widths, *(count * w for w in widths), *readings]
    return Range(min(readings), readings[0], max(readings))


def _sparse(f: Fields, layers: int, first: int) -> Range:
    """How many layers have experts, where the `first` ones have none."""
    listed = _per_layer(f, "mlp_layer_types", layers)
    if listed:
        return exactly(sum(kind not in ("dense", "mlp") for kind in listed))
    every = _per_layer(f, "moe_layer_freq", layers)
    if every:
        return exactly(sum(x not in (0, False, None) for x in every))
    stated = any(f.has(name) for name in FIRST_DENSE)
    if stated and f.raw.get("moe_layer_freq") in (None, 1):
        return exactly(max(0, layers - first))
    if f.has("decoder_sparse_step"):
        step, only = f.count("decoder_sparse_step"), f.counts("mlp_only_layers") or ()
        least = max(0, layers // step - len(only))
        return Range(least, least, layers // step)
    return Range(1, layers, layers)


def _other_width(f: Fields, experts: Experts) -> bool:
    return any(width != experts.width for width in _given(f, (*WIDTHS, *MORE_WIDTHS)))


def _window(f: Fields) -> int | None:
    """The narrowest window that the file names and does not switch off."""
    windows = _given(f, (*WINDOWS, "attention_chunk_size"), 2**31)
    if not windows and _peek(f, "use_sliding_window") is True:
        return None  # unread: nothing says how wide the windows are
    off = f.raw.get("use_sliding_window") is False
    f.raw.get("max_window_layers")  # read: without a window it says nothing
    return None if off else min(windows, default=None)


def _kinds(f: Fields, layers: int) -> Sequence[str] | None:
    known = {"full_attention", "sliding_attention", "chunked_attention", "attention"}
    given = _per_layer(f, "layer_types", layers, known)
    return [LEGACY_LAYER_TYPES.get(kind, kind) for kind in given] or None


def _peek(f: Fields, name: str) -> Any:
    """A value that does not count as read."""
    return f.raw.peek(name) if isinstance(f.raw, ReadKeys) else f.raw.get(name)


def _per_layer(
    f: Fields, name: str, layers: int, known: Collection[object] | None = None
) -> Sequence[Any]:
    """A list with one entry for each layer, each `known`; empty, and not read, where it is none."""
    given = _peek(f, name)
    if not isinstance(given, list) or len(given) != layers:
        return ()
    if not all(isinstance(x, (str, int)) and (known is None or x in known) for x in given):
        return ()
    f.raw.get(name)
    return given
