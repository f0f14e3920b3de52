"""Which runs benchmarks/measure_runs.py makes: ten models, and a spread over the rest of the space.

A block is one model at one number of weight bits, whose weights are built once. Blocks come in
passes, so that a run cut short has seen every model before it sees one again. Within a block,
contexts, chunks and KV formats are dealt from decks that are shuffled anew when they are through:
every value comes up about equally often, beside others each time.

The paper's five shapes (arXiv 2512.01953), Qwen3-8B, Gemma-3-4B (windows, heads of 256 channels)
and gpt-oss-20b (experts, sinks, windows). The runtime refuses recurrent layers, so of the Granite 4
hybrids there are two relatives that it runs: `granite-4.0-micro-like`, dense, 40 heads of 64
channels; and `granite-4.0-tiny-like`, the hybrid's experts and widths with attention throughout.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_config
from kvpareto.planner.workload import Workload

T = TypeVar("T")

OUTPUT = 24  # tokens decoded in each run
SEED = 4

_GRANITE: dict[str, Any] = {
    "model_type": "granitemoehybrid",
    "hidden_size": 2560,
    "num_hidden_layers": 40,
    "layer_types": ["attention"] * 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "shared_intermediate_size": 8192,
    "num_local_experts": 0,
    "num_experts_per_tok": 0,
    "mamba_n_heads": 80,
    "mamba_d_head": 64,
    "position_embedding_type": "rope",
    "vocab_size": 100352,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "embedding_multiplier": 12,
    "attention_multiplier": 0.015625,
    "residual_multiplier": 0.22,
    "logits_scaling": 10,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e7,
    "dtype": "bfloat16",
}
_TINY = {
    "hidden_size": 1536,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "intermediate_size": 512,
    "shared_intermediate_size": 1024,
    "num_local_experts": 64,
    "num_experts_per_tok": 6,
    "mamba_n_heads": 48,
}
MADE_UP: dict[str, dict[str, Any]] = {
    "granite-4.0-micro-like": _GRANITE,
    "granite-4.0-tiny-like": _GRANITE | _TINY,
}
UNPACKED = {"gpt-oss-20b-16bit": "openai/gpt-oss-20b"}  # published in 4-bit floats; run in 16 bits

PASSES: tuple[tuple[tuple[str, int, int], ...], ...] = (
    # (model, weight bits, runs)
    (
        ("meta-llama/Llama-3.1-8B-Instruct", 4, 9),
        ("Qwen/Qwen2.5-3B-Instruct", 4, 8),
        ("google/gemma-3-4b-it", 4, 9),
        ("granite-4.0-micro-like", 4, 8),
        ("Qwen/Qwen2.5-7B-Instruct", 4, 8),
        ("gpt-oss-20b-16bit", 16, 9),
        ("meta-llama/Llama-3.2-3B-Instruct", 4, 8),
        ("mistralai/Mistral-7B-Instruct-v0.3", 4, 7),
        ("Qwen/Qwen3-8B", 4, 8),
        ("granite-4.0-tiny-like", 16, 8),
    ),
    (
        ("meta-llama/Llama-3.1-8B-Instruct", 16, 7),
        ("Qwen/Qwen2.5-3B-Instruct", 16, 6),
        ("google/gemma-3-4b-it", 16, 7),
        ("granite-4.0-micro-like", 16, 6),
        ("Qwen/Qwen2.5-7B-Instruct", 16, 6),
        ("meta-llama/Llama-3.2-3B-Instruct", 16, 6),
        ("mistralai/Mistral-7B-Instruct-v0.3", 16, 6),
        ("Qwen/Qwen3-8B", 16, 7),
    ),
    (
        ("meta-llama/Llama-3.1-8B-Instruct", 8, 6),
        ("Qwen/Qwen2.5-3B-Instruct", 8, 5),
        ("google/gemma-3-4b-it", 8, 5),
        ("granite-4.0-micro-like", 8, 5),
        ("Qwen/Qwen3-8B", 8, 5),
        ("gpt-oss-20b-16bit", 8, 4),
        ("granite-4.0-tiny-like", 4, 4),
    ),
)
LONG = {  # a block's last run, where it is not one of the deck: (context, chunk, KV format)
    ("meta-llama/Llama-3.1-8B-Instruct", 4): (65_536, 1024, "k4v4-g64"),
    ("google/gemma-3-4b-it", 4): (131_072, 2048, "k8v8"),
    ("google/gemma-3-4b-it", 16): (131_072, 512, "k4v4-g64"),
    ("gpt-oss-20b-16bit", 16): (131_072, 2048, "k4v4-g32"),
    ("meta-llama/Llama-3.2-3B-Instruct", 16): (131_072, 4096, "k16v16"),
    ("granite-4.0-micro-like", 4): (131_072, 1024, "k2v2-g32"),
    ("meta-llama/Llama-3.1-8B-Instruct", 8): (98_304, 4096, "k4v4-kc-g64"),
}
BATCHED = {  # four sequences, whose chunks go through the general kernel: short ones
    ("meta-llama/Llama-3.1-8B-Instruct", 16): (2048, 512, "k4v4-g64"),
    ("Qwen/Qwen2.5-3B-Instruct", 4): (2048, None, "k16v16"),
    ("Qwen/Qwen3-8B", 4): (4096, 1024, "k8v8"),
    ("google/gemma-3-4b-it", 16): (2048, 1024, "k4v4-g64"),
}
CONTEXTS = (2048, 8192, 32_000, 4096, 16_000, 8192, 32_000, 2048, 20_480)
CHUNKS = (1024, None, 256, 2048, 512, 4096, 1024, 128, 2048)
FORMATS = (
    "k16v16", "k4v4-g64", "k8v8", "k4v4-kc-g64", "k2v2-g32", "k4v4-g64+res128", "k8v4-g64",
    "k4v4-g64+smooth+rot", "k4v4", "k4v2-g64", "k2v2-kc-g32+res128", "k4v4-pb128-g64", "k16v16",
    "k8v8-pt", "k4v4-g32+rot", "k8v4-kc128-g64", "k4v4-g64",
)  # fmt: skip
MOST_CHUNKS = 80  # of a deck's run: 32,000 tokens in chunks of 128 would be 250 passes
NO_SMOOTHING = ("gpt-oss",)  # a sink logit would see it


@dataclass(frozen=True, slots=True)
class Run:
    config: Configuration
    workload: Workload


@dataclass(frozen=True, slots=True)
class Block:
    """Runs of one model with its weights at so many bits."""

    model: str
    weight_bits: int
    runs: tuple[Run, ...]


def architecture(model: str) -> dict[str, Any] | None:
    """The config of a model that is not bundled as it is run."""
    if model in MADE_UP:
        return MADE_UP[model]
    if model in UNPACKED:
        config = dict(load_config(UNPACKED[model], offline=True).config)
        config.pop("quantization_config", None)
        return config
    return None


def design() -> list[Block]:
    """All blocks in the order they are run."""
    make = random.Random(SEED)
    contexts, chunks, formats = (_deck(make, deck) for deck in (CONTEXTS, CHUNKS, FORMATS))
    blocks = []
    for model, bits, count in (block for blocks in PASSES for block in blocks):
        runs = []
        special = [(table.get((model, bits)), batch) for table, batch in ((BATCHED, 4), (LONG, 1))]
        special_runs = [
            _run(bits, form, context, chunk, batch)
            for shape, batch in special
            if shape is not None
            for context, chunk, form in [shape]
        ]
        while len(runs) < count - len(special_runs):
            context, chunk, form = next(contexts), next(chunks), next(formats)
            while chunk is not None and (chunk >= context or context > MOST_CHUNKS * chunk):
                chunk = next(chunks)
            while any(name in model for name in NO_SMOOTHING) and "smooth" in form:
                form = next(formats)
            runs.append(_run(bits, form, context, chunk, 1))
        blocks.append(Block(model, bits, (*runs, *special_runs)))
    return blocks


def _run(bits: int, form: str, context: int, chunk: int | None, batch: int) -> Run:
    config = Configuration.parse(f"w{bits}a16-{form}").with_chunk(chunk)
    return Run(config, Workload(context, OUTPUT, batch=batch))


def _deck(make: random.Random, values: tuple[T, ...]) -> Iterator[T]:
    """The values again and again, shuffled each time."""
    while True:
        yield from make.sample(values, len(values))
