"""vLLM with this project's attention (runtime/vllm_plugin): what it takes, and its workspace.

docs/vllm_plugin.md describes it. Its speed is fitted to rows of one model on an H200, in 4 bits
(profiles/vllm/plugin_0.26_h200.jsonl); in 8 bits it is derived.
"""

from ...models.spec import Attention, ModelSpec, RecurrentState
from .settings import ServeSettings

BACKEND = "CUSTOM"
"""Its name among vLLM's attention backends."""
INSTALL_NOTE = 'it needs the plugin beside vLLM 0.26: pip install "kvpareto[vllm]"'
AWQ_NOTE = (
    "with up to 64 users at once --quantization kvpareto_awq is faster: the plugin's products of "
    "AWQ weights (docs/vllm_plugin.md)"
)
OVERLAP_NOTE = (
    "TORCHINDUCTOR_ENABLE_PDL=1 in vLLM's environment makes decoding 2 to 6 % faster: kernels that "
    "torch.compile wrote let the next begin early; give its graphs a VLLM_CACHE_ROOT of their own "
    "(docs/vllm_plugin.md)"
)
OVERLAPS = (9, 0)
"""Compute capability from which launches may overlap."""
AWQ_USERS = 64
"""Rows up to which those products are faster than vLLM's: at 1, 16, 24, 40, 48 and 64 they were
(profiles/vllm/plugin_0.26_h200.jsonl, with torch.compile); more are dequantized in every step."""
CODE_BITS = {"int4_per_token_head": 4, "int8_per_token_head": 8}
LARGEST_HEAD = 256
PADDING = 256
"""Rows of zeros behind what is staged (runtime/kernels/paged/stage_pages.py)."""


def model_obstacle(spec: ModelSpec) -> str | None:
    """Why no cache of the model is the plugin's; None where one is."""
    reasons = [cache_obstacle(spec, dtype) for dtype in CODE_BITS]
    return reasons[-1] if all(reasons) else None


def cache_obstacle(spec: ModelSpec, dtype: str) -> str | None:
    """Why the plugin leaves a cache of that --kv-cache-dtype to vLLM; None where it takes it."""
    bits = CODE_BITS.get(dtype)
    if bits is None:
        return f"its caches are {' and '.join(CODE_BITS)}, not {dtype}"
    for mixer, _ in spec.mixer_counts:
        if isinstance(mixer, RecurrentState):
            continue
        if not isinstance(mixer, Attention):
            return f"{spec.model_type} keeps latents, and the plugin reads keys and values"
        dim = mixer.head_dim
        if dim != mixer.value_dim:
            return f"keys of {dim} channels and values of {mixer.value_dim} differ"
        if not 32 <= dim <= LARGEST_HEAD or dim % 16 or (bits == 4 and dim & (dim - 1)):
            return f"heads of {dim} channels are not kept as {dtype}"
    return None


def staging_bytes(spec: ModelSpec, settings: ServeSettings) -> int:
    """The workspace of one rank: keys and values of the longest sequence of one layer in 16 bits,
    and a chunk's rotated queries (staging_buffers in runtime/vllm_plugin/workspace.py)."""
    room = max(settings.max_model_len, settings.max_num_batched_tokens) + PADDING
    turned = settings.max_num_batched_tokens if CODE_BITS[settings.kv_cache_dtype] == 4 else 0
    return max(
        (
            _whole(2 * room * mixer.kv_heads * mixer.head_dim) * 2
            + _whole(2 * turned * mixer.query_heads * mixer.head_dim)
            for mixer, _ in spec.mixer_counts
            if isinstance(mixer, Attention)
        ),
        default=0,
    )


def _whole(size: int) -> int:
    """Parts of vLLM's workspace begin at multiples of 256 bytes."""
    return -(-size // 256) * 256
