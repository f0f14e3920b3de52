"""llama.cpp, alone or inside ollama and LM Studio: GGUF files, its own caches, its own buffers.

Sizes are those of build 11434 and newer (docs/llama_cpp.md).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ...engine import Activation, Engine, Formats, Interval, KVBytes, Slack
from ...errors import BadInput
from ...formats.configuration import Configuration
from ...formats.named import KV, names
from ...formats.named import LLAMA_CPP as NAME
from ...formats.space import Ints, KVLayout, Space
from ...hardware.gpus import Hardware
from ...models.spec import LatentAttention, ModelSpec
from ...placement import Machine, Placement
from ...workload import Workload
from ..without_graph import without_graph
from .cache_bytes import cache_bytes
from .card_overhead import UNIFIED_CONTEXT, UNKNOWN_BASE
from .command import OLLAMA_CACHES, of_original
from .kernels import without_kernel
from .parts import parts_of, run_settings, unblocked_head
from .place import place
from .run_settings import rounded

MIXES = ("BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K")
"""Types of files that people publish, of each number of bits the usual one."""
SAME = ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
MIXED = (("f16", "q8_0"), ("q8_0", "q5_1"), ("q8_0", "q5_0"), ("q8_0", "q4_0"), ("q8_0", "iq4_nl"))
CHUNKS = (128, 256, 512, 1024, 2048)


class LlamaCpp(Engine):
    """See Engine. `front`: the program that people run it in, where that is another."""

    name = NAME
    places = True
    several_cards = True

    def __init__(self, front: str = "", machine: Machine | None = None) -> None:
        self.front = front
        self.machine = machine

    def behind(self, front: str) -> "LlamaCpp":
        return LlamaCpp(front if front in ("ollama", "lmstudio") else "")

    def on(self, machine: Machine) -> "LlamaCpp":
        return LlamaCpp(self.front, machine)

    def cannot_run(self, spec: ModelSpec, hardware: Hardware | None = None) -> str | None:
        missing = without_graph(spec)
        if missing is not None:
            return missing
        if not spec.understood:
            return f"nobody knows here whether llama.cpp has {spec.model_type}"
        return None

    def refuses(self, spec: ModelSpec, hardware: Hardware | None = None) -> str | None:
        return without_graph(spec) or super().refuses(spec, hardware)

    def takes_original(self, spec: ModelSpec) -> bool:
        return of_original(spec)

    def weight_formats(self, spec: ModelSpec) -> Sequence[str]:
        if spec.gguf is not None:
            return _own_format(spec.gguf.mix)
        own = spec.quantization
        if own is not None and own.method == "mxfp4" and own.bits < 16:
            return ("mxfp4",)
        return MIXES

    def chunks(self, workload: Workload) -> tuple[int | None, ...]:
        most = rounded(workload.tokens) * workload.batch
        return tuple(c for c in CHUNKS if c <= most)

    def formats(
        self,
        spec: ModelSpec,
        workload: Workload,
        groups: Sequence[int | None],
        residuals: Sequence[int],
        protections: tuple[tuple[int, ...], ...],
    ) -> Formats:
        latent = any(isinstance(m, LatentAttention) for m, _ in spec.mixer_counts)
        pairs = [(name, name) for name in SAME] + list(() if latent else MIXED)
        if unblocked_head(spec) is not None:
            pairs = [("f16", "f16")]
        if self.machine is not None:
            pairs = [(k, v) for k, v in pairs if without_kernel(k, v, self.machine) is None]
        if self.front == "ollama":
            pairs = [(k, v) for k, v in pairs if k == v and k in OLLAMA_CACHES]
        rows = np.array([[0, _bits(k), _bits(v), 0] for k, v in pairs], dtype=np.int64)
        return Formats((KVLayout(),), ((),), rows, tuple(pairs))

    def kv_bytes(self, spec: ModelSpec, config: Configuration, workload: Workload) -> KVBytes:
        run = run_settings(spec, config, workload)
        total = cache_bytes(spec, run).total
        longer = Workload(rounded(workload.tokens) + 256 - workload.output, workload.output)
        longer = Workload(max(1, longer.context), workload.output, workload.batch)
        more = cache_bytes(spec, run_settings(spec, config, longer)).total
        steps = (rounded(longer.tokens) - rounded(workload.tokens)) or 256
        per_token = (more - total) // steps
        return KVBytes(total, per_token, total - per_token * workload.tokens)

    def activation(
        self,
        spec: ModelSpec,
        config: Configuration,
        workload: Workload,
        hardware: Hardware | None = None,
    ) -> Activation:
        parts = parts_of(spec, config, workload)
        live = sum(parts.caches) + parts.compute + parts.output
        return Activation(live, live, live, live)

    def place(
        self, spec: ModelSpec, config: Configuration, workload: Workload, machine: Machine
    ) -> Placement:
        self.check_formats(config)
        if spec.dtype == "float32":
            raise BadInput(
                "GGUF files are planned in 16 bits and less, and float32 was asked",
                "leave --dtype out",
            )
        keys, values = config.k_format or "f16", config.v_format or "f16"
        if self.front == "ollama" and (keys != values or keys not in OLLAMA_CACHES):
            raise BadInput(
                f"ollama has one type of cache for K and V, {', '.join(OLLAMA_CACHES)}, not that "
                f"of {config}",
                "write one of them twice, as -kq8_0vq8_0, or --engine llama.cpp",
            )
        why = without_kernel(keys, values, machine)
        if why is not None:
            raise BadInput(f"{why}, in {config}", "kq8_0vq8_0 and kf16vf16 have kernels everywhere")
        return place(spec, config, workload, machine)

    def context(self, hardware: Hardware | None) -> Interval:
        return UNIFIED_CONTEXT if hardware is not None and hardware.unified else UNKNOWN_BASE

    def slack(self, config: Configuration, hardware: Hardware | None) -> Slack:
        return Slack((0.0, 0.0, 0.0))

    def cache_kinds(self, spec: ModelSpec, space: Space, hardware: Hardware | None) -> Ints:
        return np.arange(len(space.layout), dtype=np.int64)


@lru_cache(maxsize=1)
def _widths() -> dict[str, int]:
    return {row.name: row.bits for row in KV}


def _bits(name: str) -> int:
    return _widths()[name]


def _own_format(mix: str) -> tuple[str, ...]:
    """The name of a file's own mix; empty where the grammar has none for it."""
    from ...formats.named import weight_format

    row = weight_format(mix)
    return (row.name,) if row is not None else ()


LLAMA_CPP = LlamaCpp()

__all__ = ["LLAMA_CPP", "LlamaCpp", "names"]
