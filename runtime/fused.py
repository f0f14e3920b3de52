"""Fused norms, RoPE and SwiGLU in a loaded model: instance by instance, and undone at close.

A captured decode step has no launch overhead left, but an eager transformers layer is some forty
small kernels beside its matrix products, and each costs a microsecond or two on the device. Here
a module instance gets its own `forward` that calls the kernels of fused_kernels.py; classes and
transformers' modules stay as they are, so other models in the process do not notice.

A norm or an MLP is only taken over when the fused formula reproduces its own output on a probe;
attentions and decoder layers only for the families whose forward is known to be the plain one.
"""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ..planner.memory.activation.workspace import FEW_ROWS
from .attention import attend
from .cache.packed_layer import Handover, PackedLayer
from .fused_kernels import add_rms_norm, rms_norm, rope, rope_keys, swiglu, whole_norm
from .rope import is_plain, rotary
from .weights.cuda.cuda_parts import keep_for
from .weights.fused_projections import gated, gated_halves, let_go
from .weights.linear import QuantizedLinear, W4Linear
from .weights.workspace import Workspace

PLAIN = ("Llama", "Qwen2", "Qwen3", "Mistral", "Mixtral", "Qwen3Moe")
"""Families whose attention is projections, optional per-head norms, RoPE, attention, output, and
whose layer is norm, attention, add, norm, FFN, add."""

JOINED = {"gate_up_proj": "down_proj", "input_linear": "output_linear"}
"""Names of one matrix for gate and up, and of the matrix behind them."""
READERS = {"input_layernorm": "self_attn", "post_attention_layernorm": "mlp"}
"""Names of a layer's norms, and of what reads them."""


def fuse(model: nn.Module) -> list[nn.Module]:
    """Give `model`'s modules fused forwards where they fit; the modules changed, for `restore`."""
    changed: list[nn.Module] = []
    norms: dict[nn.Module, _Norm] = {}
    agreed: dict[object, object] = {}

    def take(module: nn.Module, forward: Callable[..., Any]) -> None:
        module.forward = partial(forward, module)
        changed.append(module)

    for module in model.modules():
        if "forward" in module.__dict__:  # something else has wrapped this instance
            continue
        kind = type(module).__name__
        if kind.endswith("RMSNorm"):
            norm = _norm_of(module, agreed)
            if norm is not None:
                norms[module] = norm
                take(module, norm)
        elif any(isinstance(getattr(module, x, None), nn.Module) for x in JOINED.values()):
            mlp = _mlp_of(module, agreed)
            if mlp is not None:
                take(module, mlp)
        elif type(module) is nn.Embedding and module.max_norm is None:
            # An index of 2 to 16 rows takes a sixth of torch's own lookup, of one row twice of it.
            own = module.forward
            take(module, lambda t, ids, own=own: own(ids) if ids.numel() == 1 else t.weight[ids])
        elif kind in {f"{family}Attention" for family in PLAIN}:
            take(module, partial(_attention, original=module.forward))
        elif kind in {f"{family}RotaryEmbedding" for family in PLAIN} and is_plain(module):
            take(module, partial(rotary, original=module.forward, most=FEW_ROWS))
    after = _norms_after(model, norms)
    for module in model.modules():
        if type(module).__name__ in {f"{family}DecoderLayer" for family in PLAIN}:
            for before, behind in READERS.items():
                if (one := norms.get(getattr(module, before))) is not None:
                    one.reader = _workspace_of(getattr(module, behind))
            norm = norms.get(module.post_attention_layernorm)  # type: ignore[arg-type]
            if norm is not None and "forward" not in module.__dict__:
                take(module, partial(_layer, norm=norm, after=after.get(module)))
    return changed


def restore(changed: list[nn.Module]) -> None:
    """Give modules that `fuse` changed their own forward back."""
    for module in changed:
        module.__dict__.pop("forward", None)
    changed.clear()


class _Norm:
    """One RMS norm's formula: its epsilon, and whether it multiplies by 1 + weight."""

    def __init__(self, eps: float, offset: bool) -> None:
        self.eps = eps
        self.offset = offset
        self._ready: tuple[Tensor, Tensor] | None = None
        self.reader: Workspace | None = None
        """Whose products read what this norm gives, where they take whole numbers."""

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        ready, self._ready = self._ready, None
        if ready is not None and ready[0] is x:
            return ready[1]
        weight: Any = module.weight
        whole = whole_norm(x, None, weight, self.eps, self.reader, offset=self.offset)
        return whole[0] if whole else rms_norm(x, weight, self.eps, offset=self.offset)

    def add(
        self, module: Any, x: Tensor, residual: Tensor, *, in_place: bool = False
    ) -> tuple[Tensor, Tensor]:
        more: Any = {"offset": self.offset, "in_place": in_place}
        whole = whole_norm(x, residual, module.weight, self.eps, self.reader, **more)
        return whole or add_rms_norm(x, residual, module.weight, self.eps, **more)

    def prepare(
        self, module: Any, x: Tensor, residual: Tensor, *, in_place: bool = False
    ) -> Tensor:
        """x + residual, of which this norm is asked next: it is computed with the sum, which takes
        the residual's place with `in_place`."""
        normed, total = self.add(module, x, residual, in_place=in_place)
        self._ready = total, normed
        return total


def _workspace_of(block: nn.Module) -> Workspace | None:
    """The workspace of the projections that a block begins with, where these are of 4 bits."""
    first = next((x for x in block.children() if isinstance(x, nn.Linear | QuantizedLinear)), None)
    return first.workspace if isinstance(first, W4Linear) else None


def _norms_after(
    model: nn.Module, norms: dict[nn.Module, _Norm]
) -> dict[nn.Module, tuple[nn.Module, _Norm]]:
    """The norm that each decoder layer's output meets first: the next layer's, or the last one."""
    after: dict[nn.Module, tuple[nn.Module, _Norm]] = {}
    for stack in model.modules():
        layers, last = getattr(stack, "layers", None), getattr(stack, "norm", None)
        if not isinstance(layers, nn.ModuleList) or not isinstance(last, nn.Module):
            continue
        firsts = [getattr(layer, "input_layernorm", None) for layer in layers]
        for layer, norm in zip(layers, [*firsts[1:], last], strict=True):
            if norm in norms:
                after[layer] = norm, norms[norm]
    return after


def _norm_of(module: nn.Module, agreed: dict[object, object]) -> _Norm | None:
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    weight = getattr(module, "weight", None)
    if eps is None or not isinstance(weight, Tensor) or weight.dim() != 1:
        return None
    for offset in (False, True):
        norm = _Norm(float(eps), offset)
        probe = _probe(weight.shape[0], weight)
        key = (type(module), float(eps), weight.shape[0], offset)
        if _agrees(agreed, key, partial(norm, module), module, probe):
            return norm
    return None


def _mlp_of(module: nn.Module, agreed: dict[object, object]) -> Callable[..., Tensor] | None:
    if len(signature(type(module).forward).parameters) != 2:  # Zamba2's knows which layer asks
        return None
    names = {name for name, _ in module.named_children()}
    joined = next((both for both, down in JOINED.items() if {both, down} <= names), None)
    if joined is None and not {"gate_proj", "up_proj", "down_proj"} <= names:
        return None
    if not any(hasattr(module, name) for name in ("act_fn", "activation_fn", "activation")):
        return None
    width = getattr(getattr(module, joined or "gate_proj"), "in_features", None)
    held = [*module.parameters(), *module.buffers()]
    if width is None or not held:
        return None
    # packed weights are integers, and run on bfloat16
    like = next((p for p in held if isinstance(p, nn.Parameter) and p.is_floating_point()), None)
    probe = _probe(width, held[0] if like is None else like)
    sparse = getattr(module, "activation_sparsity", 0.0)  # of some layers, in Gemma 3n
    for tanh in (False, True):
        mlp = partial(_mlp, tanh=tanh)
        if joined is not None:
            # Granite's chunks stay its own: what they take is planned so.
            own = module.forward if joined == "input_linear" else None
            mlp = partial(_joined_mlp, both=joined, down=JOINED[joined], own=own, tanh=tanh)
        if _agrees(agreed, (type(module), sparse, tanh), partial(mlp, module), module, probe):
            return mlp
    return None


def _probe(width: int, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, width, generator=generator)
    dtype = like.dtype if like.is_floating_point() else torch.bfloat16
    return x.to(device=like.device, dtype=dtype)


@torch.no_grad()
def _agrees(
    agreed: dict[object, object],
    key: object,
    fused: Callable[[Tensor], Tensor],
    module: nn.Module,
    probe: Tensor,
) -> bool:
    """Whether both give the same on the probe, to the precision of its dtype; asked once a key."""
    if key not in agreed:
        expected = module(probe).float()
        gap = (fused(probe).float() - expected).norm() / expected.norm().clamp(min=1e-30)
        agreed[key] = bool(gap < 4 * torch.finfo(probe.dtype).eps)
    return bool(agreed[key])


def _mlp(module: Any, x: Tensor, *, tanh: bool) -> Tensor:
    inner = gated(module.gate_proj, module.up_proj, x, tanh=tanh)
    if inner is None:
        inner = swiglu(module.gate_proj(x), module.up_proj(x), tanh=tanh)
    return module.down_proj(inner)


def _joined_mlp(
    module: Any,
    x: Tensor,
    *,
    both: str,
    down: str,
    own: Callable[[Tensor], Tensor] | None,
    tanh: bool,
) -> Tensor:
    """`both` and `down` name the matrices; `own` takes more than a few rows, where it is given."""
    if own is not None and x.numel() > FEW_ROWS * x.shape[-1]:
        return own(x)
    matrix = getattr(module, both)
    inner = gated_halves(matrix, x, tanh=tanh)
    if inner is None:
        gate, up = matrix(x).chunk(2, dim=-1)
        inner = swiglu(gate, up, tanh=tanh)
    mixed: Tensor = getattr(module, down)(inner)
    return mixed


def _attention(
    module: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    cache: Any = None,
    *,
    original: Callable[..., Any],
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over a packed cache, under either of its names (cache_name); anything else goes
    to the module's own forward."""
    cos, sin = position_embeddings
    cache = past_key_values if cache is None else cache
    if cache is None or cos.shape[-1] != module.head_dim:
        return original(hidden_states, position_embeddings, attention_mask, cache, **kwargs)
    layer = cache.layers[module.layer_idx]
    if not isinstance(layer, PackedLayer):
        raise TypeError("a fused attention runs on a packed cache only")
    shape = (*hidden_states.shape[:-1], -1, module.head_dim)
    if layer.handover is Handover.STORES:
        key = module.k_proj(hidden_states).view(shape)
        key = module.k_norm(key) if hasattr(module, "k_norm") else key
        value = module.v_proj(hidden_states).view(shape)
        let_go(module.k_proj)
        # which ends the pass
        cache.update(rope_keys(key, cos, sin), value.transpose(1, 2), module.layer_idx)
    query = module.q_proj(hidden_states).view(shape)
    key = module.k_proj(hidden_states).view(shape)
    value = module.v_proj(hidden_states).view(shape)
    if hasattr(module, "q_norm"):
        query, key = module.q_norm(query), module.k_norm(key)
    turned = layer.step(query, key, value, cos, sin)
    if turned is None:
        turned, key = rope(query, key, cos, sin)
        cache.update(key, value.transpose(1, 2), module.layer_idx)
    keep, reader = None, module.o_proj
    if isinstance(reader, W4Linear) and reader.joint is None:
        keep = partial(keep_for, reader.packed, reader.workspace)
    mixed = attend(turned, layer.state, scaling=module.scaling, keep=keep)
    return module.o_proj(mixed.transpose(1, 2).reshape(*shape[:-2], -1)), None


def _layer(
    module: Any,
    hidden_states: Tensor,
    *,
    norm: _Norm,
    after: tuple[nn.Module, _Norm] | None,
    **kwargs: Any,
) -> Tensor:
    attended, _ = module.self_attn(hidden_states=module.input_layernorm(hidden_states), **kwargs)
    normed, residual = norm.add(module.post_attention_layernorm, attended, hidden_states)
    mixed = module.mlp(normed)
    if after is None:
        return residual + mixed
    next_module, next_norm = after
    return next_norm.prepare(next_module, mixed, residual, in_place=True)
