"""docs/real_models.md and what it links to, from the rows: the claims, the frontiers, and for each
model a page of what every format costs it; no number is from elsewhere."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..grid.reading import decode_items
from ..tasks.scores import Score, paired
from .claims import claims, frontiers
from .design import CHUNKED, CHUNKS, MARKS, SMALL, WEIGHED
from .jobs import FULL, TASK_CHUNK
from .rows import DIVERGENCE, TASKS, Row, read_rows

INTRODUCTION = """# Real models, measured

Pretrained models under every kind of format, by the runtime itself with its packed cache. This page
has the paper's claims and the tasks; others have [the frontiers]({frontiers}), and all formats of

{models}

They are written from `profiles/calibrations/real_*.jsonl`, and the tasks beside the claims from
`same_bytes_*.jsonl`:

    python -m kvpareto.calibration.real_models table profiles/calibrations/real_*.jsonl \\
        --scored profiles/calibrations/same_bytes_*.jsonl --out docs

KL is the divergence from the same model in 16 bits, in nats a token, exact over the vocabulary, on
consecutive windows of WikiText-2's test. A window is read twice over: the body as a prompt is
prefilled, then a tail in chunks of 64 tokens, which finds the cache as decoding does. Only the tail
shows what a window of recent tokens is worth. Top-1 is the share of places where both choose the
same token. Errors are standard errors over blocks of 64 places; all formats read the same texts.
Weights come from quantized GGUF files: 16 bits mean that file's weights in bfloat16, and 8- and
4-bit weights are rounded to nearest on top of them.
"""
BACK = "[Real models](real_models.md) says how it was measured, and what comes of it.\n"
FRONTIERS = "real_frontiers.md"
METHODS = ("", "+smooth", "+rot", "+smooth+rot")


def pages(paths: Iterable[Path], scored: Iterable[Path] = ()) -> dict[str, str]:
    """Each page's text, by its name in docs/."""
    tasks = [row for _, row in read_rows(scored) if row["kind"] != DIVERGENCE]
    rows = [(header["source"], row) for header, row in read_rows(paths)]
    models = sorted({row["model"] for _, row in rows})
    by_model = {m: [row for _, row in rows if row["model"] == m] for m in models}
    links = "\n".join(f"- [{model}]({page_of(model)})" for model in models)
    first = INTRODUCTION.format(frontiers=FRONTIERS, models=links)
    texts = {
        "real_models.md": "\n".join([first, claims(by_model, tasks)]),
        FRONTIERS: "\n".join(["# Frontiers of real models\n", BACK, frontiers(by_model)]),
    }
    for model in models:
        source = next(source for source, row in rows if row["model"] == model)
        texts[page_of(model)] = _model(model, source, by_model[model])
    return {name: text.rstrip("\n") + "\n" for name, text in texts.items()}


def page_of(model: str) -> str:
    """The name of a model's page: `real_qwen2_5_coder_0_5b_instruct.md`."""
    return f"real_{re.sub(r'[^a-z0-9]+', '_', model.split('/')[-1].lower())}.md"


def write_pages(paths: Iterable[Path], folder: Path, scored: Iterable[Path] = ()) -> None:
    """Write them all into `folder`."""
    for name, text in pages(paths, scored).items():
        (folder / name).write_text(text, encoding="utf-8")


def _model(model: str, source: Row, rows: Sequence[Row]) -> str:
    by_key = {(r["config"], r["context"]): r for r in rows if r["kind"] == DIVERGENCE}
    contexts = sorted({context for _, context in by_key})
    parts = [
        f"# {model}, measured\n",
        BACK,
        f"{len(rows)} points. File `{source.get('file')}`, SHA-256 `{source.get('sha256')}`.\n",
    ]
    if by_key:
        main = max(contexts, key=lambda c: sum(context == c for _, context in by_key))
        parts += [
            "KL of the tail, its error, and top-1 agreement there, by context:\n",
            _table(_names(MARKS), contexts, lambda name, c: _tail(by_key.get((name, c)))),
            f"Smoothing and rotation, KL of the body at {main:,} tokens:\n",
            _methods(by_key, main),
            f"Prefill chunks, KL of the body at {main:,} tokens:\n",
            _changes(by_key, main, [(f"{n}", n) for n in _names(CHUNKED)],
                     ["", *[f"+pc{size}" for size in CHUNKS]]),
            f"Weight bits, KL of the body at {main:,} tokens:\n",
            _weights(by_key, main),
        ]  # fmt: skip
    return "\n".join([*parts, _tasks([r for r in rows if r["kind"] == TASKS])])


def _names(texts: Sequence[str]) -> list[str]:
    return ["w16a16-" + text.replace("{g}", f"-g{SMALL}") for text in texts]


def _tail(row: Row | None) -> str:
    if row is None:
        return "–"
    tail = row["tail"]
    return f"{tail['kl']:.3g} ± {tail['kl_se']:.1g}, {100 * tail['top1']:.1f} %"


def _body(row: Row | None) -> str:
    return "–" if row is None else f"{row['kl']:.3g} ± {row['kl_se']:.1g}"


def _table(names: Sequence[str], columns: Sequence[int], cell: Callable[[str, int], str]) -> str:
    lines = ["| | " + " | ".join(f"{c:,}" for c in columns) + " |", "|---|" + "---|" * len(columns)]
    for name in names:
        cells = [cell(name, c) for c in columns]
        if set(cells) != {"–"}:
            lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _methods(by_key: dict[tuple[str, int], Row], context: int) -> str:
    formats = [f"k{k}v{v}{g}" for k, v in ((8, 8), (4, 4), (4, 2), (2, 2)) for g in ("", "-g32")]
    heads = ["plain", "smoothed", "rotated", "both"]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for name in formats:
        cells = [_body(by_key.get((f"w16a16-{name}{turn}", context))) for turn in METHODS]
        if set(cells) != {"–"}:
            lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _changes(
    by_key: dict[tuple[str, int], Row],
    context: int,
    names: Sequence[tuple[str, str]],
    endings: Sequence[str],
) -> str:
    heads = [ending.removeprefix("+pc") or "one shot" for ending in endings]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for label, name in names:
        cells = [_body(by_key.get((name + ending, context))) for ending in endings]
        if set(cells[1:]) != {"–"}:
            lines.append(f"| `{label}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _weights(by_key: dict[tuple[str, int], Row], context: int) -> str:
    lines = ["| | 16 bits | 8 bits | 4 bits |", "|---|---|---|---|"]
    for name in _names(WEIGHED):
        keys = [name.replace("w16", f"w{bits}", 1) for bits in (16, 8, 4)]
        cells = [_body(by_key.get((key, context))) for key in keys]
        if set(cells[1:]) != {"–"}:
            lines.append(f"| `{name.removeprefix('w16a16-')}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _tasks(rows: Sequence[Row]) -> str:
    """Scores of the unquantized model, and retention of the tasks that it is able of."""
    full, parts = str(FULL.with_chunk(TASK_CHUNK)), []
    for context in sorted({row["context"] for row in rows}):
        here = {row["config"]: row["tasks"] for row in rows if row["context"] == context}
        if full not in here:
            continue
        kept = sorted(
            {name for tasks in here.values() for name in tasks if tasks is not here[full]}
        )
        said = ", ".join(f"{name} {task['score']:.3f}" for name, task in here[full].items())
        parts.append(f"Tasks{f' at {context:,} tokens' if context else ''}, 16 bits: {said}.\n")
        if not kept:
            continue
        parts += ["| | " + " | ".join(kept) + " |", "|---|" + "---|" * len(kept)]
        for config, tasks in here.items():
            if config != full and tasks:
                cells = [_retention(here[full].get(name), tasks.get(name)) for name in kept]
                parts.append(f"| `{config}` | " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def _retention(whole: Row | None, task: Row | None) -> str:
    if whole is None or task is None:
        return "–"
    scores = [
        Score.of([digit / each["parts"] for digit in decode_items(each["items"])])
        for each in (whole, task)
    ]
    pair = paired(*scores)
    if pair.retention is None or pair.retention_stderr is None:
        return "–"
    return f"{100 * pair.retention:.0f} ± {100 * pair.retention_stderr:.0f} %"
