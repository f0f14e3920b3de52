"""Softmax attention with grouped heads, in the spellings of many families."""

from ...config_fields import Fields
from ...spec import Attention, Role
from ..decoder import Block


def windows(f: Fields, kind: str) -> tuple[int | None, int | None]:
    """(sliding window, local chunk) of a layer kind."""
    if kind in ("sliding_attention", "hybrid_sliding"):
        window = f.count("sliding_window", high=2**31)
        # Gemma 3 and 4, where every token also sees as far ahead: the class halves the window.
        both_ways = f.raw.get("use_bidirectional_attention") in (True, "all")
        return (window // 2 + 1 if both_ways else window), None
    if kind == "chunked_attention":
        return None, f.count("attention_chunk_size", high=2**31)
    if kind not in ("full_attention", "hybrid"):
        raise f.wrong("layer_types", kind, "a kind of attention this family has")
    return None, None


def heads(f: Fields, hidden: int, head_dim: bool = True) -> tuple[int, int, int]:
    """(query heads, KV heads, head_dim), each derived as transformers derives it.

    `head_dim` False is for families whose heads always divide the hidden size.
    """
    query = f.count("num_attention_heads")
    kv = f.count("num_key_value_heads", query)
    share = max(1, hidden // query)
    dim = f.count("head_dim", share) if head_dim else share
    if query % kv:
        raise f.wrong("num_key_value_heads", kv, f"a divisor of the {query} query heads")
    return query, kv, dim


def flag_of(f: Fields, bias: bool | str) -> bool:
    """A bias that a family always or never has, or that a field decides."""
    return f.flag(bias) if isinstance(bias, str) else bias


def gqa(
    b: Block,
    kind: str,
    *,
    bias: bool | str = False,
    output_bias: bool | str | None = None,
    qk_norm: str = "",
    names: tuple[str, str, str, str] = ("q_proj", "k_proj", "v_proj", "o_proj"),
    norm_names: tuple[str, str] = ("q_norm", "k_norm"),
    scope: str = "self_attn.",
    fused: str = "",
    gate: str = "",
    sinks: bool = False,
    softcap: str | None = None,
    head_dim: bool = True,
    square_output: bool = False,
) -> Attention:
    """Add one attention's tensors.

    `qk_norm`: "" none, "head" over each head's channels, "width" over all heads at once.
    `fused`: name of one projection that holds q, k and v. `gate`: "" none, "double" a q_proj
    twice as wide whose second half gates the output, else the name of a gate projection.
    `square_output`: the output projection is hidden x hidden whatever the heads' width.
    """
    f, t = b.f, b.t
    query, kv, dim = heads(f, b.hidden, head_dim)
    window, local = windows(f, kind)
    has_bias = flag_of(f, bias)
    out_bias = has_bias if output_bias is None else flag_of(f, output_bias)
    q_width = query * dim
    with t.scope(scope):
        if sinks:
            t.add("sinks", (query,), Role.OTHER)
        if fused:
            t.linear(fused, b.hidden, q_width + 2 * kv * dim, has_bias)
        else:
            t.linear(names[0], b.hidden, q_width * (2 if gate == "double" else 1), has_bias)
            t.linear(names[1], b.hidden, kv * dim, has_bias)
            t.linear(names[2], b.hidden, kv * dim, has_bias)
        if gate not in ("", "double"):
            t.linear(gate, b.hidden, q_width)
        t.linear(names[3], b.hidden if square_output else q_width, b.hidden, out_bias)
        if qk_norm:
            wide = qk_norm == "width"
            t.norm(norm_names[0], q_width if wide else dim)
            t.norm(norm_names[1], kv * dim if wide else dim)
    return Attention(
        query_heads=query,
        kv_heads=kv,
        head_dim=dim,
        value_dim=dim,
        window=window,
        local_chunk=local,
        qk_norm=bool(qk_norm),
        qkv_bias=has_bias,
        sinks=sinks,
        output_gate=bool(gate),
        softcap=f.number(softcap) if softcap else None,
    )
