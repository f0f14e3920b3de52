"""Normalisation: most families compute it in float32, out of place, which costs two wide copies."""

from ..forward_step import ForwardStep
from ..live_tensors import LiveTensors


def norm(live: LiveTensors, kind: str, rows: int, width: int, step: ForwardStep) -> int:
    """Take the normalised copy of `rows` rows of `width` values; the input stays alive.

    `kind`: "rms" (Llama), "rms_offset" (Gemma, scaled in float32), "cohere" (a layer norm
    written out in float32), "layer" (torch's fused layer norm), "none".
    """
    elements, element = rows * width, step.element
    if kind == "none":
        return 0
    if step.fused and kind.startswith("rms"):
        return live.take(elements * element)
    if kind == "layer":
        # native_layer_norm also returns float32 mean and inverse deviation
        out = live.take(elements * element)
        live.touch(2 * rows * 4)
        return out
    upcast = live.take(elements * 4) if element != 4 else 0
    if kind == "cohere":
        centred = live.take(elements * 4)
        live.touch(elements * 4)  # its square
        scaled = live.take(elements * 4)
        live.drop(centred, upcast)
        weighted = live.take(elements * 4)
        live.drop(scaled)
    else:
        live.touch(elements * 4)  # the square
        weighted = live.take(elements * 4)
        live.drop(upcast)
        if kind == "rms_offset":
            scaled = live.take(elements * 4)
            live.drop(weighted)
            weighted = scaled
    if element == 4:
        return weighted
    cast = live.take(elements * element)
    if kind == "rms":
        out = live.take(elements * element)  # weight * cast, while the float32 value is still named
        live.drop(weighted, cast)
        return out
    live.drop(weighted)
    return cast
