"""What the rows say to the paper's claims, and each model's frontier: texts of the pages.

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
from ..fit.measured_models import ABLE, CHANCE
from .rows import DIVERGENCE, Row
from .same_bytes_tasks import difference

CONTEXT = 4096
PICTURE = "real_frontiers.svg"
TIE = 0.002
ANSWERS = """\
- **K4V4 with 4-bit weights costs 1 to 3 points**: of the 1.5B model's 54.7 % on GSM8K 5.1 ± 2.8
  points, of its text 6. Most of it is 4-bit weights, rounded on top of a quantized file: alone they
  take 6.6 ± 3.0 of GSM8K. Per-channel K4V4 alone takes 3.5 ± 2.0 there, 0.4 ± 1.0 of MMLU and
  nothing of the text. Three points are within these errors. The smaller models lose more by 4-bit
  weights alone.
- **Where each collapses**: at 4-bit keys per token where keys stand out (biases of Qwen2.5, norms'
  gains of Gemma 3), at 2-bit keys otherwise. Per-channel keys carry all four through 4 bits. Of the
  1.5B model one layer's keys do most of it: with layer 0 in 8 bits `k4v4` keeps nine tenths.
- **Smoothing**: what the paper says holds for the 1.5B model, all of whose text and GSM8K is gone
  at 4-bit keys per token (its MMLU falls to guessing). With their mean taken away nearly all of
  the text is kept, and GSM8K loses 5.5 ± 2.4 points, MMLU 1.8 ± 1.3. It is worth little alone to
  the others (biases turn with RoPE, and only what all tokens share is removed); with rotation and
  groups of 32 it takes most of the loss away from each.
- **Chunk size costs no accuracy**: true of formats that keep half of the text, where the bytes do
  not depend on the chunk (windows and one scale a tensor are left out). What moves most is 2-bit
  keys per channel, whose blocks meet other chunks.
- **32k tokens**: per-channel keys lose about what they lose at 4k of the text, and of needles
  3.1 ± 3.1 points (1.5B) and 1.6 ± 4.2 (0.5B). Smoothing does not hold: the 1.5B model's smoothed
  keys lose none at 8k and 31 ± 6 points at 32k, and of the text at 16k three times what they lose
  at 4k. Maps (`+affine`) from short prose are as good at 2k and lose 22 and 30 points at 16k and
  32k on the 0.5B model; from 8,192 tokens of WikiText 4.7 ± 2.7 at 32k on the 1.5B model, where
  2.4 bits lose 28 ± 6. 4-bit weights lose no needle of it. The biased models' 4-bit keys per token
  are gone.
- **Does rotation extend the frontier?** For SmolLM2 and Gemma 3 at 4-bit keys per token, yes; for
  biased keys it makes things worse alone, and better behind smoothing: `k4v4+smooth+rot` is on the
  1.5B model's frontier. Per-channel keys beat it elsewhere at nearly the same bytes.
- **Latency as a third objective**: these rows time nothing; docs/runtime.md does.
"""
SCORED = (
    ("K4V4 per channel with 4-bit weights (paper: 1 to 3)", "w4a16-k4v4-kc"),
    ("4-bit weights alone", "w4a16-k16v16"),
    ("K8V8", "w16a16-k8v8"),
    ("K4V4 per channel (KIVI)", "w16a16-k4v4-kc"),
    ("K4V4 with maps", "w16a16-k4v4+affine"),
    ("K4V4 smoothed", "w16a16-k4v4+smooth"),
    ("both, in groups of 32", "w16a16-k4v4-g32+smooth+rot"),
    ("K4V4 per token", "w16a16-k4v4"),
    ("3.25 bits and 4 sinks, with maps", "w16a16-k3v3-kc128+affine+clip90+sink4"),
    ("2.4 bits, sinks and 128 recent tokens, with maps",
     "w16a16-k2v2-kc128-g64+affine+clip70+res128+sink4"),
    ("2.25 bits, sinks and 128 recent tokens, with maps",
     "w16a16-k2v2-kc128+affine+clip70+res128+sink4"),
    ("2.25 bits and 4 sinks, with maps", "w16a16-k2v2-kc128+affine+clip70+sink4"),
    ("K2V2 per channel, 128 recent tokens (KIVI)", "w16a16-k2v2-kc+res128"),
)  # fmt: skip
"""What is shown of tasks, and under which name."""
WITHOUT_CONTEXT = {"gsm8k": "GSM8K, eight shots", "mmlu": "MMLU, five examples"}
NEEDLES = ("needle-16", "needle-4")
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


def frontiers(by_model: Mapping[str, Sequence[Row]]) -> str:
    """The frontiers as a picture and tables."""
    points = {model: points_of(rows) for model, rows in by_model.items()}
    parts = [
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
    return "\n".join(parts)


def claims(by_model: Mapping[str, Sequence[Row]], scored: Sequence[Row] = ()) -> str:
    """The claims one by one; `scored` are tasks under the methods of same_bytes.py."""
    points = {model: points_of(rows) for model, rows in by_model.items()}
    tasks = [tasks_section(scored)] if scored else []
    return "\n".join([_claims(points), *tasks, ANSWERS])


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
    return "\n".join([*lines, ""])


def tasks_section(rows: Sequence[Row]) -> str:
    """Points of the score of tasks that each cache loses, paired with 16 bits on the same items:
    tasks without a context by model, needles by model and context."""
    lines = [
        "### Tasks beside the claims\n",
        "Points of the score against the same model in 16 bits, on the same items, with the error "
        "of that difference (GSM8K: 256 questions, MMLU: 570, needles: 64 to 256). Where 16 bits "
        f"are less than {100 * ABLE:g} points above guessing, nothing is shown. 4- and 8-bit "
        "weights are rounded to nearest on top of the files' own.\n",
    ]
    wholes = {
        (r["model"], r["context"], name): task
        for r in rows
        if _without_chunk(r) == str(Configuration())
        for name, task in r["tasks"].items()
        if task["score"] - CHANCE.get(name, 0.0) >= ABLE
    }
    with_needles = {
        model: next(name for name in NEEDLES if any((m, name) == (model, n) for m, _, n in wholes))
        for model, _, name in wholes
        if name in NEEDLES
    }
    places = [k for k in wholes if k[2] in WITHOUT_CONTEXT or k[2] == with_needles.get(k[0])]
    order = [*WITHOUT_CONTEXT, *NEEDLES]
    places.sort(key=lambda key: (order.index(key[2]), key[0], key[1]))
    scores = {
        (r["model"], r["context"], name, _without_chunk(r)): task
        for r in rows
        for name, task in r["tasks"].items()
    }
    tables: dict[str, list[tuple[str, int, str]]] = {}
    for model, context, name in places:
        title = WITHOUT_CONTEXT.get(name) or f"Needles, {model.split('/')[-1]}"
        tables.setdefault(title, []).append((model, context, name))
    for title, keys in tables.items():
        body = []
        for said, config in SCORED:
            cells = []
            for key in keys:
                task = scores.get((*key, config))
                gap = None if task is None else difference(wholes[key], task)
                cells.append("–" if gap is None else f"{gap[0]:+.1f} ± {gap[1]:.1f}")
            if set(cells) != {"–"}:
                body.append(f"| {said} | " + " | ".join(cells) + " |")
        if not body:
            continue
        heads = [
            f"{f'{context:,} tokens' if context else model.split('/')[-1]}, "
            f"{100 * wholes[model, context, name]['score']:.1f} %"
            for model, context, name in keys
        ]
        lines += [f"| {title} | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
        lines += [*body, ""]
    return "\n".join(lines)


def _without_chunk(row: Row) -> str:
    return str(Configuration.parse(row["config"]).with_chunk(None))
