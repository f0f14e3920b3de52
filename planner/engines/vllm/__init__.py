"""vLLM: whether it starts, for how many users, how fast, with which flags. Rules of vLLM 0.26.0.

The sum is the engine's own (start.py); a configuration is a weight format, a cache dtype and
max_num_batched_tokens, its prefill chunk. place.py lays it over one card or several.
"""

from collections.abc import Sequence

from ...errors import BadInput
from ...formats.configuration import Configuration
from ...formats.named import VLLM as NAME
from ...models.spec import CompressedAttention, LatentAttention, ModelSpec
from ...placement import Machine, Placement
from ...workload import Workload
from ..server_engine import CHUNKS, ServerEngine

DTYPES = (
    "fp8",
    "fp8_per_token_head",
    "int8_per_token_head",
    "int4_per_token_head",
    "nvfp4",
)


class Vllm(ServerEngine):
    """See Engine. fp8 weights are made at the start, the others are checkpoints of their own.
    Behind the front `vllm-plugin` its attention is this project's (plugin.py)."""

    name, title = NAME, "vLLM"
    offered = ("fp8", "awq", "gptq4", "gptq8", "nvfp4")

    def obstacle(self, spec: ModelSpec) -> str | None:
        if any(isinstance(m, CompressedAttention) for m, _ in spec.mixer_counts):
            return f"caches of {spec.model_type}'s compressed attention are not planned"
        if self.front:
            from .plugin import model_obstacle

            return model_obstacle(spec)
        return None

    def behind(self, front: str) -> "Vllm":
        return Vllm(self._gpus, front)

    def weight_formats(self, spec: ModelSpec) -> Sequence[str]:
        from .rules import weight_obstacle

        names = super().weight_formats(spec)
        return tuple(n for n in names if not any(weight_obstacle(n, g) for g in self._gpus))

    def chunks(self, workload: Workload) -> tuple[int | None, ...]:
        return tuple(c for c in CHUNKS if c >= workload.batch) or (CHUNKS[-1],)

    def caches(self, spec: ModelSpec) -> Sequence[str]:
        from .rules import cache_obstacle

        latent = any(isinstance(m, LatentAttention) for m, _ in spec.mixer_counts)
        names = ("fp8",) if latent else DTYPES
        kept = [n for n in names if not any(cache_obstacle(spec, n, gpu) for gpu in self._gpus)]
        if self.front:
            from .plugin import cache_obstacle as plugin_obstacle

            ours = [name for name in kept if plugin_obstacle(spec, name) is None]
            if not ours:
                raise self._no_cache_of_the_plugin(spec)
            return ours
        return ["", *kept]

    def _no_cache_of_the_plugin(self, spec: ModelSpec) -> BadInput:
        from .plugin import CODE_BITS
        from .rules import cache_obstacle

        reasons = [cache_obstacle(spec, name, gpu) for gpu in self._gpus for name in CODE_BITS]
        why = next((reason for reason in reasons if reason), f"none is kept of {spec.model_type}")
        cards = " and ".join(dict.fromkeys(gpu.name for gpu in self._gpus))
        return BadInput(
            f"the plugin keeps no cache on {cards}: {why}", "--engine vllm plans vLLM by itself"
        )

    def place(
        self, spec: ModelSpec, config: Configuration, workload: Workload, machine: Machine
    ) -> Placement:
        self.check_formats(config)
        self.check_stored(spec)
        from .place import place

        return place(spec, config, workload, machine, plugin=bool(self.front))

    def needed(
        self, spec: ModelSpec, config: Configuration, workload: Workload, machine: Machine
    ) -> int:
        self.check_formats(config)
        self.check_stored(spec)
        from .place import candidates

        found = candidates(spec, config, workload, machine, plugin=bool(self.front))
        return min(one.needed for one in found)


VLLM = Vllm()
