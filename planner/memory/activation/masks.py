"""When transformers writes an attention mask out, and what it costs.

SDPA needs none where its `is_causal` flag says it all: a first pass over an empty cache, or a
single new token. A later chunk, or a window that has been reached, needs booleans of new x seen
tokens; eager attention always adds a mask in the model's dtype. (transformers.masking_utils.)
"""

from collections.abc import Iterable

from ...models.spec import Attention, LatentAttention
from .cache import stored_after
from .forward_step import Attend, ForwardStep
from .live_tensors import LiveTensors

IDLE = 0
"""The window of sliding layers that a model has none of; its mask spans the full layers' cache."""


def needs_mask(window: int | None, step: ForwardStep) -> bool:
    """Whether attention with this reach (None: full) gets a written mask."""
    if step.attend is Attend.PACKED:
        return False  # its kernels know positions and windows
    if step.attend is Attend.EAGER or (step.traits.always_masked and step.new > 1):
        return True
    if window == IDLE:
        return True
    if window is not None and stored_after(window, step) >= window:
        return True
    return step.new > 1 and step.past > 0


def reach(mixer: Attention | LatentAttention) -> int | None:
    return (mixer.window or mixer.local_chunk) if isinstance(mixer, Attention) else None


def take_masks(
    live: LiveTensors, mixers: Iterable[Attention | LatentAttention], step: ForwardStep
) -> int:
    """Take one mask for each kind of reach among the layers; returns their bytes."""
    held = 0
    windows = {reach(mixer) for mixer in mixers}
    if step.traits.idle_window_mask and windows == {None}:
        windows.add(IDLE)
    for window in windows:
        if not needs_mask(window, step):
            continue
        seen = step.total if window == IDLE else stored_after(window, step)
        entries = step.new * seen
        booleans = live.take(entries)
        if window is not None:
            live.touch(2 * entries)  # causal and window are made apart and joined by `&`
        if step.attend is Attend.EAGER:
            held += live.take(step.batch * entries * step.element)
            live.drop(booleans)
        else:
            held += booleans
    return held
