"""How much each layer's keys, and each layer's values, bear to be quantized: in one pass.

The rows of a batch are copies of one text. The first is left as it is; in each of the others the
keys or the values of one layer, and of no other, are rounded to BITS and back before they are
cached. So one forward pass of 2 L + 1 rows says for each of L layers how far the distribution of
the next token moves (KL), through all the layers behind it: an error of a layer's attention alone
would not tell whether anything later depends on it. The pass is cut into groups of LAYERS_AT_ONCE
layers, so that memory does not grow with depth; each group has the undisturbed row.

Cost: 2 L tokens for each token of the text, and about (2 + 1 / LAYERS_AT_ONCE) L in all: for 32
layers and two windows of 512 tokens 70,000 tokens of prefill, as much as two prompts of 35,000.
What is cached is the runtime's own unquantized cache and its own attention, so windows, sinks and
shared layers are as in use.
"""

import torch
from torch import Tensor

from ...planner.formats.configuration import Configuration
from ...planner.formats.kv_format import KVFormat, SideFormat
from ...runtime import Session
from ...runtime.attention import PackedKV
from ...runtime.cache.kv_cache import PackedLayer
from ...runtime.cache.quantize import dequantize, quantize
from ...runtime.failures import is_out_of_memory
from ..execution.loaded_model import OpenModel
from .divergence import compare
from .layer_sensitivity import Sensitivity

PROBED = Configuration(k_bits=4, v_bits=4)
"""The format that is tried: 4 bits, one scale for a token and head. It is the one that outlier
channels hurt most, at the bits that are worth a choice."""
TOKENS = 512  # of a window
POSITIONS = 64
"""Positions of a window whose distributions are compared."""
LAYERS_AT_ONCE = 8
"""Layers of a pass, each with a row for its keys and one for its values: what bounds memory."""


def probe_layers(base: Session | OpenModel, windows: Tensor) -> Sensitivity:
    """Probe the model of `base` on token windows [N, T]; see the module.

    Where memory runs out the groups of layers are halved; raises what the allocator raised where
    one layer at a time is too many.
    """
    at_once = LAYERS_AT_ONCE
    while True:
        try:
            return _probe(base, windows, at_once)
        except Exception as error:
            if at_once == 1 or not is_out_of_memory(error):
                raise
        if base.device.type == "cuda":
            torch.cuda.empty_cache()
        at_once //= 2


def _probe(base: Session | OpenModel, windows: Tensor, at_once: int) -> Sensitivity:
    count, length = windows.shape
    places = torch.linspace(0, length - 2, min(POSITIONS, length - 1)).round().long()
    at_once = min(at_once, len(base.spec.layers))
    rows = 2 * at_once + 1
    with Session(
        base.model, base.spec, Configuration(), tokens=length, batch=rows, graphs=False
    ) as session:
        probed = [
            (index, _DisturbedLayer(layer, KVFormat.of(PROBED, index)))
            for index, layer in enumerate(session.cache.layers)
            if isinstance(layer, PackedLayer)
        ]
        for index, layer in probed:
            session.cache.layers[index] = layer
        costs = torch.zeros(2, len(session.cache.layers), dtype=torch.float64)
        for start in range(0, len(probed), at_once):
            group = probed[start : start + at_once]
            for row, (_, layer) in enumerate(group):
                layer.rows = 2 * row + 1, 2 * row + 2
            for window in windows:
                moved = _moved(session, window.expand(rows, -1), places)
                for row, (index, _) in enumerate(group):
                    costs[:, index] += moved[2 * row + 1 : 2 * row + 3] / count
            for _, layer in group:
                layer.rows = None
    keys, values = costs.tolist()
    return Sensitivity(tuple(keys), tuple(values))


def _moved(session: Session, ids: Tensor, places: Tensor) -> Tensor:
    """Mean KL from the first row's distributions to each row's, at `places`: float64 [B]."""
    targets = ids[:, places + 1].to(session.device)
    (logits,) = session.logits(ids, places, [ids.shape[1]])
    return compare(logits[:1].expand_as(logits), logits, targets)[0].mean(dim=1).cpu()


class _DisturbedLayer(PackedLayer):
    """A layer of an unquantized cache in which one row's keys and another's values are rounded.

    `rows` are the two; None leaves every row as it is.
    """

    def __init__(self, layer: PackedLayer, form: KVFormat) -> None:
        super().__init__(layer.state, layer.capacity, layer.leads)
        self.form = form
        self.rows: tuple[int, int] | None = None

    def update(  # type: ignore[override]
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[PackedKV, PackedKV]:
        if self.rows is not None:
            key_states = _rounded(key_states, self.rows[0], self.form.key)
            value_states = _rounded(value_states, self.rows[1], self.form.value)
        return super().update(key_states, value_states)


def _rounded(x: Tensor, row: int, form: SideFormat) -> Tensor:
    """[B, H, n, D] with one row as it would come back from a quantized cache."""
    codes, pairs = quantize(x[row : row + 1], form)
    rounded = x.clone()
    rounded[row] = dequantize(codes, pairs, form)[0].to(x.dtype)
    return rounded
