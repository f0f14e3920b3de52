"""What was decided about each published source: layouts, trust, kinds, items, exclusions.

Data, not code: `published` applies it. A float format is entered as the integer grid that has
the same rms error on a normal variable: fp8 e4m3 errs by 0.027 sigma, as 6.0 bits do over six
standard deviations; fp4 e2m1 in blocks of 16 by 0.094 sigma, as 3.6 bits do over the 3.53 sigma
that 16 values span.
"""

import re
from dataclasses import dataclass

from ...planner.formats.configuration import Granularity


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """How a source's wording maps onto the configuration grammar."""

    granularity: str
    group_size: int = 0
    block_tokens: int = 1
    residual: int = 0
    rotates: bool = False
    weight: float = 1.0
    """Less than 1 where the mapping is not exact."""


BITS = {"fp8_e4m3": 6.0, "fp8": 6.0, "fp4_e2m1": 3.6, "fp4": 3.6}

_TOKEN, _CHANNEL = Granularity.PER_TOKEN, Granularity.PER_CHANNEL
GRANULARITIES = {
    "": SourceFormat(_TOKEN),  # weight-only rows, whose cache stays in 16 bits
    # HQQ's "channel-wise" runs: groups along channels, no residual window is stated.
    "channel-wise (HQQ)": SourceFormat(_CHANNEL, 64, 64, weight=0.7),
    "channel-wise": SourceFormat(_CHANNEL, 64, 128, residual=128),
    "K per-channel, V per-token": SourceFormat(_CHANNEL, 32, 32, residual=128),
    "KIVI (K per-channel, V per-token)": SourceFormat(_CHANNEL, 32, 32, residual=128),
    "KIVI mode": SourceFormat(_CHANNEL, 32, 32, residual=32),
    "group-wise": SourceFormat(_TOKEN, 64),
    "per-token per-head asymmetric": SourceFormat(_TOKEN),
    "per-token-head": SourceFormat(_TOKEN),
    "per-token-asym": SourceFormat(_TOKEN),
    "per-token": SourceFormat(_TOKEN),
    "token-wise INT4": SourceFormat(_TOKEN),
    "token-wise (optimum-quanto)": SourceFormat(_TOKEN, 64, residual=128),
    "quanto per-token": SourceFormat(_TOKEN, 64, residual=128),
    "quanto int4 defaults, per-token": SourceFormat(_TOKEN, 64, residual=128),
    "per-tensor": SourceFormat(
        _TOKEN
    ),  # only float formats, whose error does not depend on a range
    "block 16": SourceFormat(_TOKEN, 16),
    "vLLM fp8": SourceFormat(_TOKEN),
    "Naive INT2": SourceFormat(_TOKEN),
    "Saw-INT4": SourceFormat(_TOKEN, rotates=True),
    "QuaRot-INT2": SourceFormat(_TOKEN, 128, rotates=True),
    "QuaRot INT2": SourceFormat(_TOKEN, 128, rotates=True),
    "KIVI INT2": SourceFormat(_CHANNEL, 32, 32, residual=128),
    # Codebooks and norms on top of a rotation: close to a rotated integer grid, not the same.
    "TurboQuant K3V3 (all layers)": SourceFormat(_TOKEN, rotates=True, weight=0.5),
    "TurboQuant 4-bit": SourceFormat(_TOKEN, rotates=True, weight=0.5),
    "vLLM k8v4": SourceFormat(_TOKEN, rotates=True, weight=0.5),
    "vLLM 4bit_nc": SourceFormat(_TOKEN, rotates=True, weight=0.5),
    "vLLM k3v4_nc": SourceFormat(_TOKEN, rotates=True, weight=0.5),
    "vLLM 3bit_nc": SourceFormat(_TOKEN, rotates=True, weight=0.5),
    "WHT + Lloyd-Max + residual signs": SourceFormat(_TOKEN, rotates=True, weight=0.5),
    "exllamav2 Q4": SourceFormat(_TOKEN, 32, rotates=True, weight=0.5),
    # Keys alone were quantized in these two.
    "PolarQuant per-vector norm": SourceFormat(_TOKEN, rotates=True, weight=0.5),
    "per-channel asymmetric": SourceFormat(_CHANNEL, 0, 32),
    "llama.cpp q4_0": SourceFormat(_TOKEN, 32, weight=0.5),
    "llama.cpp Q4_0 -khad -vhad": SourceFormat(_TOKEN, 32, rotates=True, weight=0.5),
}

TRUST = (
    ("transcribed in public", 0.5),
    ("as transcribed", 0.5),
    ("quoted there from", 0.5),
    ("baseline from RedHatAI", 0.5),
    ("ik_llama.cpp", 0.5),
    ("turboquant-pro#98", 0.25),  # one approximate number for two models
    ("arXiv:2502.15075v3 Table 10", 0.5),  # the same runs as Table 9, scored strictly
    ("arXiv:2502.15075v3 Table 9", 0.5),
    ("arXiv:2502.15075v3 Table 2", 0.5),
)
"""First match wins; everything else is 1: read in the source itself."""

KINDS_OF_TASKS = (
    ("gsm8k", "reasoning"),
    ("eq_bench", "reasoning"),
    ("120-case", "reasoning"),
    ("math500", "reasoning"),
    ("gpqa", "reasoning"),
    ("GPQA", "reasoning"),
    ("humaneval", "reasoning"),
    ("ifeval", "reasoning"),
    ("aime25", "reasoning"),
    ("mean of GPQA", "reasoning"),
    ("coqa", "retrieval"),
    ("triviaqa", "retrieval"),
    ("longbench", "retrieval"),
    ("long-context", "retrieval"),
    ("openai_mrcr", "retrieval"),
    ("truthfulqa_mc", "likelihood"),
    ("truthfulqa", "retrieval"),
    ("mmlu", "short_reasoning"),
    ("ceval", "short_reasoning"),
    ("race", "likelihood"),
    ("hellaswag", "likelihood"),
    ("arc_challenge", "likelihood"),
    ("winogrande", "likelihood"),
    ("openllm", "likelihood"),
    ("perplexity", "perplexity"),
    ("wikitext-2", "perplexity"),
    ("The Pile", "perplexity"),
)

CONTEXTS = (
    ("longbench", 8192),
    ("long-context", 8192),
    ("openai_mrcr", 65536),
    ("mean of GPQA", 16384),
    ("aime25", 16384),
    ("gpqa", 8192),
    ("GPQA", 8192),
    ("", 1024),
)
"""Typical tokens in the cache, from the tasks' descriptions."""

CHANCE = (
    *(("mmlu", 0.25), ("ceval", 0.25), ("race", 0.25), ("hellaswag", 0.25)),
    *(("arc_challenge", 0.25), ("truthfulqa_mc", 0.25), ("winogrande", 0.5)),
)
"""What guessing scores on tasks of choices."""

ITEMS = (
    ("gsm8k n=500", 500),
    ("gsm8k", 1319),
    ("coqa", 500),
    ("eq_bench", 171),
    ("mmlu", 14042),
    ("ceval", 1346),
    ("triviaqa", 8000),
    ("race-middle", 1436),
    ("race-high", 3498),
    ("truthfulqa", 817),
    ("gpqa", 198),
    ("GPQA", 198),
    ("aime25", 30),
    ("math500", 500),
    ("mean of GPQA", 1000),
    ("120-case", 120),
    ("longbench_avg", 3000),
    ("longbench_e", 3000),
    ("longbench", 200),
    ("long-context", 1000),
    ("humaneval", 164),
    ("ifeval", 541),
    ("hellaswag", 10042),
    ("arc_challenge", 1172),
    ("winogrande", 1267),
    ("openai_mrcr", 800),
)

REFERENCES = (
    # (source contains, model, task, reference value): tables without an unquantized row
    ("2502.04420", "Qwen2.5-7B-Instruct", "perplexity (set not named in note)", 9.39),
    ("2502.15075v3 Table 2", "Llama-3.1-8B-Instruct", "gsm8k_1-shot", 0.754),
    ("2502.15075v3 Table 2", "Llama-3.1-8B-Instruct", "gsm8k_8-shot", 0.782),
)

EXCLUDED: tuple[tuple[dict[str, str], str], ...] = (
    ({"source": "UNVERIFIED"}, "transcription contradicts itself (K8V2 better than K8V4)"),
    ({"task": "longbench_Average"}, "mean of rows that are here one by one"),
    ({"source": "create_table", "k_bits": "8", "v_bits": "8"}, "reference row of its table"),
    ({"source": "create_table", "task": "mmlu"}, "identical at every bit width: cache never read"),
    ({"source": "create_table", "task": "ceval"}, "identical at every bit width: cache never read"),
    ({"source": "create_table", "task": "race"}, "identical at every bit width: cache never read"),
    ({"source": "AI digest"}, "no baseline, and read from a digest"),
    ({"source": "@jagmarques"}, "given as approximate, second-hand"),
    ({"granularity": "KVTuner-C"}, "layer-wise mixture whose layers are not listed"),
    ({"k_bits": "mixed"}, "layer-wise mixture whose layers are not listed"),
    ({"k_bits": "2.7 avg"}, "mixture of bits within a head"),
    ({"granularity": "OSCAR INT2"}, "a rotation trained on data is not a Hadamard transform"),
    ({"granularity": "RotateKV INT2"}, "reorders channels: not a layout of ours"),
    (
        {"granularity": "RotorQuant"},
        "rotates blocks of three channels, and the prompt's keys stay in 16 bits",
    ),
    ({"granularity": "TurboQuant+ 2.5-bit"}, "mixture of bits within a head"),
    ({"task": "long-context (note labels it LongBench)", "k_bits": "4"}, "granularity not stated"),
)

_PAPER = re.compile(r"arXiv:\d+\.\d+")
_ORIGIN = re.compile(r"https?://\S+|RedHatAI|[\w.-]+/[\w.-]+|[^(:]+")


def origin(source: str) -> str:
    """Who ran a row's table: a paper, a repository or a publisher, whatever the table. Rows of one
    origin share its harness, its tasks and its formats."""
    found = _PAPER.search(source) or _ORIGIN.match(source)
    return found[0].strip() if found else source
