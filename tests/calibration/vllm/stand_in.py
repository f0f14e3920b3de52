"""A stand-in for vLLM: a package of a few lines that answers as the real one does.

`install(folder)` writes it; on PYTHONPATH it is what `import vllm` finds. FAKE_VLLM holds, as JSON,
what its worker finds (bytes), what it refuses with, and what it answers to a prompt.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from kvpareto.calibration.vllm import verify as verifier
from kvpareto.planner.hardware.gpu_names import find_gpu

QWEN = ["verify", "--engine", "vllm", "-m", "Qwen/Qwen3-8B", "--context", "4k", "--batch", "4"]

_ENGINE = """
import json, os, time
from dataclasses import dataclass
from types import SimpleNamespace

__version__ = "0.26.0"
SET = json.loads(os.environ.get("FAKE_VLLM", "{}"))


@dataclass
class SamplingParams:
    max_tokens: int = 16
    ignore_eos: bool = False
    temperature: float = 1.0
    detokenize: bool = True


class LLM:
    def __init__(self, model, disable_log_stats, **engine):
        from vllm.v1.worker.gpu_worker import Worker

        print("engine arguments", json.dumps(engine | {"model": model}), flush=True)
        if SET.get("dies"):
            os._exit(9)
        worker = Worker()
        left = worker.determine_available_memory()
        for line in SET.get("prints", ()):
            print(line, flush=True)
        if SET.get("refuses"):
            print("ERROR [core.py:1] ValueError: " + SET["refuses"], flush=True)
            raise RuntimeError("Engine core initialization failed")
        page = SimpleNamespace(block_size=16, page_size_bytes=65536)
        group = SimpleNamespace(layer_names=["0", "1"], kv_cache_spec=page)
        blocks = left // 131072
        worker.initialize_from_config(SimpleNamespace(num_blocks=blocks, kv_cache_groups=[group]))
        worker.model_runner.capture_model()

    def generate(self, prompts, params, use_tqdm):
        if SET.get("stops"):
            raise RuntimeError(SET["stops"])
        params = params if isinstance(params, list) else [params] * len(prompts)
        answer = SET.get("answer")
        outputs = []
        for prompt, asked in zip(prompts, params):
            tokens = list(answer or range(asked.max_tokens))[: asked.max_tokens]
            metrics = SimpleNamespace(
                first_token_latency=SET.get("ttft", 0.25),
                first_token_ts=1.0,
                last_token_ts=1.0 + SET.get("tpot", 0.005) * (len(tokens) - 1),
            )
            completion = SimpleNamespace(token_ids=tokens)
            outputs.append(SimpleNamespace(outputs=[completion], metrics=metrics))
        return outputs
"""
_WORKER = """
from types import SimpleNamespace
from vllm import SET


class Runner:
    def __init__(self):
        self.model_memory_usage = SET.get("weights", 16_000_000_000)

    def capture_model(self):
        return SET.get("graphs", 600_000_000)


class Worker:
    rank = 0
    use_v2_model_runner = True

    def __init__(self):
        if SET.get("silent"):
            del type(self).use_v2_model_runner
            return
        self.model_runner = Runner()
        self.init_snapshot = SimpleNamespace(total_memory=150_109_880_320)
        self.vllm_config = SimpleNamespace(cache_config=SimpleNamespace(block_size=16))

    def determine_available_memory(self):
        self.requested_memory = SET.get("requested", 138_101_089_895)
        self.peak_activation_memory = SET.get("activation", 940_000_000)
        self.non_torch_memory = SET.get("other", 243_000_000)
        self.cudagraph_memory_estimate = 0
        return SET.get("cache", 120_000_000_000)

    def initialize_from_config(self, config):
        self.config = config
"""
_CACHE = """
def get_kv_cache_capacity(vllm_config, kv_cache_config):
    return kv_cache_config.num_blocks * 16, 1.0
"""


def install(folder: Path) -> Path:
    """The folder to put on PYTHONPATH."""
    files = {
        "vllm/__init__.py": _ENGINE,
        "vllm/v1/__init__.py": "",
        "vllm/v1/core/__init__.py": "",
        "vllm/v1/core/kv_cache_utils.py": _CACHE,
        "vllm/v1/worker/__init__.py": "",
        "vllm/v1/worker/gpu_worker.py": _WORKER,
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


class Engine:
    """vLLM as a test wants it, on an H200."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch = monkeypatch
        path = install(folder)
        monkeypatch.setenv("PYTHONPATH", str(path))
        monkeypatch.syspath_prepend(path)
        monkeypatch.setattr(verifier, "detect_gpu", lambda: find_gpu("H200"))
        self.answers()

    def answers(self, **values: Any) -> None:
        self._patch.setenv("FAKE_VLLM", json.dumps(values))
