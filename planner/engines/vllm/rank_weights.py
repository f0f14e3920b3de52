"""Bytes of weights that one rank holds, in whatever format: each matrix cut as vLLM cuts it.

Projections into heads and FFN are cut by their outputs, those back by their inputs, embedding and
head by rows of a vocabulary padded to a multiple of 64; norms, routers and projections into a
latent are copies on every rank, and so are KV heads beyond as many ranks as there are. Extra
prediction layers (MTP) are not loaded. A stage has its own layers; the first the embedding, the
last the head (and the embedding too, where it is tied).
"""

import re
from collections import defaultdict
from functools import lru_cache

from ...errors import BadInput
from ...formats.dtypes import DTYPE_BYTES
from ...formats.weight_format import MatrixFormat
from ...light_dataclass import dataclass
from ...memory.weights import (
    available_weight_bits,
    checkpoint_storage,
    layers_of,
    matrices_of,
    stacked,
    weight_bytes,
)
from ...models.spec import Attention, ModelSpec, Part, Role, TensorGroup
from ...models.spec_key import SpecKey
from .rank import stage_layers
from .settings import ServeSettings

VOCABULARY = 64
"""Rows of the embedding are padded to a multiple of this."""
FORMATS = {
    "fp8": MatrixFormat("FP8 per tensor", 8, 0, 0, 4),
    "int8": MatrixFormat("int8 by row", 8, 1, 0, 4),
    # As a run of 0.26.0 held it: 68.6 bytes for 128 weights, so scales take four bytes.
    "awq": MatrixFormat("AWQ", 4, 1, 128, 4, zero_bits=4, word_bytes=4, input_multiple=128),
    "gptq4": MatrixFormat("GPTQ 4-bit", 4, 1, 128, 2, word_bytes=4, input_multiple=128),
    "gptq8": MatrixFormat("GPTQ 8-bit", 8, 1, 128, 2, word_bytes=4, input_multiple=128),
    "nvfp4": MatrixFormat("NVFP4", 4, 1, 16, 1, constant_bytes=8, input_multiple=16),
    "mxfp4": MatrixFormat("MXFP4", 4, 1, 32, 1, input_multiple=32),
    "nf4": MatrixFormat("NF4", 4, 1, 64, 4, input_multiple=64),
}
"""Formats that a 16-bit checkpoint can be had in, as vLLM holds them."""
OF_EXPERTS = {"mxfp4"}
"""Those that take experts alone."""
_COPIES = re.compile(r"kv_a_proj|q_a_proj|\bwk\b|gate$|shared_expert_gate|router|indexer")
_ROWS_CUT = re.compile(
    r"(o_proj|out_proj|down_proj|c_proj|dense_4h_to_h|\bdense|\bwo|\bw2|fc2|o_b_proj)$"
)
_KV = re.compile(r"(k_proj|v_proj|kv_proj)$")
_FUSED = re.compile(r"(qkv_proj|wqkv|Wqkv|query_key_value|c_attn)$")


@dataclass(frozen=True, slots=True)
class RankWeights:
    """Bytes of each pipeline stage's rank, and of the whole model once."""

    stages: tuple[int, ...]
    whole: int
    misfits: tuple[str, ...]
    """Matrices that the format cannot hold and that therefore stay in 16 bits."""


def rank_weights(spec: ModelSpec, settings: ServeSettings) -> RankWeights:
    """Raises BadInput for weights that the model cannot have, and for cuts through a group."""
    experts = settings.tensor_parallel * settings.data_parallel if settings.expert_parallel else 1
    sizes = settings.tensor_parallel, settings.pipeline_parallel, experts
    return _rank_weights(SpecKey(spec), settings.quantization, *sizes)


def alike_stages(spec: ModelSpec, settings: ServeSettings) -> tuple[int, ...]:
    """For each pipeline stage the first one with the same layers and bytes. Raises BadInput as
    rank_weights does."""
    if settings.pipeline_parallel == 1:
        return (0,)
    sizes = rank_weights(spec, settings).stages
    return _alike_stages(SpecKey(spec), sizes)


@lru_cache(maxsize=256)
def _alike_stages(key: SpecKey, sizes: tuple[int, ...]) -> tuple[int, ...]:
    layers = key.spec.layers
    first: dict[object, int] = {}
    return tuple(
        first.setdefault((size, tuple(layers[i] for i in kept)), stage)
        for stage, (size, kept) in enumerate(
            zip(sizes, stage_layers(len(layers), len(sizes)), strict=True)
        )
    )


@lru_cache(maxsize=256)
def _rank_weights(key: SpecKey, name: str, tensor: int, pipeline: int, experts: int) -> RankWeights:
    spec = key.spec
    ranks = [_Rank(spec, name, tensor, experts)]
    alone = ranks[0] if tensor == experts == 1 else _Rank(spec, name, 1, 1)
    one = ranks[0]
    beyond = _beyond(spec, name, alone.total)
    share = one.total / max(1, alone.total)
    stages = []
    for number, kept in enumerate(stage_layers(len(spec.layers), pipeline)):
        last = number == pipeline - 1
        size = sum(one.by_layer[i] for i in kept)
        size += (one.embedding if number == 0 or (last and spec.tied_embeddings) else 0) + (
            one.head if last else 0
        )
        size += one.other + int(beyond * share * len(kept) / len(spec.layers))
        stages.append(size)
    return RankWeights(tuple(stages), alone.total + beyond, tuple(dict.fromkeys(one.misfits)))


def _beyond(spec: ModelSpec, name: str, found: int) -> int:
    """What a checkpoint's own files hold beyond its tensors as they are read here."""
    if name or spec.stored_weight_bytes is None:
        return 0
    own = available_weight_bits(spec)[0]
    files = weight_bytes(spec, own)
    mtp = files.parts.get(Part.MTP, 0)
    beyond = spec.stored_weight_bytes - mtp - found
    return beyond if 0 < beyond < 0.2 * found else 0


class _Rank:
    """Sums over the tensors of one rank: of each layer, the embedding, the head, the rest."""

    def __init__(self, spec: ModelSpec, name: str, tensor: int, experts: int) -> None:
        self.spec, self.name, self.tensor, self.experts = spec, name, tensor, experts
        self.by_layer: dict[int, int] = defaultdict(int)
        self.embedding = self.head = self.other = 0
        self.misfits: list[str] = []
        for group in spec.tensors:
            if group.part is not Part.MTP:
                self._add(group)

    @property
    def total(self) -> int:
        return sum(self.by_layer.values()) + self.embedding + self.head + self.other

    def _add(self, group: TensorGroup) -> None:
        if group.role in (Role.EMBEDDING, Role.LM_HEAD) and group.part is Part.TEXT:
            rows = -(-group.shape[0] // VOCABULARY) * VOCABULARY // self.tensor
            size = rows * group.parameters // group.count // group.shape[0] * self._dtype(group)
            if group.role is Role.LM_HEAD:
                self.head += size * group.count
            else:
                self.embedding += size * group.count
            return
        size = self._group_bytes(group)
        layers = layers_of(self.spec, group)
        if group.part is not Part.TEXT or ".*." not in group.name or not layers:
            self.other += size
            return
        for layer in layers:
            self.by_layer[layer] += size // len(layers)

    def _group_bytes(self, group: TensorGroup) -> int:
        total = 0
        for stored, count in self._storage(group):
            matrices = matrices_of(self.spec, group)
            cut = [self._cut(group, rows, columns) for rows, columns in matrices]
            if stored is not None and not all(stored.fits(*m) for m in matrices):
                self.misfits.append(group.name)
                stored = None
            if stored is None:
                whole = sum(rows * columns for rows, columns in matrices)
                part = sum(rows * columns for rows, columns in cut) / max(1, whole)
                each = group.parameters // group.count * self._dtype(group)
                total += int(each * part * self._experts_share(group)) * count
                continue
            self._check_cut(group, stored, matrices, cut)
            held = sum(stored.nbytes(*m) for m in cut) * stacked(group)
            total += int(held * self._experts_share(group)) * count
        return total

    def _storage(self, group: TensorGroup) -> list[tuple[MatrixFormat | None, int]]:
        if self.spec.quantization is not None:
            return list(checkpoint_storage(self.spec, group))
        roles = (Role.EXPERT,) if self.name in OF_EXPERTS else (Role.LINEAR, Role.EXPERT)
        if not self.name or group.part is not Part.TEXT or group.role not in roles:
            return [(None, group.count)]
        return [(FORMATS[self.name], group.count)]

    def _dtype(self, group: TensorGroup) -> int:
        return DTYPE_BYTES[group.dtype or self.spec.dtype]

    def _experts_share(self, group: TensorGroup) -> float:
        """The part of whole experts that a rank has."""
        if group.role is not Role.EXPERT or self.experts == 1:
            return 1.0
        count = group.shape[0]
        return -(-count // self.experts) / count

    def _cut(self, group: TensorGroup, rows: int, columns: int) -> tuple[int, int]:
        """(outputs, inputs) of a rank's part of a matrix."""
        name = group.name.removesuffix(".weight").removesuffix(".bias")
        if self.tensor == 1 or group.role in (Role.NORM, Role.ROUTER) or _COPIES.search(name):
            return rows, columns
        if group.role is Role.EXPERT and self.experts > 1:
            return rows, columns
        if _ROWS_CUT.search(name):
            return (
                (rows, columns) if group.role is Role.BIAS else (rows, -(-columns // self.tensor))
            )
        if _KV.search(name):
            return -(-rows // min(self.tensor, self._kv_heads())), columns
        if _FUSED.search(name):
            return int(rows * self._fused_share()), columns
        return -(-rows // self.tensor), columns

    def _kv_heads(self) -> int:
        heads = [m.kv_heads for m, _ in self.spec.mixer_counts if isinstance(m, Attention)]
        return max(heads, default=self.tensor)

    def _fused_share(self) -> float:
        """The part of a fused projection of queries, keys and values."""
        for mixer, _ in self.spec.mixer_counts:
            if isinstance(mixer, Attention):
                both = 2 * mixer.kv_heads
                here = mixer.query_heads / self.tensor + 2 * max(1, mixer.kv_heads // self.tensor)
                return here / (mixer.query_heads + both)
        return 1 / self.tensor

    def _check_cut(
        self,
        group: TensorGroup,
        stored: MatrixFormat,
        matrices: list[tuple[int, int]],
        cut: list[tuple[int, int]],
    ) -> None:
        """Raises BadInput where a rank's part would split a group that shares a scale."""
        for (rows, columns), (some_rows, some_columns) in zip(matrices, cut, strict=True):
            for whole, part, tile in (
                (rows, some_rows, stored.tile_rows),
                (columns, some_columns, stored.tile_columns),
            ):
                if part != whole and tile > 1 and part % tile:
                    leaf = group.name.removesuffix(".weight").rsplit(".", 1)[-1]
                    raise BadInput(
                        f"--tensor-parallel-size {self.tensor} leaves {part} of {whole} channels "
                        f"of {leaf} to a card, which is no multiple of {stored.name}'s {tile}",
                        "take a smaller size, --enable-expert-parallel, or weights in 16 bits",
                    )
