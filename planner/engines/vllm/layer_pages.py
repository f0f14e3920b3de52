"""The page of each layer: the bytes that one block of tokens, or one state, takes.

vLLM gives every layer blocks of one size in bytes. Attention fills a block with tokens; a
recurrent state is one page, and where a model has both, blocks of attention are made long enough
to be as large as a state, which is padded to them (Platform._align_hybrid_block_size, and
v1/kv_cache_interface.py, of vLLM 0.26.0).
"""

from dataclasses import dataclass, replace

from ...errors import BadInput
from ...hardware.compute_capability import Capability
from ...models.spec import Attention, LatentAttention, Mixer, ModelSpec, RecurrentState
from .settings import ServeSettings

BLOCK = 16
"""Tokens of a block, where nothing asks for more."""
FLASHMLA_BLOCK = 64
"""Tokens of a block of FlashMLA, which Hopper cards take for a quantized latent."""
FLASHINFER_MLA_BLOCK = 32
"""The same of FlashInfer's latent attention, the first choice on Blackwell's data centre cards."""
HOPPER: Capability = (9, 0)
STATE_A_BLOCK = (
    "falcon_h1", "granitemoehybrid", "jamba", "mamba", "mamba2", "nemotron_h", "zamba2",
)  # fmt: skip
"""Types that keep a state for each block of tokens where prefixes are cached: many times the cache.
They are planned without; the others keep two states a sequence (mode "align" of 0.26.0)."""
FLOAT32_STATES = ("nemotron_h", "qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_5_moe_text")
"""Types whose configs ask for states in float32 (`mamba_ssm_cache_dtype`, `mamba_ssm_dtype`)."""
CONVOLUTION = 4
"""Taps of the short convolution before a state; vLLM keeps one fewer than transformers."""


@dataclass(frozen=True, slots=True)
class LayerPage:
    """How one layer is kept. `kind`: "full", "sliding" or "state". `block`: tokens of a page."""

    kind: str
    block: int
    page: int
    window: int | None = None

    def pages(self, tokens: int, settings: ServeSettings) -> int:
        """Pages that a sequence of `tokens` tokens takes at most."""
        if self.kind == "state":
            return 2 if settings.prefix_caching else 1
        if self.window is None:
            return -(-tokens // self.block)
        # The window, what is in flight, and one block more, since a window starts anywhere.
        kept = min(self.window - 1 + settings.in_flight, tokens)
        return -(-kept // self.block) + 1


def layer_pages(
    spec: ModelSpec, settings: ServeSettings, capability: Capability = HOPPER
) -> tuple[LayerPage, ...]:
    """The page of every layer that keeps anything, on a card of that capability. Raises BadInput
    for what is not planned."""
    mixers = [m for layer in spec.layers for m in layer.mixers]
    states = [m for m in mixers if isinstance(m, RecurrentState)]
    kept = [m for m in mixers if not (isinstance(m, Attention) and m.shares_kv_with is not None)]
    if states and settings.prefix_caching and spec.model_type in STATE_A_BLOCK:
        raise BadInput(
            f"vLLM's cache of {spec.model_type} with cached prefixes is not planned: it keeps a "
            "state for each block of tokens",
            "--no-enable-prefix-caching",
        )
    tokens = [m for m in kept if not isinstance(m, RecurrentState)]
    alike = {id(m): m for m in tokens}  # layers of one kind share a mixer
    of = {key: _page(spec, m, settings, capability) for key, m in alike.items()}
    pages = [of[id(m)] for m in tokens]
    if not states:
        return tuple(pages)
    if not pages or any(page.kind != "full" for page in pages):
        raise BadInput(
            f"vLLM's pages of {spec.model_type} are not planned",
            "states beside full attention are; use --engine transformers for a lower bound",
        )
    state = max(_state_bytes(spec, m) for m in states)
    per_token = pages[0].page // pages[0].block
    block = BLOCK * max(1, -(-state // (BLOCK * per_token)))
    page = block * per_token
    attention = iter(replace(p, block=block, page=page) for p in pages)
    padded = LayerPage("state", settings.max_model_len, page)
    return tuple(padded if isinstance(m, RecurrentState) else next(attention) for m in kept)


def _page(
    spec: ModelSpec, mixer: Mixer, settings: ServeSettings, capability: Capability
) -> LayerPage:
    dtype = settings.kv_cache_dtype
    element = 2 if dtype == "auto" else 1
    if isinstance(mixer, LatentAttention):
        if mixer.indexer is not None or mixer.window is not None:
            raise BadInput(
                f"vLLM's cache of {spec.model_type} is not planned: its latent attention chooses "
                "tokens by an indexer, or sees a window",
                "full, sliding and plain latent attention are planned, and states of Mamba-2 and "
                "gated delta",
            )
        if dtype not in ("auto", "fp8"):
            raise BadInput(
                f"vLLM has no backend for the latent of {spec.model_type} as {dtype}",
                "a latent without an indexer takes auto and fp8",
            )
        block = _latent_block(dtype, capability)
        return LayerPage("full", block, block * (mixer.kv_rank + mixer.rope_dim) * element)
    if not isinstance(mixer, Attention) or mixer.local_chunk or mixer.indexer is not None:
        raise BadInput(
            f"vLLM's cache of {spec.model_type} is not planned",
            "full, sliding and latent attention are, and states of Mamba-2 and gated delta",
        )
    width = mixer.head_dim + mixer.value_dim
    # 0.26.0 halves int4 heads in full layers and forgets to in sliding ones.
    if dtype == "int4_per_token_head" and mixer.window is None:
        width = mixer.head_dim // 2 + mixer.value_dim // 2
    if dtype == "nvfp4":  # codes of half a byte, and a byte's scale for each 16
        width = sum(side // 2 + side // 16 for side in (mixer.head_dim, mixer.value_dim))
    scales = 2 * 4 if dtype.endswith("_per_token_head") else 0
    page = BLOCK * mixer.kv_heads * (width * element + scales)
    return LayerPage("sliding" if mixer.window else "full", BLOCK, page, mixer.window)


def _latent_block(dtype: str, capability: Capability) -> int:
    """Tokens of a latent's block: what the first backend that reads it asks for."""
    if capability[0] == 10:
        return FLASHINFER_MLA_BLOCK
    return FLASHMLA_BLOCK if capability[0] == 9 and dtype != "auto" else BLOCK


def _state_bytes(spec: ModelSpec, mixer: RecurrentState) -> int:
    """A state in the model's dtype, in float32 where its config asks for that."""
    if mixer.kind not in ("mamba2", "gated_delta"):
        raise BadInput(
            f"vLLM's state of {mixer.kind} layers is not planned",
            "states of Mamba-2 and gated delta layers are",
        )
    element = 4 if spec.model_type in FLOAT32_STATES else 2
    return mixer.state * element + mixer.conv // CONVOLUTION * (CONVOLUTION - 1) * 2
