"""The packed KV cache as transformers sees it: one preallocated layer state for each layer.

Built from the planner's model description and a configuration, so that its buffers are the
planner's KVFormat to the byte. Keys and values are appended in place; `update` hands the
model's attention a handle on the state instead of tensors (see attention.py).
"""

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from ...planner.engines.kvpareto.packed_cache import check_latents
from ...planner.engines.kvpareto.rounded_rows import check_rows
from ...planner.errors import BadInput, NothingFits
from ...planner.formats.configuration import Configuration
from ...planner.formats.kv_format import KVFormat
from ...planner.models.spec import ModelSpec
from ...planner.units import format_bytes
from ...planner.workload import Workload
from ..failures import is_out_of_memory
from .affine import Maps, fill_maps, find_maps
from .hybrid_layer import HybridLayer
from .layer_shape import LayerShape, check_smoothing, layer_shape, state_of
from .layer_state import Clock, LayerState
from .packed_layer import EmptyLayer, PackedLayer, check_room
from .state_layer import StateLayer


class PackedCache(Cache):
    """Packed keys and values of all layers for `tokens` tokens of `batch` sequences.

    `spec` is the model as the planner reads it. A layer with a sliding window takes appends as
    long as the configuration's largest chunk.
    Raises BadInput for layers that are no KV cache, NothingFits when memory runs out.
    """

    def __init__(
        self,
        spec: ModelSpec,
        config: Configuration,
        *,
        tokens: int,
        batch: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        kernels: bool = True,
        maps: Maps | None = None,
    ) -> None:
        """`maps` are those of a configuration with +affine; None: what `calibrate` learnt."""
        where = torch.device(device)
        half = dtype if dtype == torch.float16 else torch.bfloat16
        shapes = [
            layer_shape(layer, index, tokens, spec.decoder_type)
            for index, layer in enumerate(spec.layers)
        ]
        check_latents(spec, config)
        check_rows(spec, config)
        _check_card(config, where, dtype)
        check_smoothing(spec, config)
        if config.affine and maps is None:
            maps = find_maps(spec)
        self.clock = Clock(batch, where)
        self.capacity = tokens
        layers: list[PackedLayer | EmptyLayer | StateLayer] = []
        leads = True
        try:
            for index, shape in enumerate(shapes):
                recurrent = state_of(spec.layers[index], spec.decoder_type)
                memory = None
                if recurrent is not None:
                    memory = StateLayer.memory(recurrent, batch, dtype, where)
                if shape is None:
                    layers.append(EmptyLayer() if memory is None else StateLayer(*memory))
                    continue
                state = self._buffers(config, index, shape, half, kernels)
                if maps is not None:
                    fill_maps(state, maps, index)
                if memory is None:
                    layers.append(PackedLayer(state, tokens, leads))
                else:
                    layers.append(HybridLayer(state, tokens, leads, *memory))
                leads = False
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            held = sum(layer.state.nbytes for layer in layers if isinstance(layer, PackedLayer))
            done = f"{len(layers)} of {len(shapes)} layers"
            layers.clear()
            raise NothingFits(
                f"the KV cache of {tokens} tokens does not fit: memory ran out "
                f"after {format_bytes(held)} for {done}",
                "fewer K/V bits, a shorter context or a smaller batch",
            ) from error
        super().__init__(layers=layers)  # type: ignore[arg-type]

    def _buffers(
        self,
        config: Configuration,
        index: int,
        shape: LayerShape,
        dtype: torch.dtype,
        kernels: bool,
    ) -> LayerState:
        """Empty buffers of layer `index`; `dtype` is that of what is not packed."""
        form = KVFormat.of(config, index)
        if shape.latent:
            form = form.of_latent(config.rope_bits)
        return LayerState.allocate(
            form,
            batch=len(self.clock.starts),
            heads=shape.heads,
            key_dim=shape.key_dim,
            value_dim=shape.value_dim,
            tokens=form.capacity(shape.window, self.capacity, config.largest_chunk),
            window=shape.window,
            clock=self.clock,
            dtype=dtype,
            rotated=config.rotation,
            kernels=kernels,
            aligned=shape.aligned,
            latent=shape.latent,
        )

    @property
    def states(self) -> list[LayerState]:
        return [layer.state for layer in self.layers if isinstance(layer, PackedLayer)]

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, equal to the planner's `kv_bytes`."""
        recurrent = (layer.nbytes for layer in self.layers if isinstance(layer, StateLayer))
        return sum(state.nbytes for state in self.states) + sum(recurrent)

    @property
    def recurrent(self) -> bool:
        """Whether a layer carries a state from token to token."""
        return any(isinstance(layer, StateLayer) for layer in self.layers)

    def check_room(self, tokens: int) -> None:
        """Raise BadInput where `tokens` more do not fit."""
        check_room(self.clock, tokens, self.capacity)

    def pad_left(self, starts: Tensor) -> None:
        """Say how many padding tokens each sequence begins with, int [B]; before any append."""
        if self.clock.host or (starts.shape[0] == 1 and bool(starts.any())):
            raise BadInput(
                "padding is set on an empty cache of several sequences",
                "reset the cache first, and drop the padding of a single sequence",
            )
        if self.recurrent and bool(starts.any()):
            raise BadInput(
                "recurrent layers would read the padding of the shorter prompts",
                "prompts of one length, or Session.queue (`kvpareto run --batch`)",
            )
        self.clock.begin(starts.tolist())

    def get_linear_cache(self, layer_idx: int) -> Tensor | None:
        """MiniMax's name for a recurrent state; None where no token has come yet."""
        return self.get_recurrent_state(layer_idx)

    def set_linear_cache(self, layer_idx: int, state: Tensor) -> None:
        self.layers[layer_idx].keep(state)  # type: ignore[union-attr]

    def reset(self) -> None:
        self.clock.reset()
        super().reset()

    def get_seq_length(self, layer_idx: int = 0) -> int | Tensor:  # type: ignore[override]
        """Tokens held. A layer that asks for itself (Llama 4's) has not appended yet, though the
        clock has moved: it gets what was held before this pass, int32 [1] on the device."""
        if layer_idx == 0:
            return self.clock.host
        return self.clock.device - self.clock.appending


def check_cache(
    spec: ModelSpec, config: Configuration, work: Workload, device: torch.device
) -> None:
    """Raise BadInput as a session on `device` would of a model with `spec`'s dtype, whatever the
    cache takes: buffers on the meta device have shapes and no memory."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    check_16_bits(device, dtype)
    _check_card(config, device, dtype)
    PackedCache(spec, config, tokens=work.tokens, batch=work.batch, device="meta", dtype=dtype)


def check_16_bits(device: torch.device, dtype: torch.dtype) -> None:
    """Raise BadInput for a dtype that the GPU kernels do not run."""
    if device.type == "cuda" and dtype.itemsize != 2:
        raise BadInput(
            f"the GPU kernels run 16-bit models, not {dtype}",
            "convert it with model.to(torch.bfloat16)",
        )


def _check_card(config: Configuration, device: torch.device, dtype: torch.dtype) -> None:
    """Raise BadInput where a GPU has no products with activations in 8 bits (check_rows knows what
    is planned, this what is here)."""
    if config.activation_bits == 16 or device.type != "cuda":
        return
    if torch.cuda.get_device_capability(device) != (9, 0) or dtype != torch.bfloat16:
        raise BadInput(
            f"8-bit activations run on Hopper in bfloat16, not on {torch.cuda.get_device_name()} "
            f"in {str(dtype).removeprefix('torch.')}",
            f"write w{config.weight_bits}a16",
        )
