"""What a model is, for planning: every layer's kind and shape, and every weight tensor by name.

A frozen description without torch. `read_config` makes one from a Hugging Face config.json;
memory, latency, accuracy and the KV cache are computed from it alone. Names follow the field:
a *mixer* moves information between tokens (attention, linear attention, a state space), an
*FFN* works within one token.
"""

from collections import Counter
from dataclasses import field, replace
from enum import StrEnum
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

from ..light_dataclass import dataclass
from .layers import (
    FFN,
    Attention,
    CompressedAttention,
    DenseFFN,
    Indexer,
    LatentAttention,
    Layer,
    Mixer,
    MoEFFN,
    RecurrentState,
)

if TYPE_CHECKING:
    from .gguf.tensors import StoredGguf
    from .quantization.module_rules import ModuleRule

__all__ = [
    "FFN",
    "Attention",
    "Bounds",
    "CheckpointQuantization",
    "CompressedAttention",
    "DenseFFN",
    "Indexer",
    "LatentAttention",
    "Layer",
    "Mixer",
    "MoEFFN",
    "ModelSpec",
    "Part",
    "Reading",
    "RecurrentState",
    "Role",
    "TensorGroup",
]


class Role(StrEnum):
    """What a weight tensor is for; weight formats decide by it what is quantized."""

    LINEAR = "linear"  # a matrix product's weight, shape (out, in)
    EXPERT = (
        "expert"  # experts stacked in one tensor, shape (experts, out, in) or (experts, in, out)
    )
    EMBEDDING = "embedding"
    LM_HEAD = "lm_head"
    ROUTER = "router"
    NORM = "norm"
    BIAS = "bias"
    CONV = "conv"
    OTHER = "other"  # small state-space, sink, gate and scale parameters


class Part(StrEnum):
    """Which tower a tensor belongs to."""

    TEXT = "text"
    VISION = "vision"
    AUDIO = "audio"
    PROJECTOR = "projector"
    MTP = "mtp"  # extra prediction layers


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """`count` parameters of one shape whose names differ only in indices.

    `name` is transformers' parameter name with every index replaced by `*`, for example
    `model.layers.*.self_attn.q_proj.weight`. Tied tensors appear once.
    """

    name: str
    shape: tuple[int, ...]
    count: int
    role: Role
    part: Part = Part.TEXT
    dtype: str | None = None
    """Fixed storage dtype of this tensor where it is not the model's; None = the model's."""

    @property
    def parameters(self) -> int:
        return prod(self.shape) * self.count


@dataclass(frozen=True, slots=True)
class GptqCodes:
    """What a GPTQ checkpoint says of its codes beside bits and groups. `symmetric`: around their
    middle, without zeros. `missing`: fields that it does not have. `marlin`: packed for Marlin."""

    symmetric: bool
    missing: tuple[str, ...] = ()
    marlin: bool = False


@dataclass(frozen=True, slots=True)
class CheckpointQuantization:
    """How a checkpoint's weights are already stored (config.json's `quantization_config`)."""

    method: str
    bits: float
    group_size: int | None
    ignored: tuple[str, ...] = ()
    details: tuple[tuple[str, str], ...] = ()
    rules: "tuple[ModuleRule, ...]" = ()
    """Which modules are stored how, first match first; what matches nothing is not quantized."""
    decoder_only: bool = False
    """The method works through the decoder's blocks: vision and audio towers are left alone."""
    every_matrix: bool = False
    """Embeddings, the output head and routers are quantized too, where no rule says otherwise."""
    kv_cache: str = ""
    """The KV cache's format that the checkpoint was made for, in words; empty: it names none."""
    defaulted: tuple[str, ...] = ()
    """Fields that the file leaves out and whose default the bytes rest on."""
    gptq: GptqCodes | None = None
    """Of codes as GPTQ packs them."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A quantity known only within limits, and the assumption that opens them."""

    quantity: str  # "parameters", "kv_bytes_per_token" or "kv_fixed_bytes"
    low: int
    high: int
    because: str

    def __str__(self) -> str:
        names = {
            "parameters": "parameters lie",
            "kv_bytes_per_token": "bytes of KV cache a token, unquantized, lie",
            "kv_fixed_bytes": "bytes of the cache that do not grow, unquantized, lie",
        }
        return f"{names[self.quantity]} between {self.low:,} and {self.high:,}: {self.because}"


@dataclass(frozen=True, slots=True)
class Reading:
    """Another way to read a model that is not understood: its layers, its tensors, and how many
    residual streams run side by side."""

    layers: tuple[Layer, ...]
    tensors: tuple[TensorGroup, ...]
    streams: int = 1


STATEFUL_RUN = (
    "bailing_hybrid",
    "bamba",
    "falcon_h1",
    "granitemoehybrid",
    "jamba",
    "kimi_linear",
    "lfm2",
    "lfm2_moe",
    "lfm3",
    "minimax",
    "nemotron_h",
    "olmo_hybrid",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "qwen3_next",
    "zamba",
    "zamba2",
    "zaya",
)
"""Types with recurrent layers that the kvpareto runtime runs (runtime/cache/state_layer.py)."""


@dataclass(frozen=True)
class ModelSpec:
    """A whole model. `hidden` is the width of the residual stream, `vocab` the rows of the head."""

    name: str
    model_type: str
    hidden: int
    vocab: int
    max_context: int | None
    layers: tuple[Layer, ...]
    tensors: tuple[TensorGroup, ...]
    dtype: str = "bfloat16"
    tied_embeddings: bool = False
    norm: str = "rms"
    """"rms", "rms_offset" (Gemma's 1 + w), "layer", "none"."""
    logit_softcap: float | None = None
    quantization: CheckpointQuantization | None = None
    warnings: tuple[str, ...] = ()
    bounds: tuple[Bounds, ...] = ()
    stored_weight_bytes: int | None = None
    """Bytes of the checkpoint's tensors by its safetensors files or index, where at hand."""
    extra: dict[str, str] = field(default_factory=dict)
    text_type: str = ""
    """The decoder's own model_type, where the config nests it or the family reads one."""
    stored_dtype: str = ""
    """The checkpoint's dtype, where `dtype`, in which the model is run, is another."""
    readings: tuple[Reading, ...] = ()
    """Every other reading lies between these, in each of its numbers; none where the model's
    sizes are known."""
    gguf: "StoredGguf | None" = None
    """The tensors of its GGUF files, where it was read from such."""
    understood: bool = True
    """Whether a family of this version reads the model; else how it runs is not known either."""

    @property
    def parameters(self) -> int:
        return sum(group.parameters for group in self.tensors)

    @property
    def token_rows(self) -> int:
        """Tokens, from 0, that every embedding of tokens has a row for: beside the head's, those of
        tables like Gemma 3n's, which holds no images' tokens."""
        tables = [
            group.shape[0]
            for group in self.tensors
            if group.part is Part.TEXT and "embed_tokens" in group.name
        ]
        return min(self.vocab, *tables) if tables else self.vocab

    def parameters_of(self, part: Part) -> int:
        return sum(group.parameters for group in self.tensors if group.part is part)

    @cached_property
    def layer_kinds(self) -> tuple[tuple[Layer, ...], tuple[int, ...]]:
        """The distinct layers, and for every layer its number among them."""
        numbers: dict[Layer, int] = {}
        of_layer = tuple(numbers.setdefault(layer, len(numbers)) for layer in self.layers)
        return tuple(numbers), of_layer

    @cached_property
    def mixer_counts(self) -> tuple[tuple[Mixer, int], ...]:
        """Every distinct mixer and how often it occurs, layer order forgotten."""
        return tuple(Counter(m for layer in self.layers for m in layer.mixers).items())

    @cached_property
    def ends(self) -> tuple["ModelSpec", ...]:
        """The model by each of its `readings`: what holds for it holds between these."""
        return tuple(
            replace(
                self,
                layers=r.layers,
                tensors=r.tensors,
                hidden=self.hidden * r.streams,
                readings=(),
                bounds=(),
            )
            for r in self.readings
        )

    @property
    def parameter_range(self) -> tuple[int, int]:
        """Parameters at least and at most."""
        counts = [spec.parameters for spec in (self, *self.ends)]
        return min(counts), max(counts)

    @property
    def _states_run(self) -> bool:
        """Whether the runtime runs this model's recurrent layers: some attention beside them, whose
        cache counts the tokens, and a type whose tokens are held to transformers'."""
        attends = any(isinstance(m, Attention | LatentAttention) for m, _ in self.mixer_counts)
        return attends and self.decoder_type in STATEFUL_RUN

    @property
    def decoder_type(self) -> str:
        """The model_type of what is run: the decoder's own, where the config nests it."""
        return self.text_type or self.model_type

    @property
    def runnable(self) -> bool:
        """Whether the kvpareto runtime runs every layer: attention, plain, sliding, in aligned
        chunks or latent, the recurrent layers of STATEFUL_RUN, or one of each side by side."""
        return all(
            (isinstance(m, Attention) and m.indexer is None)
            or (isinstance(m, LatentAttention) and m.packed)
            or (isinstance(m, RecurrentState) and self._states_run)
            for m, _ in self.mixer_counts
        ) and all(
            len({isinstance(m, RecurrentState) for m in layer.mixers}) == len(layer.mixers)
            for layer in self.layers
        )
