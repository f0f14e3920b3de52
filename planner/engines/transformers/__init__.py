"""transformers as `generate` runs it: SDPA over a DynamicCache, or its QuantizedCache."""

from collections.abc import Sequence

from ...engine import Activation, Engine, Formats, Interval, KVBytes, Slack
from ...formats.configuration import Configuration
from ...formats.space import Ints, Space
from ...hardware.gpus import Hardware
from ...memory.activation import peak
from ...memory.activation.family_traits import block_traits_of
from ...memory.activation.forward_step import Attend
from ...memory.kv_cache import growing, rates
from ...models.spec import ModelSpec
from ...workload import Workload
from . import overhead, quantized_cache
from .dynamic_cache import dynamic_bytes
from .quantized_cache import quantized_bytes, quantized_growth, quantized_layout


class Transformers(Engine):
    """See Engine. `attend` computes attention over a DynamicCache, where the family allows it."""

    def __init__(self, name: str, attend: Attend) -> None:
        self.name = name
        self._attend = attend

    def formats(
        self,
        spec: ModelSpec,
        workload: Workload,
        groups: Sequence[int | None],
        residuals: Sequence[int],
        protections: tuple[tuple[int, ...], ...],
    ) -> Formats:
        return quantized_cache.formats(spec, groups, residuals)

    def kv_bytes(self, spec: ModelSpec, config: Configuration, workload: Workload) -> KVBytes:
        if not config.quantizes_kv:
            return growing(
                lambda tokens: dynamic_bytes(spec, workload.batch, tokens),
                workload.tokens,
                rates(spec),
            )
        layout = quantized_layout(spec, config)
        total = quantized_bytes(spec, layout, workload, config.chunk)
        per_token = quantized_growth(spec, layout) * workload.batch
        return KVBytes(total, per_token, total - per_token * workload.tokens)

    def activation(
        self,
        spec: ModelSpec,
        config: Configuration,
        workload: Workload,
        hardware: Hardware | None = None,
    ) -> Activation:
        kv = self.kv_bytes(spec, config, workload).total if config.quantizes_kv else 0
        return peak(spec, config, workload, self._attends(spec, config), kv)

    def cache_kinds(self, spec: ModelSpec, space: Space, hardware: Hardware | None) -> Ints:
        """A QuantizedCache is dequantized to be read."""
        kinds: Ints = ((space.k_bits < 16) | (space.v_bits < 16)).astype("int64")
        return kinds

    def context(self, hardware: Hardware | None) -> Interval:
        return overhead.context(hardware)

    def slack(self, config: Configuration, hardware: Hardware | None) -> Slack:
        return overhead.slack(config)

    def _attends(self, spec: ModelSpec, config: Configuration) -> Attend:
        if config.quantizes_kv:
            return Attend.DEQUANTIZED
        if block_traits_of(spec.decoder_type).eager_only:
            return Attend.EAGER
        return self._attend


TRANSFORMERS = Transformers("transformers", Attend.SDPA)
