"""What llama.cpp's cache formats keep, answered by llama.cpp itself, beside ours on the same items.

    pip install xllamacpp gguf
    python benchmarks/llama_cpp/accuracy.py --out rows.jsonl recall recall-outliers
    python benchmarks/llama_cpp/accuracy.py --out rows.jsonl NAME=FOLDER=FILE.gguf ...

A model is one that ships (its weights are written as GGUF, bfloat16), or a name, a transformers
folder and the GGUF file that the folder was dequantized from. For each pair of cache types:

  - generated tasks, prompts as token ids, greedy, scored as `calibrate` scores them;
  - divergence: after each of the last positions of a text, the most probable tokens by llama.cpp,
    against those under f16: KL over the 64 first of f16 and the rest as one (a lower bound).

Rows are appended as they are measured; what a file has is not measured again. Items are few, so
that an hour of one CPU core holds it: errors of scores are those of 8 or 12 items.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_cpp_server import TOP, LlamaCppServer, recall_gguf

TYPES = (
    ("f16", "f16"), ("q8_0", "q8_0"), ("q5_1", "q5_1"), ("q5_0", "q5_0"), ("q4_1", "q4_1"),
    ("q4_0", "q4_0"), ("iq4_nl", "iq4_nl"), ("q8_0", "q4_0"), ("q4_0", "q8_0"),
)  # fmt: skip
ASKED = (
    ("f16", "f16"), ("q8_0", "q8_0"), ("q5_1", "q5_1"), ("q4_0", "q4_0"), ("iq4_nl", "iq4_nl"),
    ("q8_0", "q4_0"), ("q8_0", "q5_1"), ("f16", "q4_0"), ("q4_0", "q8_0"),
)  # fmt: skip
"""Those that tasks are answered under; the divergence is measured under all."""
OURS = ("w16a16-k8v8-g32", "w16a16-k4v4-g32", "w16a16-k4v4-g32+rot", "w16a16-k8v4-g32")
"""Nearest to them: blocks of 32 channels, with a minimum."""

POSITIONS = 96


def kl_of(reference: dict[int, float], other: dict[int, float]) -> float:
    """KL over the TOP most probable of `reference`, and all else as one outcome."""
    head = sorted(reference, key=lambda token: -reference[token])[:TOP]
    floor = min(other.values())
    p = [math.exp(reference[token]) for token in head]
    q = [math.exp(other.get(token, floor)) for token in head]
    rest = max(1 - sum(p), 1e-9), max(1 - sum(q), 1e-9)
    pairs = [*zip(p, q, strict=True), rest]
    return sum(a * math.log(a / b) for a, b in pairs if a > 0)


def compared(reference: list[dict[int, float]], tops: list[dict[int, float]]) -> dict[str, Any]:
    """Means over positions, and the error of the first."""
    pairs = list(zip(reference, tops, strict=True))
    kls = [kl_of(a, b) for a, b in pairs]
    same = [max(a, key=a.__getitem__) == max(b, key=b.__getitem__) for a, b in pairs]
    mean = sum(kls) / len(kls)
    error = math.sqrt(sum((x - mean) ** 2 for x in kls) / len(kls) / (len(kls) - 1))
    return {
        "n": len(kls),
        "kl": round(mean, 6),
        "kl_se": round(error, 6),
        "top1": round(sum(same) / len(same), 4),
    }


def tasks_of(name: str) -> list[tuple[str, Any, int, int]]:
    """(name, task, tokens of a prompt, items)."""
    from kvpareto.calibration.tasks.needle import Needle
    from kvpareto.calibration.tasks.variable_tracking import Variables

    if name.startswith("recall"):
        return [
            ("needle-16", Needle("needle-multikey", keys=16), 1024, 12),
            ("variables-4x4", Variables("variables", 4, 4), 1024, 12),
        ]
    return [("needle-4", Needle("needle-multikey", keys=4), 256, 16)]


def rows_of(
    name: str, folder: Path, model: Path, done: set[str], *, tasks: bool, divergence: bool
) -> Iterator[dict[str, Any]]:
    from transformers import AutoTokenizer

    from kvpareto import profiles
    from kvpareto.planner.load_model import load_model

    tokenizer = AutoTokenizer.from_pretrained(folder)
    exams = [
        (title, task, length, task.items(tokenizer, length, count, 0))
        for title, task, length, count in (tasks_of(name) if tasks else ())
    ]
    words = profiles.read("calibration_text.md")
    text = tokenizer(words, add_special_tokens=False)["input_ids"][:640]
    reference: list[dict[int, float]] = []
    mix = load_model(str(model)).extra["gguf"]
    for k, v in TYPES if divergence else ASKED:
        config = f"w{mix}-k{k}v{v}"
        wanted = [title for title, *_ in exams if (k, v) in ASKED] or ["divergence"]
        if {f"{name} {config} {title}" for title in wanted} <= done and not (
            divergence and k == v == "f16"
        ):
            continue
        engine = LlamaCppServer(model, k, v, 2048)
        started = time.time()
        if divergence:
            tops = [engine.top(text[:at]) for at in range(len(text) - POSITIONS, len(text))]
            if k == v == "f16":
                reference = tops
            yield {
                "engine": "llama.cpp", "model": name, "config": config, "kind": "divergence",
                "context": len(text), **compared(reference, tops),
                "seconds": round(time.time() - started, 1),
            }  # fmt: skip
        for title, task, length, items in exams if (k, v) in ASKED else ():
            started = time.time()
            scores = []
            for item in items:
                tokens = engine.answer(list(item.prompt_ids), item.max_new_tokens)
                scores.append(task.score(item, tokenizer.decode(tokens)))
            yield {
                "engine": "llama.cpp", "model": name, "config": config, "kind": "task",
                "task": title, "context": length, "n": len(items),
                "score": round(sum(scores) / len(scores), 5),
                "items": [round(x, 4) for x in scores], "seconds": round(time.time() - started, 1),
            }  # fmt: skip
        del engine
    if not divergence:
        return
    yield from our_rows(name, folder, tokenizer, exams, text, done)


def our_rows(
    name: str, folder: Path, tokenizer: Any, exams: Any, text: list[int], done: set[str]
) -> Iterator[dict[str, Any]]:
    import torch

    from kvpareto.calibration.tasks import evaluate
    from kvpareto.planner.formats.configuration import Configuration
    from kvpareto.runtime import load

    torch.set_num_threads(1)

    def session(config: str) -> Any:
        return load(str(folder), Configuration.parse(config), context=1280, output=64, device="cpu")

    reference: list[dict[int, float]] = []
    for config in ("w16a16-k16v16", *OURS):
        if f"{name} {config} divergence" in done and config != "w16a16-k16v16":
            continue
        ours = session(config)
        tops = _our_tops(ours, text)
        if config == "w16a16-k16v16":
            reference = tops
        yield {
            "engine": "kvpareto", "model": name, "config": config, "kind": "divergence",
            "context": len(text), **compared(reference, tops),
        }  # fmt: skip
        for title, task, length, items in exams:
            started = time.time()
            score = evaluate(ours, task, items)
            yield {
                "engine": "kvpareto", "model": name, "config": config, "kind": "task",
                "task": title, "context": length, "n": len(items), "score": round(score.value, 5),
                "items": [round(x, 4) for x in score.per_item],
                "seconds": round(time.time() - started, 1),
            }  # fmt: skip


def _our_tops(session: Any, text: list[int]) -> list[dict[int, float]]:
    """As LlamaCpp.top, at the same positions."""
    import torch

    window = torch.tensor([text])
    places = torch.arange(len(text) - POSITIONS - 1, len(text) - 1)
    tops = []
    for part in session.logits(window, places, session.chunks(len(text))):
        values, tokens = part[0].double().log_softmax(-1).topk(4 * TOP)
        for logs, ids in zip(values.tolist(), tokens.tolist(), strict=True):
            tops.append(dict(zip(ids, logs, strict=True)))
    return tops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--no-tasks", action="store_true", help="the divergence alone")
    parser.add_argument("--only-tasks", action="store_true", help="llama.cpp's tasks alone")
    parser.add_argument("models", nargs="+")
    asked = parser.parse_args()
    from kvpareto.planner.load_model import shipped_folder

    lines = asked.out.read_text().splitlines() if asked.out.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {f"{r['model']} {r['config']} {r.get('task', r['kind'])}" for r in rows if "kind" in r}
    with asked.out.open("a") as out:
        if not rows:
            out.write(json.dumps({"environment": environment(), "seed": 0}) + "\n")
        for typed in asked.models:
            name, _, rest = typed.partition("=")
            folder = shipped_folder(name)
            with tempfile.TemporaryDirectory() as temporary:
                if folder is not None:
                    model = Path(temporary) / f"{name}.gguf"
                    recall_gguf(folder, model)
                else:
                    places = rest.split("=")
                    folder, model = Path(places[0]), Path(places[1])
                for row in rows_of(
                    name, folder, model, done,
                    tasks=not asked.no_tasks, divergence=not asked.only_tasks,
                ):  # fmt: skip
                    out.write(json.dumps(row) + "\n")
                    out.flush()
                    print({k: v for k, v in row.items() if k != "items"}, flush=True)


def environment() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    names = ("xllamacpp", "gguf", "torch", "transformers", "numpy")
    return {
        "device": "cpu", "machine": platform.machine(), "python": platform.python_version(),
        **{name: version(name) for name in names},
    }  # fmt: skip


if __name__ == "__main__":
    main()
