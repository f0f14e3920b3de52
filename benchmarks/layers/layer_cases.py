"""What is run of models with other layers than plain attention: model, configuration, length."""

from dataclasses import dataclass
from typing import Any

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.workload import Workload

OUTPUT = 24

CASES: tuple[tuple[str, str, int, int], ...] = (
    # (model, configuration, context, batch)
    ("deepseek-v2-lite", "w4a16-k4v4-g64+pc1024", 16384, 1),
    ("deepseek-v2-lite", "w4a16-k8v8-g64+rope8+pc4096", 30000, 1),
    ("deepseek-v2-lite", "w4a16-k16v16+pc512", 8192, 4),
    ("granite-4.0-h-micro", "w16a16-k8v8-g64+pc512", 8192, 1),
    ("granite-4.0-h-micro", "w16a16-k4v4-g64+pc2048", 12000, 1),
    ("glm-4.7-flash", "w8a16-k8v8-g64+pc1024", 16384, 1),
    ("glm-4.7-flash", "w8a16-k4v4-g64+pc2048", 20000, 1),
    ("lfm2-2.6b", "w16a16-k8v8-g64+pc1024", 32768, 1),
    ("lfm2-2.6b", "w16a16-k4v4-kc", 12000, 1),
    ("falcon-h1-7b", "w16a16-k8v8-g64+pc512", 8192, 1),
    ("falcon-h1-7b", "w16a16-k4v4-g64+pc1024", 6000, 2),
    ("llama-4-scout", "w4a16-k8v8-g64+pc1024", 20000, 1),
    ("llama-4-scout", "w4a16-k4v4-g64+pc512", 10000, 2),
    ("gemma-3n-e4b", "w16a16-k8v8-g64+pc1024", 16384, 1),
    ("gemma-3n-e4b", "w16a16-k4v4-g64+pc512", 8192, 1),
    ("gemma-2-9b", "w4a16-k8v8-g64+pc512", 8000, 1),
    ("gemma-2-9b", "w4a16-k4v4-g64+pc1024", 8000, 1),
    ("gpt-oss-20b", "w16a16-k8v8-g64+pc1024", 16384, 1),
    ("gpt-oss-20b", "w16a16-k4v4-g64+pc512", 16384, 1),
    ("nemotron-3-nano", "w8a16-k8v8-g64+pc512", 8192, 1),
    ("nemotron-3-nano", "w8a16-k4v4-g64+pc1024", 8192, 1),
    ("bamba-9b", "w16a16-k8v8-g64+pc512", 8192, 1),
    ("bamba-9b", "w16a16-k4v4-g64+pc1024", 8192, 1),
    ("qwen3-next", "w8a16-k8v8-g64+pc512", 8192, 1),
    ("qwen3-next", "w8a16-k4v4-g64+pc1024", 8192, 1),
    ("granite-4.0-h-tiny", "w8a16-k8v8-g64+pc512", 8192, 1),
    ("granite-4.0-h-tiny", "w8a16-k4v4-g64+pc1024", 8192, 1),
    ("kimi-linear", "w8a16-k8v8-g64+pc512", 16384, 1),
    ("kimi-linear", "w8a16-k4v4-g64+pc1024", 16384, 1),
    ("zamba2-7b", "w16a16-k8v8+pc512", 4000, 1),
    ("zamba2-7b", "w16a16-k4v4+pc1024", 3000, 2),
    ("minimax-m1", "w4a16-k8v8-g64", 8192, 1),
    ("minimax-m1", "w4a16-k4v4-g64", 6000, 1),
    ("qwen3.5-27b", "w4a16-k8v8-g64+pc1024", 16384, 1),
    ("qwen3.5-27b", "w4a16-k4v4-g64+pc512", 8192, 1),
)

FRONTIER = tuple(
    (model, config + ("+pc1024" if "-h-" in model else "+pc4096"), context, 1)
    for context, models in (
        (131000, ("granite-4.0-h-micro", "granite-4.0-micro")),
        (32768, ("granite-4.0-h-micro", "granite-4.0-micro", "granite-4.0-h-tiny")),
        (8192, ("granite-4.0-h-micro", "granite-4.0-micro")),
    )
    for model in models
    for config in ("w16a16-k16v16", "w16a16-k8v8-g64", "w4a16-k4v4-g64")
)  # fmt: skip
"""Granite 4, hybrid and of attention alone: what memory buys."""

SPEEDS: tuple[tuple[str, str, int, int], ...] = (
    ("deepseek-v2-lite", "w4a16-k4v4-g64+pc1024", 4096, 1),
    ("deepseek-v2-lite", "w4a16-k4v4-g64+pc1024", 65536, 1),
    ("deepseek-v2-lite", "w4a16-k16v16+pc2048", 16384, 1),
    ("deepseek-v2-lite", "w4a16-k8v8-g64+pc512", 8192, 1),
    ("deepseek-v2-lite", "w4a16-k4v4-g64+pc1024", 4096, 8),
    ("gemma-3n-e2b", "w16a16-k8v8-g64+pc1024", 8192, 1),
    ("gemma-3n-e2b", "w16a16-k16v16+pc2048", 16384, 1),
    ("qwen3-30b-a3b", "w4a16-k4v4-g64+pc1024", 16384, 1),
    ("qwen3-30b-a3b", "w4a16-k8v8-g64+pc4096", 16384, 1),
    ("qwen3-30b-a3b", "w4a16-k16v16+pc512", 4096, 1),
    ("qwen3-30b-a3b", "w4a16-k4v4-g64+pc2048", 8192, 4),
    ("glm-4.7-flash", "w4a16-k4v4-g64+pc1024", 8192, 1),
    ("glm-4.7-flash", "w4a16-k8v8-g64+pc4096", 32768, 1),
    ("glm-4.7-flash", "w4a16-k16v16+pc1024", 4096, 2),
    ("mixtral-8x7b", "w4a16-k4v4-g64+pc1024", 16384, 1),
    ("mixtral-8x7b", "w4a16-k8v8-g64+pc4096", 8192, 1),
    ("mixtral-8x7b", "w4a16-k4v4-g64+pc512", 4096, 4),
    ("llama-4-scout", "w8a16-k8v8-g64+pc2048", 8192, 1),
    ("llama-4-scout", "w8a16-k16v16+pc1024", 8192, 1),
    ("llama-4-scout", "w8a16-k4v4-g64+pc4096", 32768, 1),
    ("gpt-oss-20b", "w4a16-k4v4-g64+pc1024", 16384, 1),
    ("gpt-oss-20b", "w4a16-k8v8-g64+pc4096", 32768, 1),
    ("deepseek-v2-lite", "w8a16-k8v8-g64+pc1024", 16384, 1),
    ("deepseek-v2-lite", "w8a16-k4v4-g64+pc4096", 32768, 1),
    ("deepseek-v2-lite", "w16a16-k16v16+pc1024", 16384, 1),
    ("deepseek-v2-lite", "w16a16-k8v8-g64+pc4096", 8192, 1),
    ("qwen3-30b-a3b", "w8a16-k8v8-g64+pc1024", 16384, 1),
    ("glm-4.7-flash", "w16a16-k8v8-g64+pc2048", 16384, 1),
    ("llama-4-scout", "w16a16-k8v8-g64+pc1024", 8192, 1),
)
"""Mixtures, latents and several streams of all weight bits: their time is fitted to these."""


@dataclass(frozen=True)
class Case:
    model: str
    config: Configuration
    workload: Workload
    checked: bool = True
    """Whether its model is checked first."""

    @property
    def key(self) -> tuple[Any, ...]:
        return self.model, str(self.config), self.workload.context, self.workload.batch


SETS = {"layers": CASES, "frontier": FRONTIER, "speeds": SPEEDS}


def cases(which: str = "layers") -> list[Case]:
    """One of SETS; the models of `layers` are checked first."""
    return [
        Case(model, Configuration.parse(text), Workload(context, OUTPUT, batch), which == "layers")
        for model, text, context, batch in SETS[which]
    ]
