"""What llama.cpp has no graph for here: models whose bytes are not planned.

Beside the engine's folder, and without its imports: a plan of our runtime asks whether to name
llama.cpp.
"""

from ..models.spec import (
    Attention,
    CompressedAttention,
    LatentAttention,
    Mixer,
    ModelSpec,
    RecurrentState,
)

NOT_PLANNED = {
    "minicpm3": "latents are cached as whole heads, which is not planned",
    "gemma3n_text": "four streams of every layer are not planned",
    "gemma3n": "four streams of every layer are not planned",
}
"""Model types that llama.cpp runs by a graph which is not written here."""
ABSENT = frozenset(
    """
    codegen cwm gpt_neo gptj helium longcat_flash longcat_flash_ngram olmo_hybrid opt vaultgemma
    zamba zamba2
    """.split()  # noqa: SIM905
)
"""Model types that llama.cpp does not run: neither its converter (`conversion/__init__.py`, read
2026-11) nor its library (the wheel xllamacpp 2026.10.11549) names them."""
SCANS = frozenset({"short_conv", "mamba1", "mamba2", "gated_delta"})
"""Kinds of recurrent layers whose graph is."""


def without_graph(spec: ModelSpec) -> str | None:
    """Why no GGUF of the model is planned; None where one is."""
    if spec.decoder_type in ABSENT:
        return f"llama.cpp has no {spec.decoder_type}"
    missing = next((why for m, _ in spec.mixer_counts if (why := _not_planned(m))), None)
    missing = missing or NOT_PLANNED.get(spec.decoder_type)
    return f"{spec.model_type}'s {missing} for llama.cpp" if missing is not None else None


def _not_planned(mixer: Mixer) -> str | None:
    """What of a mixer has no bytes here, in words that follow the model's name."""
    if isinstance(mixer, CompressedAttention):
        return "compressed attention is not planned"
    if isinstance(mixer, Attention | LatentAttention) and mixer.indexer is not None:
        return "sparse attention, with an indexer, is not planned"
    if isinstance(mixer, RecurrentState):
        if mixer.kind not in SCANS:
            return f"recurrent layers ({mixer.kind}) are not planned"
        if mixer.decays_by_channel:
            return "linear attention that decays by channel is not planned"
    return None
