"""Greedy tokens of a real model: the plugin within vLLM against this project's runtime.

    pip install "kvpareto[vllm]"
    python benchmarks/vllm/same_tokens.py served MODEL answers.json
    python benchmarks/vllm/same_tokens.py own MODEL answers.json

MODEL is a folder with weights and tokenizer; prompts are pieces of this project's docs. `served`
writes what vLLM answers with 16 bits, and the plugin with pages of 8 and 4 bits. `own` runs each
prompt with its answer through the runtime, whose keys and values have been in the same pages
(write, read, turn back: page_format.py), and says how many answers are the runtime's own greedy
ones, token by token. Where one differs, it prints by how many logits the runtime preferred
its token to the next best: two implementations round otherwise, and where two tokens are that near,
either may come. The nearest
formats of the runtime's own grammar follow, and how far each is from the 16-bit keys and values.

float16 is the default: its noise is an eighth of bfloat16's.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kvpareto.runtime.cache.packed_layer import PackedLayer
from kvpareto.runtime.cache.quantize import dequantize, quantize
from kvpareto.runtime.cache.rotation import rotate, rotate_back
from kvpareto.runtime.kernels.paged import page_format
from kvpareto.runtime.kernels.paged.page_format import PageFormat, pack, unpack

DOCS = Path(__file__).parents[2] / "docs"
CACHES: dict[str, dict[str, str]] = {
    "16 bits": {},
    "int8": {"kv_cache_dtype": "int8_per_token_head", "attention_backend": "CUSTOM"},
    "int4": {"kv_cache_dtype": "int4_per_token_head", "attention_backend": "CUSTOM"},
}
OURS = {"int8": "w16a16-k8v8-g64", "int4": "w16a16-k4v4-g64+rot"}


def main() -> None:
    """`served` or `own`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=("served", "own"))
    parser.add_argument("model", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--longest", type=int, default=1500, help="Tokens of a prompt.")
    parser.add_argument("--new", type=int, default=48, help="Tokens of an answer.")
    parser.add_argument("--dtype", default="float16")
    asked = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", VLLM_USE_FLASHINFER_SAMPLER="0")
    if asked.side == "served":
        _served(asked, _prompts(asked.model, asked.prompts, asked.longest))
    else:
        _own(asked)


def _prompts(folder: Path, count: int, longest: int) -> list[list[int]]:
    """Pieces of 32 tokens to `longest`, from the docs in order."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md")))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    lengths = [32 + (longest - 32) * i // max(count - 1, 1) for i in range(count)]
    gap = (len(ids) - longest) // count
    return [ids[i * gap : i * gap + length] for i, length in enumerate(lengths)]


def _served(asked: argparse.Namespace, prompts: list[list[int]]) -> None:
    """Each cache in turn; the file is written anew after each."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM, SamplingParams

    from kvpareto.runtime.vllm_plugin import register

    register()
    said: dict[str, list[list[int]]] = {"prompts": prompts}  # the docs will change
    plan = SamplingParams(max_tokens=asked.new, ignore_eos=True, temperature=0.0, detokenize=False)
    given = [{"prompt_token_ids": prompt} for prompt in prompts]
    for name, cache in CACHES.items():
        more: dict[str, Any] = dict(cache)
        llm = LLM(
            model=str(asked.model), skip_tokenizer_init=True, dtype=asked.dtype, seed=0,
            max_model_len=asked.longest + asked.new + 16, kv_cache_memory_bytes=2 * 10**9,
            gpu_memory_utilization=0.03, max_num_batched_tokens=8192, max_num_seqs=64,
            compilation_config={"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}, **more,
        )  # fmt: skip
        answers = llm.generate(given, plan, use_tqdm=False)  # type: ignore[arg-type]
        said[name] = [list(one.outputs[0].token_ids) for one in answers]
        asked.answers.write_text(json.dumps(said), encoding="utf-8")
        print(f"served with {name}: {len(prompts)} answers of {asked.new} tokens", flush=True)
        del llm
    os._exit(0)  # vLLM's end takes seconds


class PagedLayer(PackedLayer):
    """A layer of 16 bits whose keys and values have been in pages of `form`."""

    form: PageFormat

    def update(self, key: Tensor, value: Tensor, *rest: object, **more: object) -> Any:  # type: ignore[override]
        return super().update(_paged(key, self.form), _paged(value, self.form), *rest, **more)

    def step(self, *args: object) -> None:  # type: ignore[override]
        """Nothing is fused: rows are turned, then packed."""


def _paged(x: Tensor, form: PageFormat) -> Tensor:
    held = unpack(pack(x, form), form)
    return (page_format.rotate_back(held) if form.rotated else held).to(x.dtype)


def _own(asked: argparse.Namespace) -> None:
    from kvpareto.runtime import load

    served = json.loads(asked.answers.read_text(encoding="utf-8"))
    prompts = served.pop("prompts")
    room = {"context": asked.longest, "output": asked.new, "dtype": getattr(torch, asked.dtype)}
    for name, answers in served.items():
        pairs = list(zip(prompts, answers, strict=True))
        with load(asked.model, "w16a16-k16v16", **room, graphs=False) as session:
            layers = [one for one in session.cache.layers if isinstance(one, PackedLayer)]
            form = PageFormat.of(f"{name}_per_token_head", layers[0].state.key.dim)
            for layer in layers:
                if form is not None:
                    layer.__class__ = PagedLayer
                    layer.form = form  # type: ignore[attr-defined]
            mine = [_forced(session, *pair) for pair in pairs]
            _compare(f"{name}, its pages", answers, mine)
            if form is None:
                _errors(session, layers, prompts[-1])
    for name, config in OURS.items():
        pairs = list(zip(prompts, served[name], strict=True))
        with load(asked.model, config, **room, graphs=False) as session:
            mine = [_forced(session, *pair) for pair in pairs]
        _compare(f"{name}, {config}", served[name], mine)


def _forced(session: Any, prompt: list[int], answer: list[int]) -> tuple[list[int], list[float]]:
    """The token that follows each place of a served answer, and by how many logits it was ahead of
    the second: greedy decoding gives the same answer if all are its own."""
    ids = torch.tensor([prompt + answer[:-1]], device=session.device)
    places = torch.arange(len(prompt) - 1, ids.shape[1])
    logits = torch.cat([part[0] for part in session.logits(ids, places)]).float()
    best = logits.topk(2)
    return best.indices[:, 0].tolist(), (best.values[:, 0] - best.values[:, 1]).tolist()


def _compare(what: str, theirs: list[list[int]], mine: list[tuple[list[int], list[float]]]) -> None:
    same, places, margins = 0, 0, list[float]()
    for one, (tokens, ahead) in zip(theirs, mine, strict=True):
        differ = [i for i, (a, b) in enumerate(zip(one, tokens, strict=True)) if a != b]
        same, places = same + (not differ), places + len(differ)
        if differ:
            margins.append(ahead[differ[0]])
    total = sum(map(len, theirs))
    line = f"{what}: {same} of {len(mine)} answers the same, {total - places} of {total} tokens"
    near = ", ".join(f"{margin:.3f}" for margin in sorted(margins))
    print(line + (f"; logits ahead at first differences: {near}" if near else ""), flush=True)


def _errors(session: Any, layers: list[PackedLayer], prompt: list[int]) -> None:
    """Relative errors of keys and values in pages and in the runtime's own formats."""
    session.prefill(torch.tensor([prompt], device=session.device))
    held = [(one.state.key.values, one.state.value.values) for one in layers]
    dim = layers[0].state.key.dim
    half = torch.float16 if session.model.dtype == torch.float16 else torch.bfloat16
    rows = [
        [side.view(half)[:, :, : len(prompt)].reshape(1, -1, len(prompt), dim) for side in both]
        for both in held
    ]
    for name, config in OURS.items():
        form = PageFormat.of(f"{name}_per_token_head", dim)
        assert form is not None
        ways = {"pages": lambda x, form=form: _paged(x, form), config: _by_grammar(config, dim)}
        for way, through in ways.items():
            key, value = (_relative(through, [pair[side] for pair in rows]) for side in range(2))
            print(f"error of {name}, {way}: keys {key:.4f}, values {value:.4f}", flush=True)


def _by_grammar(config: str, dim: int) -> Callable[[Tensor], Tensor]:
    from kvpareto.planner.formats.configuration import Configuration
    from kvpareto.planner.formats.kv_format import KVFormat

    parsed = Configuration.parse(config)
    form = KVFormat.of(parsed, 0).key

    def through(x: Tensor) -> Tensor:
        turned = rotate(x) if parsed.rotation else x
        back = dequantize(*quantize(turned, form), form).to(x.dtype)
        return rotate_back(back) if parsed.rotation else back

    return through


def _relative(through: Callable[[Tensor], Tensor], rows: list[Tensor]) -> float:
    """Of all layers' rows: the root of squared errors over squared values, the mean of layers."""
    each = [float((through(x).float() - x.float()).norm() / x.float().norm()) for x in rows]
    return sum(each) / len(each)


if __name__ == "__main__":
    main()
