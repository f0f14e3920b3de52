"""What the arithmetic of 8-bit attention costs a model: divergence with it and without, anywhere.

    python benchmarks/attention_8_bits.py rows.jsonl --models recall recall-outliers

For each model and format the same windows are read twice through one session on a CPU: by exact
attention over the packed cache, and by the reference of Hopper's 8-bit attention of chunks
(runtime/kernels/eight_bits/reference.py). The divergence is from the unquantized model, so its
excess under 8 bits is what they cost.
"""

import argparse
import json
from pathlib import Path

import torch
from measure.divergence_row import measured
from measure.row_file import RowFile
from torch import Tensor

from kvpareto.calibration.measure.divergence import divergence
from kvpareto.calibration.measure.prompts import Prompts, PromptTexts
from kvpareto.calibration.measure.reference_logits import ReferenceLogits
from kvpareto.runtime import load, reference
from kvpareto.runtime.cache.layer_state import LayerState
from kvpareto.runtime.kernels.eight_bits import reference as eight_bits

exact = reference.attend
FEW = 32  # queries of a chunk from which 8 bits are taken here: text is read in chunks


def in_8_bits(
    query: Tensor,
    state: LayerState,
    *,
    scaling: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """reference.attend, [B, Hq, n, D] -> the same, by the reference of the kernel."""
    batch, query_heads, n, _ = query.shape
    if n < FEW or softcap is not None or sinks is not None:
        return exact(query, state, scaling=scaling, softcap=softcap, sinks=sinks)
    group = query_heads // state.key.values.shape[1]
    keys, values = (
        reference.read(side, 0, state.clock.host).bfloat16().float()
        for side in (state.key, state.value)
    )
    asked = query.bfloat16().float()
    heads = [
        eight_bits.attend(asked[b, h], keys[b, h // group], values[b, h // group], scaling)
        for b in range(batch)
        for h in range(query_heads)
    ]
    return torch.stack(heads).view(query.shape).to(query.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--models", nargs="+", default=["recall", "recall-outliers"])
    parser.add_argument("--formats", nargs="+", default=["k4v4-g64", "k2v2-g32"])
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--chunk", type=int, default=2048)
    parser.add_argument("--windows", type=int, default=2)
    args = parser.parse_args()
    file = RowFile(args.results, lambda row: (row["model"],))
    material = PromptTexts((args.context,), (), 1, 7, windows=args.windows)
    for name in args.models:
        room = {"context": args.context, "device": "cpu", "offline": True}
        with load(name, f"w16a16-k16v16+pc{args.chunk}", **room) as plain:
            windows = Prompts(name, plain.tokenizer, material).windows(args.context)
            unquantized = ReferenceLogits(plain)
            for text in args.formats:
                with load(name, f"w16a16-{text}+pc{args.chunk}", **room) as session:
                    for way, attend in (("exact", exact), ("8 bits", in_8_bits)):
                        reference.attend = attend
                        apart = divergence(unquantized, session, windows)
                        reference.attend = exact
                        row = {
                            "model": Path(name).name, "format": text, "attention": way,
                            "context": args.context, "chunk": args.chunk, **measured(apart),
                        }  # fmt: skip
                        print(json.dumps(row), flush=True)
                        file.append(row)


if __name__ == "__main__":
    main()
