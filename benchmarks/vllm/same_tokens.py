"""Greedy tokens of a real model: the plugin within vLLM against this project's runtime.

    pip install "kvpareto[vllm]"
    python benchmarks/vllm/same_tokens.py served MODEL answers.json
    python benchmarks/vllm/same_tokens.py own MODEL answers.json
    python benchmarks/vllm/same_tokens.py overlapping MODEL answers.json

MODEL is a folder with weights and tokenizer; prompts are pieces of this project's docs. `served`
writes what vLLM answers with 16 bits, the plugin with pages of 8 and 4 bits, and vLLM's own kernels
with pages of 4; the plugin's pages themselves lie beside the answers. `own` runs each prompt with
its answer through the runtime on one card and in one type, and says how many answers are the
runtime's own greedy ones, token by token, with the logits between the two tokens of each first
difference:

- with keys and values that have been in pages of the same format (served_pages.py);
- with the very bytes that the server wrote, whose codes are held to the runtime's own values;
- against itself, its keys and values moved by up to float16's last bit, and by four, before they
  are packed: what rounding alone does to greedy tokens in that format;
- in 16 bits and in the nearest formats of its own grammar.

`overlapping` serves the plugin's 4 bits with torch.compile, once as it is and once with
TORCHINDUCTOR_ENABLE_PDL=1, and says how many answers are the same.

float16 is the default: its noise is an eighth of bfloat16's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from served_pages import PagedLayer, paged, watch_pages
from torch import Tensor

from kvpareto.runtime.cache.packed_layer import PackedLayer
from kvpareto.runtime.cache.quantize import dequantize, quantize
from kvpareto.runtime.cache.rotation import rotate, rotate_back
from kvpareto.runtime.kernels.paged.page_format import PageFormat

DOCS = Path(__file__).parents[2] / "docs"
CACHES: dict[str, dict[str, str]] = {
    "16 bits": {},
    "int8": {"kv_cache_dtype": "int8_per_token_head", "attention_backend": "CUSTOM"},
    "int4": {"kv_cache_dtype": "int4_per_token_head", "attention_backend": "CUSTOM"},
    "int4 by vLLM": {"kv_cache_dtype": "int4_per_token_head", "attention_backend": "TRITON_ATTN"},
}
NOISES = {"a last bit": 2.0**-10, "four": 2.0**-8}  # of float16 at most, relative
COMPILED = ("int4 compiled", "int4 compiled, overlapping")
OURS = {"int8": "w16a16-k8v8-g64", "int4": "w16a16-k4v4-g64+rot"}


def main() -> None:
    """`served`, `own` or `overlapping`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=("served", "own", "overlapping"))
    parser.add_argument("model", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--longest", type=int, default=1500, help="Tokens of a prompt.")
    parser.add_argument("--new", type=int, default=48, help="Tokens of an answer.")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--cache", choices=(*CACHES, *COMPILED), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", VLLM_USE_FLASHINFER_SAMPLER="0")
    if asked.cache:
        (_own if asked.side == "own" else _serve)(asked, asked.cache)
    elif asked.side == "own":
        _side_by_side(CACHES)
    else:
        names = COMPILED if asked.side == "overlapping" else tuple(CACHES)
        said: dict[str, Any] = {"prompts": _prompts(asked.model, asked.prompts, asked.longest)}
        asked.answers.write_text(json.dumps(said), encoding="utf-8")
        _side_by_side(names)
        for name in names:
            if (part := _part(asked, name, "json")).exists():
                said[name] = json.loads(part.read_text(encoding="utf-8"))
        asked.answers.write_text(json.dumps(said), encoding="utf-8")
        if set(COMPILED) <= said.keys():
            some, others = (said[name] for name in COMPILED)
            _alike("int4 compiled, with launches that overlap and without", some, others)


def _side_by_side(names: Iterable[str]) -> None:
    """This command for each cache in a process of its own, all at once."""
    command = [sys.executable, *sys.argv, "--cache"]
    for child in [subprocess.Popen([*command, name]) for name in names]:
        child.wait()


def _prompts(folder: Path, count: int, longest: int) -> list[list[int]]:
    """Pieces of 32 tokens to `longest`, from the docs in order."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md")))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    lengths = [32 + (longest - 32) * i // max(count - 1, 1) for i in range(count)]
    gap = (len(ids) - longest) // count
    return [ids[i * gap : i * gap + length] for i, length in enumerate(lengths)]


def _part(asked: argparse.Namespace, cache: str, kind: str) -> Path:
    answers: Path = asked.answers
    return answers.with_suffix(f".{cache.replace(' ', '_')}.{kind}")


def _serve(asked: argparse.Namespace, name: str) -> None:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if name == COMPILED[1]:
        os.environ["TORCHINDUCTOR_ENABLE_PDL"] = "1"
        os.environ["VLLM_CACHE_ROOT"] = tempfile.mkdtemp()  # of compiled graphs; blind to that
    from vllm import LLM, SamplingParams

    from kvpareto.runtime.vllm_plugin import register

    register()
    compiled = name in COMPILED
    more: dict[str, Any] = dict(CACHES["int4" if compiled else name])
    graphs = {} if compiled else {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}
    llm = LLM(
        model=str(asked.model), skip_tokenizer_init=True, dtype=asked.dtype, seed=0,
        max_model_len=asked.longest + asked.new + 16, kv_cache_memory_bytes=2 * 10**9,
        gpu_memory_utilization=0.03, max_num_batched_tokens=8192, max_num_seqs=64,
        compilation_config={"cudagraph_capture_sizes": [1, 8, 32]} | graphs, **more,
    )  # fmt: skip
    prompts = json.loads(asked.answers.read_text(encoding="utf-8"))["prompts"]
    held: dict[tuple[int, ...], Tensor] = {}
    if more.get("attention_backend") == "CUSTOM" and not compiled:
        watch_pages(llm, held)
    plan = SamplingParams(max_tokens=asked.new, ignore_eos=True, temperature=0.0, detokenize=False)
    given: Any = [{"prompt_token_ids": prompt} for prompt in prompts]
    said = [list(one.outputs[0].token_ids) for one in llm.generate(given, plan, use_tqdm=False)]
    if held:
        torch.save([held[tuple(prompt)] for prompt in prompts], _part(asked, name, "pt"))
    _part(asked, name, "json").write_text(json.dumps(said), encoding="utf-8")
    print(f"served with {name}: {len(prompts)} answers of {asked.new} tokens", flush=True)
    os._exit(0)  # vLLM's end takes seconds


Forced = tuple[list[int], list[float]]  # tokens, and the logits each is ahead of the served one


def _own(asked: argparse.Namespace, name: str) -> None:
    from kvpareto.runtime import load

    served = json.loads(asked.answers.read_text(encoding="utf-8"))
    pairs = list(zip(served["prompts"], served[name], strict=True))
    answers = served[name]
    if name == "int4 by vLLM" and "int4" in served:
        _alike("int4: the plugin and vLLM's kernels", served["int4"], answers)
    room = {"context": asked.longest, "output": asked.new, "dtype": getattr(torch, asked.dtype)}
    with load(asked.model, "w16a16-k16v16", **room, graphs=False) as session:
        layers = [one for one in session.cache.layers if isinstance(one, PackedLayer)]
        form = PageFormat.of(f"{name.split()[0]}_per_token_head", layers[0].state.key.dim)
        plain = [_forced(session, *pair) for pair in pairs]
        _compare(f"{name}, the runtime in 16 bits", answers, plain)
        if form is None:
            _errors(session, layers, served["prompts"][-1])
        pages = [PagedLayer.of(layer, form) for layer in layers]
        mine = plain if form is None else [_forced(session, *pair, pages=pages) for pair in pairs]
        if form is not None:
            _compare(f"{name}, the runtime in pages", answers, mine)
        if (file := _part(asked, name, "pt")).exists():
            every = torch.load(file, mmap=True)
            same = [
                _forced(session, *pair, pages=pages, served=rows)
                for pair, rows in zip(pairs, every, strict=True)
            ]
            _compare(f"{name}, the runtime in the served pages", answers, same)
            _codes(name, pages)
        for noise, size in NOISES.items():
            for page in pages:
                page.noise = size
            moved = [_forced(session, *pair, pages=pages) for pair in pairs]
            both = ([tokens for tokens, _ in one] for one in (mine, moved))
            _alike(f"{name}, the runtime against itself moved by up to {noise}", *both)
    if name in OURS:
        with load(asked.model, OURS[name], **room, graphs=False) as session:
            mine = [_forced(session, *pair) for pair in pairs]
        _compare(f"{name}, the runtime in {OURS[name]}", answers, mine)


def _forced(
    session: Any,
    prompt: list[int],
    answer: list[int],
    pages: Sequence[PagedLayer] = (),
    served: Tensor | None = None,
) -> Forced:
    """The token that follows each place of a served answer, and by how many logits it is ahead of
    the served one: greedy decoding gives the same answer if all are its own."""
    for i, page in enumerate(pages):
        page.begin(None if served is None else served[i])
    ids = torch.tensor([prompt + answer[:-1]], device=session.device)
    places = torch.arange(len(prompt) - 1, ids.shape[1])
    logits = torch.cat([part[0] for part in session.logits(ids, places)]).float()
    best = logits.max(-1)
    theirs = logits.gather(1, torch.tensor(answer, device=logits.device)[:, None])[:, 0]
    return best.indices.tolist(), (best.values - theirs).tolist()


def _compare(what: str, theirs: list[list[int]], mine: list[Forced]) -> None:
    """Answers and tokens that are the same; of each first difference the prompt, the token's place
    and the logits between the two."""
    first = _alike(what, theirs, [tokens for tokens, _ in mine])
    apart = sorted((mine[i][1][at], i, at) for i, at in first)
    if apart:
        said = ", ".join(f"{i}/{at} {logits:.4f}" for logits, i, at in apart)
        print(f"    first differences, prompt/token and logits: {said}", flush=True)


def _alike(what: str, some: list[list[int]], others: list[list[int]]) -> list[tuple[int, int]]:
    """Prompts and places where answers first differ."""
    first, same = [], 0
    for i, (one, other) in enumerate(zip(some, others, strict=True)):
        differ = [at for at, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]]
        same += len(one) - len(differ)
        first += [(i, differ[0])] if differ else []
    total = sum(map(len, some))
    print(f"{what}: {len(some) - len(first)} of {len(some)} answers, {same} of {total} tokens "
          "the same", flush=True)  # fmt: skip
    return first


def _codes(name: str, pages: Sequence[PagedLayer]) -> None:
    """Served codes that the runtime would not have written, and how far from it they are."""
    every = [page.differing for page in pages]
    share = [100 * one.other / one.codes for one in every]
    print(f"    {name}: {sum(one.other for one in every)} of {sum(one.codes for one in every)} "
          f"codes differ ({share[0]:.3f} % in the first layer, {max(share):.3f} % in the worst), "
          f"none farther than {max(one.farthest for one in every):.4f} steps from the runtime's "
          "value before rounding", flush=True)  # fmt: skip


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
        ways: dict[str, Callable[[Tensor], Tensor]]
        ways = {"pages": partial(paged, form=form), config: _by_grammar(config, dim)}
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
