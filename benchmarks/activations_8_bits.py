"""What activations in 8 bits cost a model: divergence with them and without, anywhere.

    python benchmarks/activations_8_bits.py rows.jsonl --models recall recall-outliers

For each model and cache format the same windows are read through w4a16 and through w4a8, whose rows
are rounded to e4m3 in every product of a chunk. The divergence is from the unquantized model, so
that w4a8's excess over w4a16's is what the rows cost. Each row says the weights' own error beside.
"""

import argparse
import json
from pathlib import Path

from measure.divergence_row import measured
from measure.row_file import RowFile

from kvpareto.calibration.measure.divergence import divergence
from kvpareto.calibration.measure.prompts import Prompts, PromptTexts
from kvpareto.calibration.measure.reference_logits import ReferenceLogits
from kvpareto.runtime import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--models", nargs="+", default=["recall", "recall-outliers"])
    parser.add_argument("--formats", nargs="+", default=["k16v16", "k4v4-g64"])
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--chunk", type=int, default=1024)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    file = RowFile(args.results, lambda row: (row["model"],))
    material = PromptTexts((args.context,), (), 1, 7, windows=args.windows)
    for name in args.models:
        room = {"context": args.context, "device": args.device, "offline": True}
        with load(name, f"w16a16-k16v16+pc{args.chunk}", **room) as plain:
            windows = Prompts(name, plain.tokenizer, material).windows(args.context)
            unquantized = ReferenceLogits(plain)
            for cache in args.formats:
                for weights in ("w16a16", "w4a16", "w4a8"):
                    if weights == "w16a16" and cache == "k16v16":
                        continue
                    text = f"{weights}-{cache}"
                    with load(name, f"{text}+pc{args.chunk}", **room) as session:
                        apart = divergence(unquantized, session, windows)
                    row = {
                        "model": Path(name).name, "config": text, "context": args.context,
                        "chunk": args.chunk, "device": args.device, **measured(apart),
                    }  # fmt: skip
                    print(json.dumps(row), flush=True)
                    file.append(row)


if __name__ == "__main__":
    main()
