"""Affine maps of keys and values, learnt from a text: what +affine rounds less by.

Rounding with one scale leaves an error e that is about alike in all channels, of a power that grows
with the spread of what is rounded. Of a key k' = M k it costs the scores q'.e = q.(M^-1 e), so that
a head loses

    tr(M A M^T) tr(M^-T B M^-1),     A = covariance of keys, B = mean q q^T over its query heads.

Among all M the least has G = M^T M with G A G = B: the geometric mean of A^-1 and B. A rotation has
G = 1, so it is the best only where A and B are alike. Then eigenvectors of what is left and a
Hadamard matrix spread it evenly over the channels. Values: B is the output projection's W^T W.

An idea of OSCAR (calibrated rotations for 2-bit caches), with queries and the projection in the
measure and matrices that need not be orthogonal. Keys are centred where softmax does not see it.
A and B are regularised, and M's stretch bounded, since a text of some thousand tokens tells little
of a head's rarest directions; the first tokens, whose keys stand out, are left out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ...planner.errors import BadInput
from ...planner.formats.configuration import Configuration
from ...planner.models.spec import Attention, LatentAttention, ModelSpec
from ...runtime import Session
from ...runtime.attention import PackedKV
from ...runtime.cache.affine import maps_of
from ...runtime.cache.kv_cache import PackedLayer
from ...runtime.cache.layer_state import Attend, LayerState
from ...runtime.cache.rotation import rotation
from ..execution.loaded_model import OpenModel

TOKENS = 4096
CHUNK = 512
FIRST = 4
"""Tokens at a sequence's beginning that are left out."""
RIDGE = 1e-2
"""Of the mean variance, added to each direction's."""
STRETCH = 32.0
"""How far M may stretch or shrink a direction beside their geometric mean."""
_PROJECTIONS = ("o_proj", "out_proj", "dense", "wo")


def learn_maps(base: Session | OpenModel, tokens: Tensor) -> dict[str, Tensor]:
    """Maps (runtime/cache/affine.py) of every attention layer of `base`, from a text's tokens [T].

    Raises BadInput for a text that is too short, and for layers that keep latents.
    """
    maps: dict[str, Tensor] = {}
    moments = learn_moments(base, tokens)
    with one_thread():
        for index, each in moments.items():
            written, read = each.keys, each.queries
            maps[f"{index}.key"] = maps_of(best_map(written, read), each.mean, queries=True)
            maps[f"{index}.value"] = maps_of(best_map(each.values, each.reads))
    return maps


@contextmanager
def one_thread() -> Iterator[None]:
    """For algebra on a head's matrices: threads wait for each other there, for most of a minute
    with 30 layers beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class LayerMoments:
    """Second moments float64 [H, D, D] of what one layer's KV heads hold, and of what reads it:
    keys, about their `mean` [H, D] where softmax does not see that, under queries; values under
    the output projection."""

    keys: Tensor
    queries: Tensor
    values: Tensor
    reads: Tensor
    mean: Tensor | None


def check_learnable(spec: ModelSpec, tokens: Tensor) -> None:
    """Raise BadInput for a model whose cache takes no maps, and a text [T] too short for any."""
    if any(isinstance(mixer, LatentAttention) for mixer, _ in spec.mixer_counts):
        raise BadInput("latents take no affine maps", "leave --affine out for this model")
    if len(tokens) < 64 + FIRST:
        raise BadInput(f"a text of {len(tokens)} tokens teaches no maps", "give a longer --text")


def learn_moments(base: Session | OpenModel, tokens: Tensor) -> dict[int, LayerMoments]:
    """Moments of every attention layer, from a text's tokens [T]. Raises BadInput as learn_maps."""
    check_learnable(base.spec, tokens)
    with Session(
        base.model, base.spec, Configuration(), tokens=len(tokens), graphs=False, fused=False
    ) as session:
        moments = _watch(session)
        sizes = [min(CHUNK, len(tokens) - at) for at in range(0, len(tokens), CHUNK)]
        for _ in session.logits(tokens[None], torch.tensor([len(tokens) - 1]), sizes):
            pass
    projections = _projections(base)
    found: dict[int, LayerMoments] = {}
    with one_thread():
        for index, seen in moments.items():
            mixers = [m for m in base.spec.layers[index].mixers if isinstance(m, Attention)]
            hides = bool(mixers) and not mixers[0].sinks and mixers[0].softcap is None
            found[index] = _layer(seen, projections.get(index), centre=hides)
    return found


@dataclass
class _Moments:
    """Sums over tokens of one layer, float64 on the CPU at the end; heads are KV heads."""

    count: int = 0
    keys: Tensor | float = 0.0
    values: Tensor | float = 0.0
    key_sum: Tensor | float = 0.0
    queries: Tensor | float = 0.0


def _watch(session: Session) -> dict[int, _Moments]:
    """Count what passes through every attention layer of a session from now on."""
    moments: dict[int, _Moments] = {}
    by_state: dict[int, _Moments] = {}
    for index, layer in enumerate(session.cache.layers):
        if not isinstance(layer, PackedLayer):
            continue
        moments[index] = by_state[id(layer.state)] = _Moments()
        session.cache.layers[index] = _WatchedLayer(layer, moments[index])

    def seam(query: Tensor, width: int, attend: Attend) -> Tensor:
        state: LayerState = attend.keywords["state"]  # type: ignore[attr-defined]
        held = by_state[id(state)]
        grouped = _past_first(query, state).double().unflatten(1, (state.key.values.shape[1], -1))
        held.queries = held.queries + torch.einsum("bhgtd,bhgte->hde", grouped, grouped).cpu()
        return attend(query)

    session.cache.clock.seam = seam
    return moments


class _WatchedLayer(PackedLayer):
    """A layer of an unquantized cache whose keys and values are counted."""

    def __init__(self, layer: PackedLayer, moments: _Moments) -> None:
        super().__init__(layer.state, layer.capacity, layer.leads)
        self._moments = moments

    def update(  # type: ignore[override]
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[PackedKV, PackedKV]:
        handles = super().update(key_states, value_states)
        seen = self._moments
        key, value = (_past_first(x, self.state).double() for x in (key_states, value_states))
        seen.count += key.shape[2]
        seen.keys = seen.keys + torch.einsum("bhtd,bhte->hde", key, key).cpu()
        seen.values = seen.values + torch.einsum("bhtd,bhte->hde", value, value).cpu()
        seen.key_sum = seen.key_sum + key.sum((0, 2)).cpu()
        return handles


def _past_first(x: Tensor, state: LayerState) -> Tensor:
    """Tokens [B, H, n, D] of an append without the first of the sequence."""
    begins = state.clock.host - x.shape[2]
    return x[:, :, max(0, FIRST - begins) :]


def _layer(seen: _Moments, projection: Tensor | None, *, centre: bool) -> LayerMoments:
    keys, values = (torch.as_tensor(x) / seen.count for x in (seen.keys, seen.values))
    mean = torch.as_tensor(seen.key_sum) / seen.count if centre else None
    if mean is not None:
        keys = keys - mean[:, :, None] * mean[:, None, :]
    heads, width = values.shape[:2]
    reads = torch.eye(width, dtype=torch.float64).expand(heads, -1, -1)
    if projection is not None:
        rows = projection.double().cpu().unflatten(1, (heads, -1, width))
        reads = torch.einsum("ohgd,ohge->hde", rows, rows)
    return LayerMoments(keys, torch.as_tensor(seen.queries), values, reads, mean)


def best_map(written: Tensor, read: Tensor) -> Tensor:
    """M, float64 [H, D, D], for second moments of what is rounded and of what reads it."""
    spread, reader = _ridged(written), _ridged(read)
    root, inverse = _power(spread, 0.5), _power(spread, -0.5)
    metric = inverse @ _power(root @ reader @ root, 0.5) @ inverse
    sizes, axes = torch.linalg.eigh(metric)
    stretch = sizes.clamp(min=1e-30).sqrt()
    stretch = stretch / stretch.log().mean(-1, keepdim=True).exp()
    stretch = stretch.clamp(1 / STRETCH, STRETCH)
    half = (axes * stretch[:, None]) @ axes.mT
    _, even = torch.linalg.eigh(half @ spread @ half)
    return rotation(spread.shape[-1], torch.float64, spread.device) @ even.mT @ half


def _ridged(moment: Tensor) -> Tensor:
    """With RIDGE of the mean variance in every direction, scaled to a mean of 1; a head that holds
    nothing is the identity."""
    level = moment.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    one = torch.eye(moment.shape[-1], dtype=moment.dtype)
    return torch.where(level > 0, moment / level.clamp(min=1e-30), one) + RIDGE * one


def _power(matrix: Tensor, power: float) -> Tensor:
    """Of symmetric positive matrices [H, D, D]."""
    sizes, axes = torch.linalg.eigh(matrix)
    return (axes * sizes.clamp(min=1e-12).pow(power)[:, None]) @ axes.mT


def _projections(base: Session | OpenModel) -> dict[int, Tensor]:
    """Weights [hidden, Hq D] of each layer's output projection, where it is plain and found."""
    found = {}
    for name, module in base.model.named_modules():
        parts = name.split(".")
        weight = getattr(module, "weight", None)
        numbers = [int(part) for part in parts if part.isdigit()]
        if parts[-1] in _PROJECTIONS and numbers and isinstance(weight, Tensor):
            attention = [m for m in base.spec.layers[numbers[0]].mixers if isinstance(m, Attention)]
            wide = attention and attention[0].query_heads * attention[0].value_dim
            if wide and weight.dim() == 2 and weight.shape[1] == wide:
                found[numbers[0]] = weight.detach()
    return found
