"""Which layers slide: the patterns families use where a config does not list `layer_types`."""

from collections.abc import Callable, Sequence

from ...config_fields import Fields
from ..decoder import layer_types

Kinds = Callable[[Fields, int], Sequence[str]]

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"


def every_nth_full(n: int, other: str = SLIDING, field: str = "sliding_window_pattern") -> Kinds:
    """Every n-th layer attends fully, the others slide; `field` may say another n."""

    def kinds(f: Fields, layers: int) -> Sequence[str]:
        given = layer_types(f, layers)
        if given is not None:
            return given
        step = f.count(field, n)
        return [FULL if (i + 1) % step == 0 else other for i in range(layers)]

    return kinds


def every_nth_slides_not(f: Fields, layers: int) -> Sequence[str]:
    """EXAONE 4: as `every_nth_full(4)`, but all layers are full without a window."""
    if f.optional_count("sliding_window") is None:
        return layer_types(f, layers) or [FULL] * layers
    return every_nth_full(4)(f, layers)


def first_of_four_full(f: Fields, layers: int) -> Sequence[str]:
    """Layers 0, 4, 8, … attend fully."""
    given = layer_types(f, layers)
    return given or [SLIDING if i % 4 else FULL for i in range(layers)]


def all_or_none(f: Fields, layers: int) -> Sequence[str]:
    slides = f.optional_count("sliding_window") is not None
    return layer_types(f, layers) or [SLIDING if slides else FULL] * layers


def qwen_windows(f: Fields, layers: int) -> Sequence[str]:
    """Qwen: the first `max_window_layers` layers attend FULLY, those after them slide."""
    given = layer_types(f, layers)
    if given is not None:
        return given
    slides = f.flag("use_sliding_window") and f.optional_count("sliding_window") is not None
    full = f.count("max_window_layers", layers, low=0) if slides else layers
    return [FULL if i < full else SLIDING for i in range(layers)]


def after_first(f: Fields, layers: int) -> Sequence[str]:
    """dots.llm1: as Qwen's, with no switch of its own."""
    given = layer_types(f, layers)
    if given is not None:
        return given
    slides = f.optional_count("sliding_window") is not None
    full = f.count("max_window_layers", layers, low=0) if slides else layers
    return [FULL if i < full else SLIDING for i in range(layers)]


def qwen_moe_windows(f: Fields, layers: int) -> Sequence[str]:
    """Qwen3-MoE: every layer slides if any does."""
    slides = f.flag("use_sliding_window") and f.optional_count("sliding_window") is not None
    return layer_types(f, layers) or [SLIDING if slides else FULL] * layers


def qwen2_moe_windows(f: Fields, layers: int) -> Sequence[str]:
    """Qwen2-MoE: among the first `max_window_layers`, every other layer slides."""
    given = layer_types(f, layers)
    if given is not None:
        return given
    sliding = f.count("max_window_layers", layers, low=0) if f.flag("use_sliding_window") else 0
    return [SLIDING if i % 2 == 0 and i < sliding else FULL for i in range(layers)]


def smollm_windows(f: Fields, layers: int) -> Sequence[str]:
    """SmolLM3: layers without RoPE slide, where sliding is on."""
    given = layer_types(f, layers)
    if given is not None:
        return given
    if not f.flag("use_sliding_window") or f.optional_count("sliding_window") is None:
        return [FULL] * layers
    rope = f.counts("no_rope_layers", layers)
    if rope is None:
        interval = f.count("no_rope_layer_interval")
        rope = tuple(int((i + 1) % interval != 0) for i in range(layers))
    return [FULL if turns else SLIDING for turns in rope]


def listed(field: str) -> Kinds:
    """The layers' kinds as a list of its own, under another name."""

    def kinds(f: Fields, layers: int) -> Sequence[str]:
        types = f.texts(field, layers)
        if types is None:
            raise f.missing(field)
        return types

    return kinds
