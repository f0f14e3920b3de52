"""The plugin's attention and vLLM's own on the same pages, both held to float64.

    pip install "kvpareto[vllm]"
    python benchmarks/vllm/exact_attention.py --cache int4_per_token_head

A model of the Llama-3.1-8B shape, three layers and random weights, in the real vLLM: mixed batches
of short and long prompts, then decoding. At every layer of every step the last token of each
request is attended to three times over the same pages: by the plugin, by vLLM's Triton backend, and
in float64 with plain torch. Prints the worst relative error of each, by length and kind of row.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from kvpareto.calibration.vllm.random_checkpoint import write_checkpoint

MODEL = Path(__file__).parents[2] / "profiles/models/meta-llama--Llama-3.1-8B-Instruct.json"
LENGTHS = (64, 1024, 8192, 1 << 30)
BATCHES = (((5, 16, 33, 700, 6001), 12), ((20_000, 40), 8))
Worst = dict[tuple[str, int], list[float]]


def main() -> None:
    """Run the batches, print a line for each kind of row and bound of length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", default="int4_per_token_head")
    parser.add_argument("--layers", type=int, default=3)
    asked = parser.parse_args()
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1",
        VLLM_USE_FLASHINFER_SAMPLER="0",
    )  # fmt: skip
    config = json.loads(MODEL.read_text(encoding="utf-8")) | {"vocab_size": 32_000}
    folder = Path(tempfile.mkdtemp())
    write_checkpoint(config, folder, "bf16", asked.layers)
    import torch
    from vllm import LLM, SamplingParams

    from kvpareto.runtime.vllm_plugin import register
    from kvpareto.runtime.vllm_plugin.registration import why_not

    print(f"obstacle: {why_not()}; {torch.cuda.get_device_name()}", flush=True)
    register()
    llm = LLM(
        model=str(folder), skip_tokenizer_init=True, load_format="dummy", dtype="bfloat16",
        kv_cache_dtype=asked.cache, attention_backend="CUSTOM", max_model_len=30_000,
        kv_cache_memory_bytes=10**9 * asked.layers, gpu_memory_utilization=0.03, seed=0,
        enable_prefix_caching=False, enforce_eager=True, max_num_batched_tokens=4096,
    )  # fmt: skip
    worst: Worst = {}
    _compare_each_call(worst)
    draw = torch.Generator().manual_seed(1)
    for lengths, tokens in BATCHES:
        drawn = [torch.randint(0, 31_999, (n,), generator=draw).tolist() for n in lengths]
        plan = SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0, detokenize=False)
        llm.generate([{"prompt_token_ids": ids} for ids in drawn], plan, use_tqdm=False)
    for (kind, bound), (count, ours, theirs, longest) in sorted(worst.items()):
        below = f"below {bound}" if bound < LENGTHS[-1] else "longer"
        print(f"{kind}, {below} (longest {longest:.0f}), {count:.0f} rows: "
              f"plugin {ours:.1e}, vLLM's Triton {theirs:.1e} of float64", flush=True)  # fmt: skip
    os._exit(0)


def _compare_each_call(worst: Worst) -> None:
    """From here on every forward of the plugin notes its errors, and its parent's, in `worst`."""
    import torch

    from kvpareto.runtime.vllm_plugin import backend

    ours = backend.PackedAttentionImpl.forward

    def both(self: Any, layer: Any, query: Any, key: Any, value: Any, kv_cache: Any, given: Any,
             output: Any, *rest: Any, **more: Any) -> Any:  # fmt: skip
        out = ours(self, layer, query, key, value, kv_cache, given, output, *rest, **more)
        if given is None or self._form is None or not self._takes(query, kv_cache, given):
            return out
        other = torch.empty_like(output)
        parent = backend.TritonAttentionImpl.forward
        parent(self, layer, query, key, value, kv_cache, given, other)
        ends = given.query_start_loc.tolist()
        for request, length in enumerate(given.seq_lens[: len(ends) - 1].tolist()):
            last = ends[request + 1] - 1
            pages = kv_cache[given.block_table[request, : -(-length // kv_cache.shape[2])].long()]
            truth = _exact(query[last], pages, length, self._form, self.scale)
            kind = "decoding" if request < given.decodes else "prompt"
            bound = next(b for b in LENGTHS if length < b)
            seen = worst.setdefault((kind, bound), [0, 0.0, 0.0, 0])
            seen[0] += 1
            for at, got in ((1, output), (2, other)):
                error = got[last].double().view_as(truth) - truth
                seen[at] = max(seen[at], float(error.norm() / truth.norm()))
            seen[3] = max(seen[3], length)
        return out

    backend.PackedAttentionImpl.forward = both  # type: ignore[method-assign]


def _exact(query: Any, pages: Any, length: int, form: Any, scaling: float) -> Any:
    """One row [query heads, D] over pages [n, heads, page tokens, row], all of it in float64."""
    import torch

    from kvpareto.runtime.kernels.paged.page_format import SCALE_BYTES, hadamard, signs

    def side(rows: Any) -> Any:
        codes, word = rows[..., :-SCALE_BYTES], rows[..., -SCALE_BYTES:].contiguous()
        if form.bits == 8:
            return codes.view(torch.int8).double() * word.view(torch.float32).double()
        bits = word.view(torch.int32)
        levels = torch.stack([codes & 15, codes >> 4], -1).flatten(-2).double()
        return (levels - (bits & 15)) * (bits & -16).view(torch.float32).double()

    rows = pages.permute(1, 0, 2, 3).flatten(1, 2)[:, :length]
    key, value = side(rows[..., : form.side_bytes]), side(rows[..., form.side_bytes :])
    asked = query.double().view(-1, form.dim)
    if form.rotated:
        turn = hadamard(form.dim, torch.float64, query.device)
        asked = (asked * signs(form.dim, query.device)) @ turn
    grouped = asked.view(key.shape[0], -1, form.dim)
    weights = (grouped @ key.mT * (scaling * form.query_factor)).softmax(-1)
    mixed = (weights @ value).view(-1, form.dim)
    return (mixed @ turn) * signs(form.dim, query.device) / form.dim if form.rotated else mixed


if __name__ == "__main__":
    main()
