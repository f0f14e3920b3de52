"""How many parameters the towers beside a text model have at most, where their code is not known.

A tower's section states its layers and widths in words that most families share. From these a
transformer is counted twice over, with a projector that folds up to 16 patches into one token. A
tower that states nothing, or stands elsewhere by its name, is bounded by the largest that was
published.
"""

from collections.abc import Mapping
from typing import Any

from .unread import Meaning, meaning_of

LARGEST_TOWER = 6_500_000_000  # parameters: InternViT-6B is the largest published encoder
_PUBLISHED = {"gemma3n": 1_014_742_624}
"""Towers whose sections state no layers: google/gemma-3n-E4B's 7,849,978,192 parameters less the
6,835,235,568 of its text model (shared layers' unused projections count as towers')."""
_LAYERS = ("num_hidden_layers", "depth", "num_layers", "layers", "encoder_layers", "n_layers")
_HIDDEN = ("hidden_size", "embed_dim", "d_model", "width")
_FFN = ("intermediate_size", "encoder_ffn_dim", "mlp_dim")
_ELSEWHERE = ("tower", "encoder", "model", "backbone")  # keys whose text names another checkpoint
_FOLDED, _BESIDE = 16, 2**27
"""Patches in a token; parameters of patches, positions and what else stands beside the layers."""


def largest_towers(kind: str, config: Mapping[str, Any], text_hidden: int) -> tuple[int, str]:
    """Parameters that the towers in a config have at most, and why, in words.

    `config`: the whole file, with a section for each tower. `text_hidden`: the text model's width.
    """
    if kind in _PUBLISHED:
        return _PUBLISHED[kind], f"published ones have {_PUBLISHED[kind] / 1e9:.3g} B"
    stated = [
        _tower(value, text_hidden) if isinstance(value, Mapping) else None
        for key, value in config.items()
        if meaning_of(key, value) is Meaning.TOWER
        and "projector" not in key  # counted with the tower
        and (isinstance(value, Mapping) or (isinstance(value, str) and key.endswith(_ELSEWHERE)))
    ]
    sizes = [size for size in stated if size is not None]
    if sizes and len(sizes) == len(stated) and sum(sizes) < LARGEST_TOWER:
        return sum(sizes), f"what their sections state is less than {sum(sizes) / 1e9:.3g} B"
    return LARGEST_TOWER, "no published one is larger than 6.5 B"


def _tower(section: Mapping[str, Any], text_hidden: int) -> int | None:
    """Twice a transformer of the section's sizes and its projector; None where they are missing."""
    layers, hidden = _first(section, _LAYERS), _first(section, _HIDDEN)
    if layers is None or hidden is None:
        return None
    ratio = section.get("mlp_ratio")
    wide = ratio * hidden if isinstance(ratio, int | float) and 0 < ratio < 64 else 4 * hidden
    ffn = _first(section, _FFN) or int(wide)
    blocks = layers * (4 * hidden * hidden + 3 * hidden * ffn)
    projector = _FOLDED * hidden * (hidden + text_hidden) + text_hidden * text_hidden
    return 2 * blocks + projector + _BESIDE


def _first(section: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    given = (section.get(name) for name in names)
    return next((n for n in given if isinstance(n, int) and 0 < n < 2**20), None)
