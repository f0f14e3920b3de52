"""A layer whose attention and recurrence run side by side (Falcon-H1) or in turn (Zamba).

transformers keeps keys, values and states of such a layer in one cache layer; so does this: a
packed layer and a state layer in one, each over the memory that it has alone.
"""

from torch import Tensor

from .layer_state import LayerState
from .packed_layer import PackedLayer
from .state_layer import StateLayer


class HybridLayer(StateLayer, PackedLayer):
    """See PackedLayer and StateLayer, whose arguments these are."""

    def __init__(
        self,
        state: LayerState,
        capacity: int,
        leads: bool,
        conv: Tensor,
        held: Tensor,
        whole: "HybridLayer | None" = None,
    ) -> None:
        PackedLayer.__init__(self, state, capacity, leads)
        StateLayer.__init__(self, conv, held, whole)

    get_max_length = PackedLayer.get_max_length
    reorder_cache = PackedLayer.reorder_cache
    crop = PackedLayer.crop
    is_compileable = PackedLayer.is_compileable
    is_croppable = PackedLayer.is_croppable

    def reset(self) -> None:
        PackedLayer.reset(self)
        StateLayer.reset(self)

    def row_of(self, state: LayerState, index: int) -> "HybridLayer":
        """The part of one sequence of the batch, whose keys and values are in `state`."""
        conv, held = self.memory_of(index)
        return HybridLayer(state, self.capacity, self.leads, conv, held, whole=self)
