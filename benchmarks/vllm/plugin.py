"""The plugin beside vLLM's own caches on one card, in one run: TTFT, TPOT, batches, clients.

    pip install "kvpareto[vllm]"
    CUDA_VISIBLE_DEVICES=0 python benchmarks/vllm/plugin.py rows.jsonl bf16:fp8 bf16:plugin
    python benchmarks/vllm/plugin.py rows.jsonl bf16:auto bf16:plugin --tests clients --layers 8

Each argument is WEIGHTS:CACHE, or WEIGHTS:CACHE:TOKENS with a cache of its own size; weights bf16,
awq or kawq (the same, by `--quantization kvpareto_awq`), cache auto, fp8, int4 (vLLM's own
kernels), plugin (int4) or plugin8; +pdl behind it lets torch.compile's kernels overlap
(TORCHINDUCTOR_ENABLE_PDL). Engines start side by side, each in its process with a fixed
cache; when all are ready they measure in turn, so that all are on the same card at the same clocks
and nothing else runs on it. A row is written after each test. Weights are random, of a real shape;
no tokenizer is needed.

Decoding is timed apart from prompts: a prompt is taken once (its time is TTFT), then again with 1
and with N tokens to answer, when vLLM's prefix cache holds it; the difference is N - 1 steps.
A test named by a shape, 64x4000, decodes as many prompts of as many tokens.
`steps` profiles a few such steps: microseconds of each kernel, and of none. Ratios against the
first engine of the same weights are printed at the end.
"""

import argparse
import json
import os
import random
import re
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kvpareto.calibration.vllm.random_checkpoint import vocabulary, write_checkpoint

MODEL = Path(__file__).parents[2] / "profiles/models/meta-llama--Llama-3.1-8B-Instruct.json"
CACHES: dict[str, dict[str, Any]] = {
    "auto": {"kv_cache_dtype": "auto"},
    "fp8": {"kv_cache_dtype": "fp8"},
    "int4": {"kv_cache_dtype": "int4_per_token_head", "attention_backend": "TRITON_ATTN"},
    "plugin": {"kv_cache_dtype": "int4_per_token_head", "attention_backend": "CUSTOM"},
    "plugin8": {"kv_cache_dtype": "int8_per_token_head", "attention_backend": "CUSTOM"},
}
BYTES_PER_CHANNEL = {"auto": 2.0, "fp8": 1.0, "int4": 0.54, "plugin": 0.54, "plugin8": 1.04}
TESTS = ("long", "batch", "steps", "clients")


def main() -> None:
    """Start the engines, wait for them, drive their tests, print ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("engines", nargs="+")
    parser.add_argument("--tests", default="long,batch", help=f"Of {', '.join(TESTS)}, 64x4000.")
    parser.add_argument("--layers", type=int, help="A depth to cut the model to.")
    parser.add_argument("--cache-tokens", type=int, default=262_000)
    parser.add_argument("--cache-gb", type=float, default=1e9, help="Of each engine, at most.")
    parser.add_argument("--prompt", type=int, default=131_000, help="Tokens of the long prompt.")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--answer", type=int, default=512, help="Tokens that each client asks for.")
    parser.add_argument("--quick", action="store_true", help="Without torch.compile, for a start.")
    parser.add_argument("--until", type=float, default=1e9, help="Seconds after which to give up.")
    parser.add_argument("--patience", type=float, default=1e9, help="Seconds of the starts.")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--say", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        _serve(asked.child, asked)
        return
    until = time.monotonic() + asked.until
    engines = [EngineProcess(name) for name in asked.engines]
    names = [one.name for one in engines]
    late = min(until, time.monotonic() + asked.patience)
    engines = [one for one in engines if one.hear(asked.out, late)]
    print(f"ready: {' '.join(one.name for one in engines)}", flush=True)
    for weights in dict.fromkeys(_stored(one.name) for one in engines):
        for test in asked.tests.split(","):
            for one in engines:
                if _stored(one.name) == weights:
                    one.ask(test, asked.out, until)
    for one in engines:
        one.process.kill()
    _print_ratios(asked.out, names, asked.layers)


def _stored(name: str) -> str:
    """How an engine's weights are stored."""
    return name.split(":")[0].removeprefix("k")


class EngineProcess:
    """A child with an engine of its own: it says a row when it is ready and after each test."""

    def __init__(self, asked: str) -> None:
        self.name = ":".join(asked.split(":")[:2])
        self._rows, say = os.pipe()
        command = [sys.executable, __file__, *sys.argv[1:], "--child", asked, "--say", str(say)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(say,))
        os.close(say)

    def ask(self, test: str, out: Path, until: float) -> None:
        """One test; nothing where the engine has ended."""
        if self.process.poll() is None and time.monotonic() < until:
            assert self.process.stdin is not None
            self.process.stdin.write(f"{test}\n".encode())
            self.process.stdin.flush()
            self.hear(out, until)

    def hear(self, out: Path, until: float) -> bool:
        """Wait for its next row and write it; False, and the engine's end, where none comes."""
        said = b""
        while not said.endswith(b"\n"):
            ready, _, _ = select.select([self._rows], [], [], max(0.0, until - time.monotonic()))
            more = os.read(self._rows, 65536) if ready else b""
            if not more:
                self.process.kill()
                print(f"{self.name}: {'ended' if ready else 'too late'}", flush=True)
                return False
            said += more
        with open(out, "ab") as file:
            file.write(said)
            os.fsync(file.fileno())
        print(said.decode()[:400].strip(), flush=True)
        return True


def _serve(name: str, asked: argparse.Namespace) -> None:
    """A child: start the engine, then a test for each line of standard input."""
    weights, cache, *tokens = name.split(":")
    form = cache.removesuffix("+pdl")
    if form != cache:
        os.environ["TORCHINDUCTOR_ENABLE_PDL"] = "1"
        os.environ["VLLM_CACHE_ROOT"] = tempfile.mkdtemp()  # of compiled graphs; blind to that
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1",
        VLLM_USE_FLASHINFER_SAMPLER="0",
    )  # fmt: skip
    config = json.loads(MODEL.read_text(encoding="utf-8"))
    config["max_position_embeddings"] = 140_000
    folder = Path(tempfile.mkdtemp())
    write_checkpoint(config, folder, _stored(name), asked.layers)
    layers = asked.layers or config["num_hidden_layers"]
    token = 2 * config["num_key_value_heads"] * 128 * layers * BYTES_PER_CHANNEL[form]
    size = min(int(tokens[0] if tokens else asked.cache_tokens) * token, asked.cache_gb * 1e9)
    begun = time.monotonic()
    import torch
    import vllm
    from vllm import LLM

    from kvpareto.runtime.vllm_plugin import register

    register()  # where the package is not installed, vLLM finds no entry point of it
    llm = LLM(
        model=str(folder), skip_tokenizer_init=True, load_format="dummy", dtype="bfloat16",
        max_model_len=135_000, max_num_batched_tokens=8192, max_num_seqs=128, seed=0,
        enable_prefix_caching=True, compilation_config=_compilation(asked.quick),
        kv_cache_memory_bytes=int(size),
        quantization="kvpareto_awq" if weights == "kawq" else None,
        gpu_memory_utilization=0.03,  # vLLM starts only where that is free; it says no more here
        **CACHES[form],
    )  # fmt: skip
    held = llm.llm_engine.vllm_config.cache_config
    fixed = {
        "date": time.strftime("%Y-%m-%d"), "vllm": vllm.__version__,
        "engine": f"{weights}:{cache}",
        "gpu": torch.cuda.get_device_name(), "layers": layers,
        "compiled": not asked.quick, "cache_tokens": held.num_gpu_blocks * held.block_size,
    }  # fmt: skip
    measured = EngineTests(llm, vocabulary(config), asked)
    measured.took(measured.prompts(3, 9_000), 4)
    # a first call of the shapes to come: kernels are chosen and compiled outside of the times
    measured.took(measured.prompts(16, 300), 4)
    row: dict[str, Any] = {"start_s": time.monotonic() - begun}
    with open(asked.say, "w", encoding="utf-8") as say:
        while True:
            say.write(json.dumps(fixed | row) + "\n")
            say.flush()
            test = sys.stdin.readline().strip()
            if not test:
                os._exit(0)  # vLLM's end takes seconds
            row = {"test": test} | measured.measure(test)


def _compilation(quick: bool) -> dict[str, Any]:
    """Graphs of few sizes; `quick`: of decode steps alone, of layers as they are written."""
    if quick:
        sizes = {"cudagraph_capture_sizes": [1, 16, 64]}
        return {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", **sizes}
    return {"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64]}


class EngineTests:
    """The tests, by name, over prompts of random tokens."""

    def __init__(self, llm: Any, vocab: int, asked: argparse.Namespace) -> None:
        self._llm, self._vocab, self._asked = llm, vocab, asked
        self._draw = random.Random(7)
        self._long = self.prompts(1, asked.prompt)
        held = llm.llm_engine.vllm_config.cache_config
        self._held = held.num_gpu_blocks * held.block_size  # tokens

    def prompts(self, count: int, length: int) -> list[dict[str, list[int]]]:
        tokens = range(self._vocab)
        return [{"prompt_token_ids": self._draw.choices(tokens, k=length)} for _ in range(count)]

    def took(self, given: list[dict[str, list[int]]], tokens: int) -> float:
        from vllm import SamplingParams

        plan = SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0.0, detokenize=False)
        start = time.perf_counter()
        self._llm.generate(given, plan, use_tqdm=False)
        return time.perf_counter() - start

    def measure(self, test: str) -> dict[str, Any]:
        """The test of this name, or of this shape."""
        shape = re.fullmatch(r"(\d+)x(\d+)", test)
        if shape:
            return self.decoding(*map(int, shape.groups()))
        return dict(getattr(self, test)())

    def _again(self, given: list[dict[str, list[int]]]) -> tuple[float, float]:
        """Seconds of cached prompts for 1 and for 129 tokens; kernels of both are compiled then."""
        self.took(given, 5)
        return self.took(given, 1), self.took(given, 129)

    def long(self) -> dict[str, float]:
        """One prompt of 131,000 tokens."""
        first = self.took(self._long, 1)
        one, many = self._again(self._long)
        return {"ttft_s": first, "tpot_ms": (many - one) / 128 * 1e3, "again_s": one}

    def batch(self) -> dict[str, float]:
        """16 prompts of 16,000 tokens."""
        given = self.prompts(16, 16_000)
        first = self.took(given, 1)
        one, many = self._again(given)
        return {"prefill_16x16k_s": first, "decode_16x16k_tokens_s": 16 * 128 / (many - one)}

    def decoding(self, count: int, length: int) -> dict[str, float]:
        """`count` prompts of `length` tokens; nothing where they and 129 more each do not fit."""
        if count * (length + 144) > self._held:
            return {}
        given = self.prompts(count, length)
        first = self.took(given, 1)
        one, many = self._again(given)
        shape = f"{count}x{length}"
        rate = count * 128 / (many - one)
        return {f"prefill_{shape}_s": first, f"decode_{shape}_tokens_s": rate}

    def clients(self) -> dict[str, float]:
        """Clients who send 16,000 tokens at once, whether the cache holds them together or not:
        output tokens of all by the time of it all, prompts included, and without the prompts."""
        count, answer = self._asked.clients, self._asked.answer
        given = self.prompts(count, 16_000)
        whole = self.took(given, answer)
        tokens = count * answer
        return {"clients_s": whole, "clients_tokens_s": tokens / whole, "answer": answer}

    def steps(self) -> dict[str, Any]:
        """Kernels of 32 decode steps after the long prompt, by name: [launches, microseconds a
        step]; `none_us`: of a step, when nothing ran on the card."""
        from torch.profiler import ProfilerActivity, profile

        self.took(self._long, 1)
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            self.took(self._long, 33)
        spans = sorted(
            (event.time_range.start, event.time_range.end, event.name)
            for event in seen.events()
            if event.device_type.name == "CUDA"
        )
        by_name: dict[str, list[float]] = {}
        idle, end = 0.0, spans[0][0]
        for start, stop, name in spans:
            idle, end = idle + max(0.0, start - end), max(end, stop)
            of_name = by_name.setdefault(name[:70], [0, 0.0])
            of_name[0], of_name[1] = of_name[0] + 1, of_name[1] + (stop - start) / 32
        most = sorted(by_name.items(), key=lambda item: -item[1][1])[:24]
        kernels = {name: [int(n), round(us, 1)] for name, (n, us) in most}
        return {"none_us": idle / 32, "all_us": (end - spans[0][0]) / 32, "kernels": kernels}


def _print_ratios(out: Path, engines: list[str], layers: int | None) -> None:
    rows: dict[str, dict[str, Any]] = {}
    depth = layers or json.loads(MODEL.read_text(encoding="utf-8"))["num_hidden_layers"]
    for line in out.read_text(encoding="utf-8").splitlines() if out.exists() else ():
        row = json.loads(line)
        if row["layers"] == depth:
            rows[row["engine"]] = rows.get(row["engine"], {}) | row
    for name in engines:
        base = next(e for e in engines if _stored(e) == _stored(name))
        if name in rows and base in rows and name != base:
            for key, value in rows[name].items():
                if isinstance(value, float) and key in rows[base] and key != "start_s":
                    print(f"{name} / {base}  {key}: {value:.4g} / {rows[base][key]:.4g} = "
                          f"{value / rows[base][key]:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
