"""The tensors that llama.cpp writes into a model's GGUF file: kind, layers, rows and columns."""

from collections.abc import Iterator

from ..light_dataclass import dataclass
from ..models.spec import LatentAttention, ModelSpec, Part, Role, TensorGroup
from .weights import layers_of, matrices_of, stacked

# The last part of a tensor's name in transformers -> llama.cpp's kind of tensor.
_KINDS = {
    "attn_q": ("q_proj", "query", "wq"),
    "attn_k": ("k_proj", "key", "wk"),
    "attn_v": ("v_proj", "value", "wv"),
    "attn_qkv": (
        "qkv_proj", "query_key_value", "c_attn", "wqkv", "Wqkv", "W_pack", "in_proj_qkv",
        "in_proj_qkvz",
    ),
    "attn_output": ("o_proj", "dense", "wo", "out_proj", "c_proj"),
    "ffn_gate": ("gate_proj", "w1"),
    "ffn_up": ("up_proj", "w3", "fc1", "fc_in", "c_fc", "dense_h_to_4h", "gate_up_proj"),
    "ffn_down": ("down_proj", "w2", "fc2", "fc_out", "dense_4h_to_h"),
}  # fmt: skip
_KIND_OF = {leaf: kind for kind, leaves in _KINDS.items() for leaf in leaves}
_KEPT_16 = ("per_layer_model_projection", "altup", "laurel")
_STATE_SPACE = ("linear_attn.", "mamba.", ".mixer.", "short_conv.", ".conv.", "indexer.")


@dataclass(frozen=True, slots=True)
class Slot:
    """Tensors of one shape and kind: `rows` x `columns` each, one (or `copies`) in each layer."""

    kind: str
    rows: int
    columns: int
    layers: tuple[int, ...]
    """Empty: outside of the blocks."""
    copies: int
    fixed: str = ""
    """A type that no mix changes."""


def slots_of(spec: ModelSpec) -> Iterator[Slot]:
    for group in spec.tensors:
        if group.part is not Part.TEXT:
            continue
        inside = ".*." in group.name
        layers = tuple(sorted(layers_of(spec, group))) if inside else ()
        each = group.count // len(layers) if layers else group.count
        yield from _of_group(spec, group, layers, max(each, 1))


def _of_group(
    spec: ModelSpec, group: TensorGroup, layers: tuple[int, ...], copies: int
) -> Iterator[Slot]:
    name = group.name.removesuffix(".weight")
    leaf = name.rsplit(".", 1)[-1]
    elements = group.parameters // group.count
    if group.role in (Role.LM_HEAD, Role.EMBEDDING):
        position = leaf in ("wpe", "embed_positions", "position_embeddings")
        kind = "output" if group.role is Role.LM_HEAD else "token_embd"
        rows, columns = group.shape[0], elements // group.shape[0]
        if leaf == "embed_tokens_per_layer":
            kind = "per_layer_embd"
        yield Slot(kind, rows, columns, layers, copies, "F32" if position else "")
    elif group.role is Role.EXPERT and len(group.shape) == 3:
        kinds = ("ffn_down",) if "down" in leaf else ("ffn_gate", "ffn_up")
        parts = matrices_of(spec, group)
        if len(parts) == 1 and len(kinds) == 2 and "gate_up" in leaf:
            parts = [(parts[0][0] // 2, parts[0][1])] * 2
        for kind, (rows, columns) in zip(kinds[-len(parts) :], parts, strict=True):
            yield Slot(f"experts {kind}", rows * stacked(group), columns, layers, copies)
    elif group.role is Role.LINEAR and len(group.shape) == 2:
        rows, columns = group.shape
        if any(part in name for part in _KEPT_16):
            yield Slot("other", rows, columns, layers, copies, "F16")
        elif leaf == "kv_b_proj":
            yield from _latent_up(spec, rows, columns, layers, copies)
        else:
            yield from _of_linear(name, leaf, rows, columns, layers, copies)
    else:
        yield Slot("other", 1, elements, layers, copies, "F32")


def _of_linear(
    name: str, leaf: str, rows: int, columns: int, layers: tuple[int, ...], copies: int
) -> Iterator[Slot]:
    kind = _KIND_OF.get(leaf, "other")
    if leaf == "c_proj" and "mlp" in name:
        kind = "ffn_down"
    attends = leaf in ("q_proj", "k_proj", "v_proj", "o_proj")
    state = any(part in f".{name}." for part in _STATE_SPACE)
    if state and kind not in ("attn_qkv", "ffn_up", "ffn_down") and not attends:
        kind = "other"
    if "indexer." in name:
        kind = "other"
    if "c_attn" in leaf or leaf in ("c_fc", "c_proj"):  # stored (in, out)
        rows, columns = (columns, rows) if _transposed(leaf, rows, columns) else (rows, columns)
    yield Slot(kind, rows, columns, layers, copies)


def _transposed(leaf: str, rows: int, columns: int) -> bool:
    """Whether a Conv1D of GPT-2 is kept (in, out): its widening sides tell."""
    return columns > rows if leaf in ("c_attn", "c_fc") else rows > columns


def _latent_up(
    spec: ModelSpec, rows: int, columns: int, layers: tuple[int, ...], copies: int
) -> Iterator[Slot]:
    """MLA's up-projection as two tensors: keys transposed, head by head, and values."""
    mixer = next(m for layer in spec.layers for m in layer.mixers if isinstance(m, LatentAttention))
    heads = rows // (mixer.nope_dim + mixer.value_dim)
    yield Slot("other", columns * heads, mixer.nope_dim, layers, copies)
    yield Slot("other", mixer.value_dim * heads, columns, layers, copies)
