"""Normalisation: most families compute it in float32, out of place, which costs two wide copies."""

from ..forward_step import Stage
from ..live_tensors import Liveness


def norm(m: Liveness, kind: str, rows: int, width: int, stage: Stage) -> int:
    """Take the normalised copy of `rows` rows of `width` values; the input stays alive.

    `kind`: "rms" (Llama), "rms_offset" (Gemma, scaled in float32), "cohere" (a layer norm
    written out in float32), "layer" (torch's fused layer norm), "none".
    """
    elements, element = rows * width, stage.element
    if kind == "none":
        return 0
    if stage.fused and kind.startswith("rms"):
        return m.take(elements * element)
    if kind == "layer":
        # native_layer_norm also returns float32 mean and inverse deviation
        out = m.take(elements * element)
        m.touch(2 * rows * 4)
        return out
    upcast = m.take(elements * 4) if element != 4 else 0
    if kind == "cohere":
        centred = m.take(elements * 4)
        m.touch(elements * 4)  # its square
        scaled = m.take(elements * 4)
        m.drop(centred, upcast)
        weighted = m.take(elements * 4)
        m.drop(scaled)
    else:
        m.touch(elements * 4)  # the square
        weighted = m.take(elements * 4)
        m.drop(upcast)
        if kind == "rms_offset":
            scaled = m.take(elements * 4)
            m.drop(weighted)
            weighted = scaled
    if element == 4:
        return weighted
    cast = m.take(elements * element)
    if kind == "rms":
        out = m.take(elements * element)  # weight * cast, while the float32 value is still named
        m.drop(weighted, cast)
        return out
    m.drop(weighted)
    return cast
