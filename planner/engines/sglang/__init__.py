"""SGLang: whether its pool holds the users, and with which flags. Read from SGLang 0.5.23's source.

No run of it stands behind these numbers but published logs (docs/vllm.md names them): the pool's
arithmetic is exact on those, what is resident beside weights is an interval. Seconds are not
predicted.
"""

from collections.abc import Sequence

import numpy as np

from ...engine import Activation, Engine, Formats, Interval, KVBytes, Slack
from ...errors import BadInput
from ...formats.configuration import Configuration
from ...formats.named import SGLANG as NAME
from ...formats.space import KVLayout
from ...hardware.gpus import Hardware
from ...memory.overhead import driver_context
from ...models.spec import Attention, LatentAttention, ModelSpec
from ...placement import Machine, Placement
from ...workload import Workload

CHUNKS = (2048, 4096, 8192, 16384)
OFFERED = ("fp8", "awq", "gptq4", "gptq8")


class Sglang(Engine):
    """See Engine."""

    name = NAME
    places = True
    several_cards = True
    serves = True

    def __init__(self, gpus: tuple[Hardware, ...] = ()) -> None:
        self._gpus = tuple(dict.fromkeys(gpus))

    def on(self, machine: Machine) -> "Sglang":
        return Sglang(machine.gpus)

    def cannot_run(self, spec: ModelSpec, hardware: Hardware | None = None) -> str | None:
        if not spec.understood:
            return f"nobody knows here whether SGLang has {spec.model_type}"
        if spec.gguf is not None:
            return "GGUF files are llama.cpp's: --engine llama.cpp"
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

    def weight_formats(self, spec: ModelSpec) -> Sequence[str]:
        return ("", *OFFERED) if spec.quantization is None else ()

    def chunks(self, workload: Workload) -> tuple[int | None, ...]:
        return CHUNKS

    def formats(
        self,
        spec: ModelSpec,
        workload: Workload,
        groups: Sequence[int | None],
        residuals: Sequence[int],
        protections: tuple[tuple[int, ...], ...],
    ) -> Formats:
        from .place import fp8_obstacle

        pairs = [("", "")]
        if not any(fp8_obstacle(gpu) for gpu in self._gpus):
            pairs.append(("fp8", "fp8"))
        rows = np.array([[0, 8 if k else 16, 8 if v else 16, 0] for k, v in pairs], dtype=np.int64)
        return Formats((KVLayout(),), ((),), rows, tuple(pairs))

    def place(
        self, spec: ModelSpec, config: Configuration, workload: Workload, machine: Machine
    ) -> Placement:
        self.check_formats(config)
        obstacle = self.cannot_run(spec)
        if obstacle is not None:
            raise BadInput(f"SGLang's pool of {spec.name} is not planned: {obstacle}", "choose one")
        from .place import place

        return place(spec, config, workload, machine)

    def kv_bytes(self, spec: ModelSpec, config: Configuration, workload: Workload) -> KVBytes:
        raise BadInput("SGLang's pool is a part of a card", "name it: --gpu H100")

    def activation(self, spec: ModelSpec, config: Configuration, workload: Workload) -> Activation:
        raise BadInput("SGLang's memory is a part of a card", "name it: --gpu H100")

    def context(self, hardware: Hardware | None) -> Interval:
        return driver_context(hardware)

    def slack(self, config: Configuration, hardware: Hardware | None) -> Slack:
        return Slack((0.0, 0.0, 0.0))


SGLANG = Sglang()
