"""Perplexity of a model on a text under KV configurations: real loss, on real text.

    python benchmarks/bench_perplexity.py --model tests/data/stories260K-hf --text tinystories.txt

Each window starts from an empty cache and is fed in chunks, so that its tokens attend to what
the cache holds. Prints a table and appends the rows with their environment to
benchmarks/results/perplexity.jsonl. Runs on the CPU.
"""

import argparse
import json
import math
import platform
import subprocess
import time
from pathlib import Path

import torch
import transformers

from kvpareto.runtime import load
from kvpareto.runtime.session import Session

RESULTS = Path(__file__).parent / "results" / "perplexity.jsonl"
CONFIGURATIONS = (
    *(f"w16a16-k{k}v{v}" for k, v in ((16, 16), (8, 8), (4, 4), (2, 2))),
    *(f"w16a16-k{k}v16" for k in (8, 4, 2)),
    *(f"w16a16-k16v{v}" for v in (8, 4, 2)),
    *(f"w16a16-k{b}v16+smooth" for b in (4, 2)),
    *(f"w16a16-k{b}v{b}+rot" for b in (4, 2)),
    *(f"w16a16-k{b}v{b}+smooth+rot" for b in (4, 2)),
    *(f"w16a16-k{b}v{b}-kc" for b in (4, 2)),
    *(f"w16a16-k{b}v{b}-kc+res64" for b in (4, 2)),
    *(f"w16a16-k{b}v{b}-pb16" for b in (4, 2)),
    "w16a16-k8v8-pt",
    "w16a16-k4v4-pt",
    "w16a16-k4v4-pt+smooth",
    "w16a16-k2v2+res64",
    "w16a16-k2v2+sink4",
    "w16a16-k2v2+protect{0,1}:k8v8",
)


@torch.inference_mode()
def loss(session: Session, windows: torch.Tensor, chunk: int) -> float:
    """Mean negative log-likelihood in nats of tokens 1.. of each window [N, T]."""
    total, count = 0.0, 0
    batch = session.cache.clock.starts.shape[0]
    for rows in windows.split(batch):
        session.cache.reset()
        logits = torch.cat(
            [
                session.model(
                    input_ids=part,
                    position_ids=session.cache.clock.positions(part.shape[1]),
                    past_key_values=session.cache,
                    use_cache=True,
                ).logits
                for part in rows.split(chunk, dim=1)
            ],
            dim=1,
        )
        scores = torch.log_softmax(logits[:, :-1].float(), dim=-1)
        log_probabilities = scores.gather(-1, rows[:, 1:, None])
        total -= float(log_probabilities.sum())
        count += log_probabilities.numel()
    return total / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True, type=Path)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--windows", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=64)
    args = parser.parse_args()
    base = None
    RESULTS.parent.mkdir(exist_ok=True)
    windows = None
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    for text in CONFIGURATIONS:
        room = {"context": args.length, "output": 0, "batch": args.batch}
        with load(args.model, f"{text}+pc{args.chunk}", dtype=torch.float32, **room) as session:
            if windows is None:
                assert session.tokenizer is not None
                ids = session.tokenizer(args.text.read_text(), return_tensors="pt").input_ids[0]
                ids = ids[: args.windows * args.length].view(args.windows, args.length)
                windows = ids.to(session.device)
            nats = loss(session, windows, args.chunk)
            kv = session.memory().kv
        base = nats if base is None else base
        row = {
            "config": text,
            "model": Path(args.model).name,
            "text": args.text.name,
            "tokens": windows.numel(),
            "chunk": args.chunk,
            "perplexity": round(math.exp(nats), 4),
            "kv_bytes_per_token": kv / (args.length * args.batch),
            "device": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "commit": commit,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"| `{text}` | {math.exp(nats):.3f} | {100 * (math.exp(nats - base) - 1):+.1f} % |")


if __name__ == "__main__":
    main()
