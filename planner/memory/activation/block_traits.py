"""How transformers writes a family's forward pass, where that changes what is alive when.

The defaults are Llama's. Read off transformers' modeling files (5.17, the version whose rows the
predictions are held to); which family has which habit is in family_traits.py.
"""

from enum import StrEnum

from ...light_dataclass import dataclass


class Order(StrEnum):
    """What a decoder layer does in which order."""

    PRE_NORM = "pre-norm"  # x + attn(norm(x)), then x + ffn(norm(x))
    POST_NORM = "post-norm"  # x + norm(attn(x)), then x + norm(ffn(x)) (OLMo 2)
    SANDWICH = "sandwich"  # x + norm(attn(norm(x))), then the same with the FFN (Gemma 2)
    PARALLEL = "parallel"  # x + attn(norm(x)) + ffn(norm(x)) (Phi-2, Falcon, Cohere)


@dataclass(frozen=True, slots=True)
class BlockTraits:
    """What a family's code does that decides which tensors live at once; by default Llama's."""

    order: Order = Order.PRE_NORM

    scaled_embeddings: bool = False
    """The first layer gets a copy of the embeddings, which stay alive beside it."""
    position_embeddings: bool = False
    """Learned positions are looked up, and stay alive; there is no rotary embedding."""
    tables_by_reach: bool = False
    """Sliding and full layers have rotary tables of their own."""
    idle_window_mask: bool = False
    """The mask of sliding layers is written, and held, though no layer slides: their window is
    then 0, which `is_causal` cannot say."""
    always_masked: bool = False
    """A mask is written even where SDPA's `is_causal` would do."""

    fused_qkv: bool = False
    """One matrix makes queries, keys and values."""
    float_rotary: bool = False
    """Rotary tables and the rotation itself are float32."""
    upcast_rotary: bool = False
    """Queries and keys are cast to float32 before either is rotated; the tables are not."""
    spread_tables: bool = False
    """Every layer spreads the rotary tables over channel pairs: copies of its own."""
    split_rotary: bool = False
    """Rotated and unrotated channels keep their names after they have been joined."""
    eager_only: bool = False
    """The family has no SDPA attention: `transformers` falls back to eager."""
    unrepeated_keys: bool = False
    """SDPA gets fewer key heads than query heads, which sends it to its math path."""
    native_softmax: bool = False
    """Eager attention's softmax stays in the model's dtype."""
    float_scores: bool = False
    """Eager attention's scores are float32 from the product on."""
    named_scores: bool = False
    """The scores without their mask keep a name."""
    keeps_weights: bool = False
    """Eager attention's weights are a layer's output: they live until the next layer's do."""
    keeps_attention: bool = False
    """A local name keeps attention's output alive while the FFN runs."""
    keeps_normed: bool = False
    """A local name keeps attention's normalised input alive while the FFN runs."""

    fused_gate: bool = False
    """One matrix makes gate and up."""
    plain_gate: bool = False
    """Passes of many rows run the block's own code in kvpareto too (runtime/fused.py)."""
    normed_product: bool = False
    """The gated product is normalised before the last matrix (BitNet)."""
    inline_ffn: bool = False
    """The FFN is written into the layer: its normalised input goes after the first product."""
    float_routing: bool = False
    """Routing weights stay float32, and so do the experts' weighted outputs."""
    shared_first: bool = False
    """Shared experts run before the routed ones, not after."""
    dense_beside: bool = False
    """A dense FFN with a norm of its own runs before the routed experts (Gemma 4)."""
    every_expert: bool = False
    """Every expert works on every token, weighted by zero where it was not chosen (Llama 4)."""
    expert_biases: bool = False
    """Experts have biases, gathered for every token and expert before they are added."""
    clamped_gate: bool = False
    """Experts clamp copies of gate and up, and calculate on with copies (gpt-oss)."""
    scaled_adds: bool = False
    """What a block adds to the residual stream is multiplied by a number first (Granite)."""
    scaled_logits: bool = False
    """Logits are multiplied or divided by a number, out of place."""
    streams: int = 1
    """Copies of the residual stream that every layer predicts and corrects (Gemma 3n's AltUp)."""
    fused_gated_delta: bool = False
    """Gated delta nets project everything with one matrix, which then is taken apart."""


LLAMA = BlockTraits()
