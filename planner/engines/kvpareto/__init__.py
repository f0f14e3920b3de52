"""Our own runtime: transformers' layers over a packed cache that is allocated before prefill."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...engine import Activation, Engine, Formats, Interval, KVBytes, Slack
from ...formats.configuration import Configuration
from ...formats.space import Ints, Space
from ...hardware.gpus import Hardware
from ...memory.activation import peak
from ...memory.activation.forward_step import Attend
from ...memory.activation.kvpareto_engine import attends_in_8_bits, multiplies_in_8_bits
from ...memory.activation.workspace import EIGHT_BITS, EIGHT_DIM
from ...memory.kv_cache import growing, rates
from ...models.spec import Attention, ModelSpec, MoEFFN, Part
from ...workload import Workload
from . import configurations, overhead
from .checkpoints import as_dequantized, weights_note
from .model_types import TEXT_ALONE
from .packed_cache import packed_bytes
from .packed_cache_space import packed_table
from .rounded_rows import check_rows
from .sliding_notes import one_shot_note
from .where_runs import why_planned_only


class KVPareto(Engine):
    """See Engine."""

    name = "kvpareto"
    quantizes_rope = True
    rounds_rows = True
    recent_scans = True

    def cannot_run(self, spec: ModelSpec, hardware: Hardware | None = None) -> str | None:
        return why_planned_only(spec, hardware)

    def dequantized(self, spec: ModelSpec) -> ModelSpec:
        return as_dequantized(spec)

    def loaded(self, spec: ModelSpec) -> ModelSpec:
        spec = as_dequantized(spec)
        if spec.model_type not in TEXT_ALONE:
            return spec
        text = tuple(t for t in spec.tensors if t.part in (Part.TEXT, Part.MTP))
        return replace(spec, tensors=text, stored_weight_bytes=None)

    def notes(self, spec: ModelSpec, config: Configuration, workload: Workload) -> tuple[str, ...]:
        of_cache = one_shot_note(
            spec, config, workload, lambda one: self.kv_bytes(spec, one, workload).total
        )
        return (*weights_note(spec, config), *of_cache)

    def formats(
        self,
        spec: ModelSpec,
        workload: Workload,
        groups: Sequence[int | None],
        residuals: Sequence[int],
        protections: tuple[tuple[int, ...], ...],
    ) -> Formats:
        return configurations.formats(spec, groups, residuals, protections)

    def kv_bytes(self, spec: ModelSpec, config: Configuration, workload: Workload) -> KVBytes:
        step = math.lcm(config.block_tokens or 1, rates(spec))
        return growing(
            lambda tokens: packed_bytes(spec, config, workload, tokens), workload.tokens, step
        )

    def kv_table(self, spec: ModelSpec, space: Space, workload: Workload) -> Ints:
        return packed_table(spec, space, workload)

    def activation(
        self,
        spec: ModelSpec,
        config: Configuration,
        workload: Workload,
        hardware: Hardware | None = None,
    ) -> Activation:
        spec = as_dequantized(spec)  # the workspace is of what is packed here
        check_rows(spec, config, hardware)
        kv = self.kv_bytes(spec, config, workload).total
        return peak(
            spec,
            config,
            workload,
            Attend.PACKED,
            kv,
            recent=self.recent_scans,
            in_8_bits=attends_in_8_bits(config, hardware),
        )

    def cache_kinds(self, spec: ModelSpec, space: Space, hardware: Hardware | None) -> Ints:
        """Chunks over few bits are attended to in 8, where the card and heads are such."""
        heads = {x.head_dim for x, _ in spec.mixer_counts if isinstance(x, Attention)}
        if EIGHT_DIM not in heads or not multiplies_in_8_bits(hardware) or space.kv_formats:
            return super().cache_kinds(spec, space, hardware)
        whole = np.array([not layout.residual for layout in space.layouts])[space.layout]
        few = np.maximum(space.k_bits, space.v_bits) <= EIGHT_BITS
        kinds: Ints = (few & whole & (space.protection == 0)).astype(np.int64)
        return kinds

    def weight_kinds(self, spec: ModelSpec, weights: Sequence[int]) -> Sequence[object]:
        """Packed experts run one by one, plain ones all at once."""
        experts = any(isinstance(layer.ffn, MoEFFN) for layer in spec.layers)
        return [experts and bits < 16 for bits in weights]

    def context(self, hardware: Hardware | None) -> Interval:
        return overhead.context(hardware)

    def slack(self, config: Configuration, hardware: Hardware | None) -> Slack:
        return overhead.slack(hardware)


KVPARETO = KVPareto()
