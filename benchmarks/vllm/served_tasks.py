"""Tasks of the recall model through vLLM with the plugin: what the server's answers are worth.

    pip install "kvpareto[vllm]"
    python benchmarks/vllm/served_tasks.py answers.json --context 4k --items 32
    python benchmarks/vllm/page_retention.py --context 4k --items 32 --served answers.json
    python benchmarks/vllm/served_tasks.py awq.json --awq --only "16 bits,16 bits kvpareto_awq"

Answers of 16 bits, of vLLM's own int4 kernels, and of the plugin in 4 and 8 bits, as token ids, go
into a file. With `--awq` the model is rounded to AWQ's 4 bits first, and served by vLLM's products
or by the plugin's (`kvpareto_awq`). page_retention.py answers the same items with the reference of
the page format and with this project's runtime, and says how many answers are the same.
"""

import argparse
import gc
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from kvpareto.calibration.vllm.exam import ServedExam
from kvpareto.calibration.vllm.start import StartReading
from kvpareto.planner.units import parse_tokens
from kvpareto.planner.workload import Workload

MODELS = Path(__file__).parents[2] / "profiles/recall"
CACHES: dict[str, dict[str, str]] = {
    "plugin int4": {"kv_cache_dtype": "int4_per_token_head", "attention_backend": "CUSTOM"},
    "16 bits": {},
    "plugin int8": {"kv_cache_dtype": "int8_per_token_head", "attention_backend": "CUSTOM"},
    "vLLM int4": {"kv_cache_dtype": "int4_per_token_head", "attention_backend": "TRITON_ATTN"},
}
AWQ = "kvpareto_awq"
CACHES |= {f"{name} {AWQ}": cache | {"quantization": AWQ} for name, cache in CACHES.items()}


def main() -> None:
    """Each cache in turn; the file is written anew after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="recall", help="Of profiles/recall.")
    parser.add_argument("--context", default="4k")
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--tasks", default="needle-multikey,variables,arithmetic")
    parser.add_argument("--tensor-parallel", type=int, default=1)
    parser.add_argument("--awq", action="store_true", help="Of the model in 4 bits.")
    parser.add_argument("--only", default=",".join(name for name in CACHES if AWQ not in name))
    asked = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", VLLM_USE_FLASHINFER_SAMPLER="0")
    if asked.tensor_parallel == 1:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    context, folder = parse_tokens(asked.context), str(MODELS / asked.model)
    exam = ServedExam(folder, Workload(context, 64, 1), asked.tasks, asked.items, 1, print, True)
    from kvpareto.runtime.vllm_plugin import register

    register()
    if asked.awq:
        folder = _rounded(folder)
    said: dict[str, list[list[int]]] = {}
    for name in asked.only.split(","):
        said[name] = _answers(folder, context, exam, CACHES[name], asked.tensor_parallel)
        asked.out.write_text(json.dumps(said), encoding="utf-8")
        scores = exam.scores(StartReading(True, answers=tuple(map(tuple, said[name]))))
        each = ", ".join(f"{t} {s.value:.3f} +- {s.stderr:.3f}" for t, s in scores.items())
        print(f"{name}: {each}", flush=True)
    os._exit(0)


def _rounded(folder: str) -> str:
    """The model as an AWQ checkpoint, rounded to nearest without a search."""
    from kvpareto.runtime import load
    from kvpareto.runtime.weights.quantize import save_awq

    made = Path(tempfile.mkdtemp())
    with load(folder, "w4a16-k16v16", context=64, device="cpu") as session:
        save_awq(session.model, made)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(Path(folder, name), made)
    return str(made)


def _answers(
    folder: str, context: int, exam: ServedExam, cache: dict[str, str], cards: int
) -> list[list[int]]:
    import torch
    from vllm import LLM, SamplingParams

    more: dict[str, Any] = dict(cache)
    llm = LLM(
        model=folder, skip_tokenizer_init=True, dtype="bfloat16", max_model_len=context + 300,
        kv_cache_memory_bytes=2 * 10**9, gpu_memory_utilization=0.03, seed=0,
        max_num_batched_tokens=8192, enable_prefix_caching=True, tensor_parallel_size=cards,
        compilation_config={"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}, **more,
    )  # fmt: skip
    plans = [SamplingParams(max_tokens=n, temperature=0.0, detokenize=False) for n in exam.answer]
    given = [{"prompt_token_ids": list(prompt)} for prompt in exam.prompts]
    found = [list(one.outputs[0].token_ids) for one in llm.generate(given, plans, use_tqdm=False)]
    del llm
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


if __name__ == "__main__":
    main()
