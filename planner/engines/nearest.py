"""What other engines call the nearest to one of our configurations, by names alone.

Nothing of an engine is imported or searched: a plan shows the names beside a command that plans
with the engine, and that plan decides. Names of the formats are rows of formats/named.py.
"""

from ..formats.configuration import Configuration
from ..models.spec import CompressedAttention, LatentAttention, ModelSpec
from .without_graph import without_graph

_GGUF_WEIGHTS = {16: "BF16", 8: "Q8_0", 6: "Q6_K", 5: "Q5_K_M", 4: "Q4_K_M", 3: "Q3_K_M", 2: "Q2_K"}
_GGUF_CACHE = {16: "f16", 8: "q8_0", 5: "q5_1", 4: "q4_0"}
_GGUF_PAIRS = (("f16", "q8_0"), ("q8_0", "q5_1"), ("q8_0", "q4_0"))
"""Keys and values of two types that its attention kernels are built for; of one type all are."""
_GGUF_CHUNKS = (128, 256, 512, 1024, 2048)
_VLLM_WEIGHTS = {16: "16a16", 8: "fp8", 4: "awq"}
_VLLM_CACHE = {16: "16", 8: "fp8", 4: "int4_per_token_head"}
_VLLM_CHUNK = 2048
"""The shortest step that its plans choose among."""


def nearest_configuration(engine: str, spec: ModelSpec, config: Configuration) -> str | None:
    """The configuration of `engine` that is nearest to `config` from above: no format of fewer
    bits, the chunk not longer where there is one as short. None where the engine has no such
    names, or it is not known whether it runs the model, or not planned how."""
    if not spec.understood or spec.gguf is not None:
        return None
    if any(isinstance(mixer, CompressedAttention) for mixer, _ in spec.mixer_counts):
        return None  # neither engine is planned for its caches
    if engine == "llama.cpp":
        return _llama_cpp(spec, config) if without_graph(spec) is None else None
    return _vllm(spec, config) if engine == "vllm" else None


def _vllm(spec: ModelSpec, config: Configuration) -> str | None:
    """Keys and values are of one format there; a quantized checkpoint keeps its own."""
    if spec.quantization is not None:
        return None
    cache = _at_least(_VLLM_CACHE, max(config.k_bits, config.v_bits))
    weights = _at_least(_VLLM_WEIGHTS, config.weight_bits)
    return f"w{weights}-k{cache}v{cache}+pc{_VLLM_CHUNK}"


def _llama_cpp(spec: ModelSpec, config: Configuration) -> str:
    keys = _at_least(_GGUF_CACHE, config.k_bits)
    values = _at_least(_GGUF_CACHE, config.v_bits)
    latent = any(isinstance(mixer, LatentAttention) for mixer, _ in spec.mixer_counts)
    if keys != values and (latent or (keys, values) not in _GGUF_PAIRS):
        keys = values = _at_least(_GGUF_CACHE, max(config.k_bits, config.v_bits))
    stored = spec.quantization.method if spec.quantization is not None else ""
    weights = "mxfp4" if stored == "mxfp4" else _at_least(_GGUF_WEIGHTS, config.weight_bits)
    chunks = [c for c in _GGUF_CHUNKS if c <= (config.chunk or _GGUF_CHUNKS[-1])]
    return str(Configuration.named(weights, keys, values, chunks[-1] if chunks else 128))


def _at_least(names: dict[int, str], bits: int) -> str:
    """The name of the fewest bits that are no fewer."""
    return names[min(b for b in names if b >= bits)]
