"""vLLM: whether it starts, for how many users, how fast, with which flags. Rules of vLLM 0.26.0.

The sum is the engine's own (start.py); a configuration is a weight format, a cache dtype and
max_num_batched_tokens, its prefill chunk. place.py lays it over one card or several.
"""

from collections.abc import Sequence

import numpy as np

from ...engine import Activation, Engine, Formats, Interval, KVBytes, Slack
from ...errors import BadInput
from ...formats.configuration import Configuration
from ...formats.named import VLLM as NAME
from ...formats.named import kv_format
from ...formats.space import KVLayout
from ...hardware.gpus import Hardware
from ...memory.overhead import driver_context
from ...models.spec import CompressedAttention, LatentAttention, ModelSpec
from ...placement import Machine, Placement
from ...workload import Workload

CHUNKS = (2048, 4096, 8192, 16384)
OFFERED = ("fp8", "awq", "gptq4", "gptq8", "nvfp4")
"""Formats that a 16-bit model can be had in, beside 16 bits: fp8 is made at the start."""
DTYPES = (
    "fp8",
    "fp8_per_token_head",
    "int8_per_token_head",
    "int4_per_token_head",
    "nvfp4",
)


class Vllm(Engine):
    """See Engine."""

    name = NAME
    places = True
    several_cards = True
    serves = True

    def __init__(self, gpus: tuple[Hardware, ...] = ()) -> None:
        self._gpus = tuple(dict.fromkeys(gpus))

    def on(self, machine: Machine) -> "Vllm":
        return Vllm(machine.gpus)

    def cannot_run(self, spec: ModelSpec, hardware: Hardware | None = None) -> str | None:
        if any(isinstance(m, CompressedAttention) for m, _ in spec.mixer_counts):
            return f"caches of {spec.model_type}'s compressed attention are not planned"
        if not spec.understood:
            return f"nobody knows here whether vLLM has {spec.model_type}"
        if spec.gguf is not None:
            return "GGUF files are llama.cpp's: --engine llama.cpp"
        return None

    def weight_formats(self, spec: ModelSpec) -> Sequence[str]:
        if spec.quantization is not None:
            return ()
        from .rules import weight_obstacle

        offered = (n for n in OFFERED if not any(weight_obstacle(n, gpu) for gpu in self._gpus))
        return ("", *offered)

    def chunks(self, workload: Workload) -> tuple[int | None, ...]:
        return tuple(c for c in CHUNKS if c >= workload.batch) or (CHUNKS[-1],)

    def formats(
        self,
        spec: ModelSpec,
        workload: Workload,
        groups: Sequence[int | None],
        residuals: Sequence[int],
        protections: tuple[tuple[int, ...], ...],
    ) -> Formats:
        from .rules import cache_obstacle

        kept = [n for n in DTYPES if not any(cache_obstacle(spec, n, gpu) for gpu in self._gpus)]
        if any(isinstance(m, LatentAttention) for m, _ in spec.mixer_counts):
            kept = [name for name in kept if name == "fp8"]
        pairs = [("", ""), *((name, name) for name in kept)]
        rows = np.array([[0, _bits(k), _bits(v), 0] for k, v in pairs], dtype=np.int64)
        return Formats((KVLayout(),), ((),), rows, tuple(pairs))

    def place(
        self, spec: ModelSpec, config: Configuration, workload: Workload, machine: Machine
    ) -> Placement:
        self.check_formats(config)
        from .place import place

        return place(spec, config, workload, machine)

    def kv_bytes(self, spec: ModelSpec, config: Configuration, workload: Workload) -> KVBytes:
        raise BadInput("vLLM's cache is a part of a card", "name it: --gpu H100")

    def activation(self, spec: ModelSpec, config: Configuration, workload: Workload) -> Activation:
        raise BadInput("vLLM's step is profiled on a card", "name it: --gpu H100")

    def context(self, hardware: Hardware | None) -> Interval:
        return driver_context(hardware)

    def slack(self, config: Configuration, hardware: Hardware | None) -> Slack:
        return Slack((0.0, 0.0, 0.0))


def _bits(name: str) -> int:
    row = kv_format(name) if name else None
    return row.bits if row is not None else 16


VLLM = Vllm()
