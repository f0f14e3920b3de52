"""What the rows say to the paper's claims, and each model's frontier: sections of the page.

Every number is computed from the rows. Retention is the share of the text's probability that is
kept over the tail, exp(-excess); a cache's share is of the unquantized one's bytes, scales counted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from ...planner.formats.configuration import Configuration
from ...planner.formats.kv_format import KVFormat
from ...planner.load_model import load_model
from ...planner.models.spec import Attention
from .rows import DIVERGENCE, Row

CONTEXT = 4096
PICTURE = "real_frontiers.svg"
TIE = 0.002
ANSWERS = """\
- **K4V4 with 4-bit weights costs 1 to 3 points**: not here. So small models lose more by 4-bit
  weights alone, rounded on top of a quantized file; what 4-bit keys add depends on their keys. Of
  the 1.5B model 4-bit weights take 6 points, and per-channel 4-bit keys take nothing on top.
- **Where each collapses**: at 4-bit keys per token where keys stand out (biases of Qwen2.5, norms'
  gains of Gemma 3), at 2-bit keys otherwise. Per-channel keys carry all four through 4 bits. Of the
  1.5B model one layer's keys do most of it: with layer 0 in 8 bits `k4v4` keeps nine tenths.
- **Smoothing**: what the paper says holds for the 1.5B model, all of whose text is gone at 4-bit
  keys per token and nearly all is kept with their mean taken away. It is worth little alone to the
  others (biases turn with RoPE, and only what all tokens share is removed); with rotation and
  groups of 32 it takes most of the loss away from each.
- **Chunk size costs no accuracy**: true of formats that keep half of the text, where the bytes do
  not depend on the chunk (windows and one scale a tensor are left out). What moves most is 2-bit
  keys per channel, whose blocks meet other chunks.
- **32k tokens**: per-channel keys lose about what they lose at 4k; the biased models' 4-bit keys
  per token are gone there. The 1.5B model was read to 16k, where smoothed keys lose three times
  what they lose at 4k.
- **Does rotation extend the frontier?** For SmolLM2 and Gemma 3 at 4-bit keys per token, yes; for
  biased keys it makes things worse alone, and better behind smoothing: `k4v4+smooth+rot` is on the
  1.5B model's frontier. Per-channel keys beat it elsewhere at nearly the same bytes.
- **Latency as a third objective**: these rows time nothing; docs/runtime.md does.
"""
Points = Mapping[tuple[str, int], Row]
"""Divergences of one model by configuration and context."""


def kept(row: Row) -> float:
    """Share of the text's probability that is kept over the tail, at most 1."""
    return min(math.exp(-float(row["tail"]["excess"])), 1.0)


def cache_share(model: str, config: Configuration, tokens: int = CONTEXT) -> float:
    """Bytes of the cache as a share of the unquantized one's."""
    spec = load_model(model, offline=True)

    def size(one: Configuration) -> int:
        return sum(
            KVFormat.of(one, number).nbytes(1, m.kv_heads, m.head_dim, m.value_dim, tokens)
            for number, layer in enumerate(spec.layers)
            for m in layer.mixers
            if isinstance(m, Attention)
        )

    return size(config) / size(Configuration())


def frontier(model: str, points: Points) -> list[tuple[float, float, str]]:
    """(share of the cache, retention, configuration) of 16-bit weights at CONTEXT that nothing
    smaller matches, from small to large."""
    found = sorted(
        (cache_share(model, Configuration.parse(name)), -kept(row), name)
        for (name, context), row in points.items()
        if context == CONTEXT and name.startswith("w16") and "+pc" not in name
    )
    front: list[tuple[float, float, str]] = []
    for share, negative, name in found:
        if not front or -negative > front[-1][1] + TIE:
            front.append((share, -negative, name))
    return front


def points_of(rows: Sequence[Row]) -> dict[tuple[str, int], Row]:
    return {(r["config"], r["context"]): r for r in rows if r["kind"] == DIVERGENCE}


def sections(by_model: Mapping[str, Sequence[Row]]) -> str:
    """The frontiers as a picture and tables, then the claims one by one."""
    points = {model: points_of(rows) for model, rows in by_model.items()}
    parts = [
        "## The frontiers\n",
        f"![retention against the cache's share, measured models]({PICTURE})\n",
        "    python benchmarks/real_frontiers.py --plot docs/real_frontiers.svg\n",
        f"Cache formats of 16-bit weights at {CONTEXT:,} tokens that nothing smaller matches:\n",
    ]
    for model, found in points.items():
        parts.append(f"**{model}**\n")
        parts.append("| cache | share | text kept |\n|---|---:|---:|")
        parts[-1] += "".join(
            f"\n| `{name.removeprefix('w16a16-')}` | {share:.1%} | {100 * retention:.1f} % |"
            for share, retention, name in frontier(model, found)
        )
        parts.append("")
    return "\n".join([*parts, _claims(points)])


def _claims(points: Mapping[str, Points]) -> str:
    models = list(points)
    short = [model.split("/")[-1] for model in models]

    def line(claim: str, cell: Callable[[str], str]) -> str:
        return f"| {claim} | " + " | ".join(cell(model) for model in models) + " |"

    def at(name: str, context: int = CONTEXT) -> Callable[[str], str]:
        def cell(model: str) -> str:
            row = points[model].get((f"w{name}", context))
            return "–" if row is None else f"{100 * (1 - kept(row)):.1f}"

        return cell

    def longest(name: str) -> Callable[[str], str]:
        def cell(model: str) -> str:
            contexts = [c for n, c in points[model] if n == f"w{name}"]
            return at(name, max(contexts))(model) if contexts else "–"

        return cell

    def chunks(model: str) -> str:
        moved = []
        for (name, context), row in points[model].items():
            plain = points[model].get((name.split("+pc")[0], context))
            per_token = "-pt" not in name and "+res" not in name
            if "+pc" in name and plain is not None and per_token and kept(plain) > 0.5:
                moved.append(abs(kept(row) - kept(plain)))
        return f"{100 * median(moved):.2f}, {100 * max(moved):.1f}" if moved else "–"

    def first_broken(model: str) -> str:
        usable = [
            share for share, retention, _ in frontier(model, points[model]) if retention > 0.9
        ]
        return f"{min(usable):.0%} of the cache" if usable else "–"

    lines = [
        "## The paper's claims, one by one\n",
        "Text lost in points (of the probability of a token, tail, "
        f"{CONTEXT:,} tokens); the paper's tasks are others.\n",
        "| | " + " | ".join(short) + " |",
        "|---|" + "---:|" * len(models),
        line("K4V4 with 4-bit weights (paper: 1 to 3 points)", at("4a16-k4v4")),
        line("4-bit weights alone", at("4a16-k16v16")),
        line("K4V4 per token alone", at("16a16-k4v4")),
        line("K4V4 per channel (KIVI)", at("16a16-k4v4-kc")),
        line("int4 per tensor (paper: gibberish without smoothing)", at("16a16-k4v4-pt")),
        line("K4V4 smoothed (paper: needed by some models)", at("16a16-k4v4+smooth")),
        line("K4V4 rotated (open in the paper)", at("16a16-k4v4+rot")),
        line("both, in groups of 32", at("16a16-k4v4-g32+smooth+rot")),
        line("K8V8", at("16a16-k8v8")),
        line("change by the prefill's chunk: median, largest (paper: none)", chunks),
        line("K4V4 per token at the longest context", longest("16a16-k4v4")),
        line("K4V4 per channel at the longest context", longest("16a16-k4v4-kc")),
        line("smallest cache that keeps nine tenths", first_broken),
    ]
    return "\n".join([*lines, "", ANSWERS])
