"""SGLang: whether its pool holds the users, and with which flags. Read from SGLang 0.5.23's source.

No run of it stands behind these numbers but published logs (docs/vllm.md names them): the pool's
arithmetic is exact on those, what is resident beside weights is an interval. Seconds are not
predicted.
"""

from collections.abc import Sequence

from ...errors import BadInput
from ...formats.configuration import Configuration
from ...formats.named import SGLANG as NAME
from ...models.spec import Attention, LatentAttention, ModelSpec
from ...placement import Machine, Placement
from ...workload import Workload
from ..server_engine import ServerEngine


class Sglang(ServerEngine):
    """See Engine."""

    name, title = NAME, "SGLang"
    offered = ("fp8", "awq", "gptq4", "gptq8")

    def obstacle(self, spec: ModelSpec) -> str | None:
        for mixer, _ in spec.mixer_counts:
            plain = isinstance(mixer, Attention) and not (
                mixer.window or mixer.local_chunk or mixer.indexer
            )
            latent = isinstance(mixer, LatentAttention) and mixer.indexer is None
            if not plain and not latent:
                return (
                    "pools of windows, states and indexers are sized by rules that are not planned "
                    "here; --engine vllm plans windows and states"
                )
        return None

    def caches(self, spec: ModelSpec) -> Sequence[str]:
        from .place import fp8_obstacle

        return ("",) if any(fp8_obstacle(gpu) for gpu in self._gpus) else ("", "fp8")

    def place(
        self, spec: ModelSpec, config: Configuration, workload: Workload, machine: Machine
    ) -> Placement:
        self.check_formats(config)
        obstacle = self.cannot_run(spec)
        if obstacle is not None:
            raise BadInput(
                f"sglang cannot be planned for {spec.name}: {obstacle}",
                "without --engine the plan is for kvpareto's own runtime",
            )
        from .place import place

        return place(spec, config, workload, machine)


SGLANG = Sglang()
