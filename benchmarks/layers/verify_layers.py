"""Models whose layers are no plain attention, run for real under the planner's upper end as a cap.

    python -m benchmarks.layers.verify_layers rows.jsonl --seconds 200
    python -m benchmarks.layers.verify_layers --plan-only
    python -m benchmarks.layers.verify_layers rows.jsonl --summary

Random weights at published shapes, cut in depth; one GPU. Each model is first checked: greedy
tokens in CUDA graphs equal those without, and logits those of the plain reference where the layers
are latent. Then its plans run, and every row has the planner's total beside the device's. Rows are
appended with fsync; a file that is there is gone on with.
"""

import argparse
import json
import os
import signal
import statistics
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvpareto.calibration.execution.memory_cap import prefer_expandable_segments
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_config
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import LatentAttention, ModelSpec
from kvpareto.planner.workload import Workload

from ..measure.row_file import RowFile, held, read

OUTPUT = 24
RUN_S, BUILD_S, MODEL_S = 4.0, 4.0, 50.0

_GRANITE: dict[str, Any] = {
    "model_type": "granitemoehybrid", "dtype": "bfloat16", "vocab_size": 100352,
    "num_hidden_layers": 40, "position_embedding_type": "nope", "tie_word_embeddings": True,
    "layer_types": [("attention" if i % 10 == 5 else "mamba") for i in range(40)],
    "mamba_d_head": 64, "mamba_d_state": 128, "mamba_n_groups": 1, "mamba_chunk_size": 256,
    "embedding_multiplier": 12, "attention_multiplier": 0.0078125, "residual_multiplier": 0.22,
    "logits_scaling": 8, "max_position_embeddings": 131072, "intermediate_size": 512,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    # ibm-granite/granite-4.0-h-micro, -h-tiny
    "granite-4.0-h-micro": _GRANITE | {
        "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 8,
        "shared_intermediate_size": 8192, "num_local_experts": 0, "num_experts_per_tok": 0,
        "mamba_n_heads": 64, "intermediate_size": 8192,
    },
    "granite-4.0-h-tiny": _GRANITE | {
        "hidden_size": 1536, "num_attention_heads": 12, "num_key_value_heads": 4,
        "shared_intermediate_size": 1024, "num_local_experts": 64, "num_experts_per_tok": 6,
        "mamba_n_heads": 48,
    },
    # ibm-ai-platform/Bamba-9B
    "bamba-9b": {
        "model_type": "bamba", "dtype": "bfloat16", "hidden_size": 4096, "num_hidden_layers": 20,
        "attn_layer_indices": [9, 18], "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14336, "mamba_n_heads": 128, "mamba_d_head": 64,
        "mamba_d_state": 128, "vocab_size": 128256, "max_position_embeddings": 131072,
    },
    # tiiuae/Falcon-H1-7B-Instruct
    "falcon-h1-7b": {
        "model_type": "falcon_h1", "dtype": "bfloat16", "hidden_size": 3072,
        "num_hidden_layers": 24, "num_attention_heads": 12, "num_key_value_heads": 2,
        "head_dim": 128, "intermediate_size": 12288, "mamba_d_ssm": 3072, "mamba_n_heads": 24,
        "mamba_d_head": 128, "mamba_d_state": 256, "mamba_n_groups": 1, "mamba_chunk_size": 256,
        "vocab_size": 130048, "max_position_embeddings": 131072,
    },
    # LiquidAI/LFM2-2.6B
    "lfm2-2.6b": {
        "model_type": "lfm2", "dtype": "bfloat16", "hidden_size": 2048, "num_hidden_layers": 30,
        "full_attn_idxs": [2, 6, 9, 12, 15, 18, 21, 25], "num_attention_heads": 32,
        "num_key_value_heads": 8, "block_ff_dim": 10752, "block_auto_adjust_ff_dim": False,
        "vocab_size": 65536, "max_position_embeddings": 128000,
    },
    # zai-org/GLM-4.7-Flash
    "glm-4.7-flash": {
        "model_type": "glm4_moe_lite", "dtype": "bfloat16", "hidden_size": 2048,
        "num_hidden_layers": 24, "num_attention_heads": 20, "num_key_value_heads": 20,
        "q_lora_rank": 768, "kv_lora_rank": 512, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64,
        "v_head_dim": 256, "intermediate_size": 10240, "moe_intermediate_size": 1536,
        "n_routed_experts": 64, "num_experts_per_tok": 4, "n_shared_experts": 1,
        "vocab_size": 154880, "max_position_embeddings": 202752,
    },
    # moonshotai/Kimi-Linear-48B-A3B-Instruct
    "kimi-linear": {
        "model_type": "kimi_linear", "dtype": "bfloat16", "hidden_size": 2304,
        "num_hidden_layers": 8, "num_attention_heads": 32, "num_key_value_heads": 32,
        "head_dim": 72, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "v_head_dim": 128, "q_lora_rank": None, "intermediate_size": 9216,
        "moe_intermediate_size": 1024, "num_experts": 256, "num_experts_per_token": 8,
        "num_shared_experts": 1, "first_k_dense_replace": 1, "vocab_size": 163840,
        "linear_attn_config": {"full_attn_layers": [4, 8], "kda_layers": [1, 2, 3, 5, 6, 7],
                               "head_dim": 128, "num_heads": 32, "short_conv_kernel_size": 4},
        "max_position_embeddings": 1048576,
    },
    # Zyphra/Zamba2-7B
    "zamba2-7b": {
        "model_type": "zamba2", "dtype": "bfloat16", "hidden_size": 3584,
        "num_hidden_layers": 27, "num_attention_heads": 32, "num_key_value_heads": 32,
        "attention_head_dim": 224, "intermediate_size": 14336, "mamba_d_state": 64,
        "mamba_ngroups": 2, "n_mamba_heads": 112, "mamba_headdim": 64, "mamba_expand": 2,
        "num_mem_blocks": 2, "use_mem_rope": True, "use_shared_attention_adapter": False,
        "adapter_rank": 128, "vocab_size": 32000, "max_position_embeddings": 4096,
        "layers_block_type": [("hybrid" if i in (5, 11, 17, 23) else "mamba") for i in range(27)],
        "hybrid_layer_ids": [5, 11, 17, 23],
    },
    # MiniMaxAI/MiniMax-M1-40k, its experts and its layers cut
    "minimax-m1": {
        "model_type": "minimax", "dtype": "bfloat16", "hidden_size": 6144,
        "num_hidden_layers": 8, "num_attention_heads": 64, "num_key_value_heads": 8,
        "head_dim": 128, "intermediate_size": 9216, "num_local_experts": 8,
        "num_experts_per_tok": 2, "vocab_size": 200064, "max_position_embeddings": 1000000,
        "layer_types": (["linear_attention"] * 7 + ["full_attention"]), "block_size": 256,
    },
    # google/gemma-3n-E4B-it, its decoder
    "gemma-3n-e4b": {
        "model_type": "gemma3n_text", "dtype": "bfloat16", "hidden_size": 2048,
        "num_hidden_layers": 35, "num_attention_heads": 8, "num_key_value_heads": 2,
        "head_dim": 256, "intermediate_size": 16384, "sliding_window": 512,
        "num_kv_shared_layers": 15, "vocab_size": 262400, "max_position_embeddings": 32768,
    },
}  # fmt: skip
PUBLISHED = {
    "deepseek-v2-lite": "deepseek-ai/DeepSeek-V2-Lite-Chat",
    "gpt-oss-20b": "openai/gpt-oss-20b",
    "llama-4-scout": "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "nemotron-3-nano": "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "qwen3-next": "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "qwen3.5-27b": "Qwen/Qwen3.5-27B",
}
DEPTH = {"gpt-oss-20b": 16, "llama-4-scout": 8, "nemotron-3-nano": 14, "qwen3-next": 8,
         "qwen3.5-27b": 24}  # fmt: skip

CASES: tuple[tuple[str, str, int, int], ...] = (
    # (model, configuration, context, batch)
    ("deepseek-v2-lite", "w4a16-k4v4-g64+pc1024", 16384, 1),
    ("deepseek-v2-lite", "w4a16-k8v8-g64+rope8+pc4096", 30000, 1),
    ("deepseek-v2-lite", "w4a16-k16v16+pc512", 8192, 4),
    ("granite-4.0-h-micro", "w16a16-k8v8-g64+pc512", 8192, 1),
    ("granite-4.0-h-micro", "w16a16-k4v4-g64+pc2048", 12000, 1),
    ("glm-4.7-flash", "w8a16-k8v8-g64+pc1024", 16384, 1),
    ("glm-4.7-flash", "w8a16-k4v4-g64+pc2048", 20000, 1),
    ("lfm2-2.6b", "w16a16-k8v8-g64+pc1024", 32768, 1),
    ("lfm2-2.6b", "w16a16-k4v4-kc", 12000, 1),
    ("falcon-h1-7b", "w16a16-k8v8-g64+pc512", 8192, 1),
    ("falcon-h1-7b", "w16a16-k4v4-g64+pc1024", 6000, 2),
    ("llama-4-scout", "w4a16-k8v8-g64+pc1024", 20000, 1),
    ("llama-4-scout", "w4a16-k4v4-g64+pc512", 10000, 2),
    ("gemma-3n-e4b", "w16a16-k8v8-g64+pc1024", 16384, 1),
    ("gemma-3n-e4b", "w16a16-k4v4-g64+pc512", 8192, 1),
    ("gpt-oss-20b", "w16a16-k8v8-g64+pc1024", 16384, 1),
    ("gpt-oss-20b", "w16a16-k4v4-g64+pc512", 16384, 1),
    ("nemotron-3-nano", "w8a16-k8v8-g64+pc512", 8192, 1),
    ("nemotron-3-nano", "w8a16-k4v4-g64+pc1024", 8192, 1),
    ("bamba-9b", "w16a16-k8v8-g64+pc512", 8192, 1),
    ("bamba-9b", "w16a16-k4v4-g64+pc1024", 8192, 1),
    ("qwen3-next", "w8a16-k8v8-g64+pc512", 8192, 1),
    ("qwen3-next", "w8a16-k4v4-g64+pc1024", 8192, 1),
    ("granite-4.0-h-tiny", "w8a16-k8v8-g64+pc512", 8192, 1),
    ("granite-4.0-h-tiny", "w8a16-k4v4-g64+pc1024", 8192, 1),
    ("kimi-linear", "w8a16-k8v8-g64+pc512", 16384, 1),
    ("kimi-linear", "w8a16-k4v4-g64+pc1024", 16384, 1),
    ("zamba2-7b", "w16a16-k8v8+pc512", 4000, 1),
    ("zamba2-7b", "w16a16-k4v4+pc1024", 3000, 2),
    ("minimax-m1", "w4a16-k8v8-g64+pc1024", 16384, 1),
    ("minimax-m1", "w4a16-k4v4-g64+pc512", 8192, 1),
    ("qwen3.5-27b", "w4a16-k8v8-g64+pc1024", 16384, 1),
    ("qwen3.5-27b", "w4a16-k4v4-g64+pc512", 8192, 1),
)


@dataclass(frozen=True)
class Case:
    model: str
    config: Configuration
    workload: Workload

    @property
    def key(self) -> tuple[Any, ...]:
        return self.model, str(self.config), self.workload.context, self.workload.batch


def architecture(model: str) -> dict[str, Any]:
    """The config that a model is run with: in 16 bits, as deep as DEPTH says."""
    found = MODELS.get(model) or load_config(PUBLISHED[model], offline=True).config
    content = dict(found.get("text_config", found)) | {"dtype": "bfloat16"}
    content.pop("quantization_config", None)
    depth = DEPTH.get(model)
    if depth is None:
        return content
    for name in ("layer_types", "hybrid_override_pattern", "layers_block_type", "no_rope_layers"):
        if content.get(name) is not None:
            content[name] = content[name][:depth]
    return content | {"num_hidden_layers": depth}


def cases() -> list[Case]:
    return [
        Case(model, Configuration.parse(text), Workload(context, OUTPUT, batch))
        for model, text, context, batch in CASES
    ]


def spec_of(model: str) -> ModelSpec:
    return read_model(architecture(model), model)


@contextmanager
def folder_of(model: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / model
        path.mkdir()
        (path / "config.json").write_text(json.dumps(architecture(model)))
        yield str(path)


def check(opened: Any, config: Configuration, spec: ModelSpec) -> dict[str, Any]:
    """Tokens in graphs and without, and where latents are packed, logits by the plain way."""
    import torch

    from kvpareto.runtime.session import Session

    ids = torch.randint(5, 5000, (1, 700), generator=torch.Generator().manual_seed(3))
    found: dict[str, Any] = {}

    def run(**choices: Any) -> tuple[Any, list[int]]:
        with Session(opened.model, spec, config.with_chunk(256), tokens=740, **choices) as session:
            logits = session.prefill(ids).float().cpu()
            tokens = session.generate(ids, 16, stops=frozenset()).tokens[0]
            found.setdefault("why_eager", session.why_eager)
            return logits, tokens

    logits, tokens = run()
    again, eager = run(graphs=False)
    found["same_logits"] = float((logits - again).norm() / again.norm())
    found["same_tokens"] = sum(a == b for a, b in zip(tokens, eager, strict=True)) / len(tokens)
    return found


def check_latents(model: str, config: Configuration) -> dict[str, Any]:
    """Logits by the kernels beside those by the plain way, of a few layers without experts, whose
    routing a last bit would change."""
    import torch

    from kvpareto.runtime.session import Session
    from kvpareto.runtime.weights.random import random_model

    content = architecture(model) | {"num_hidden_layers": 4, "first_k_dense_replace": 4}
    if "linear_attn_config" in content:
        content["linear_attn_config"] = content["linear_attn_config"] | {
            "full_attn_layers": [4],
            "kda_layers": [1, 2, 3],
        }
    if content["model_type"] == "glm4_moe_lite":
        content["mlp_layer_types"] = ["dense"] * 4
    spec = read_model(content, model)
    few = random_model(content, 16, "cuda")
    ids = torch.randint(5, 5000, (1, 700), generator=torch.Generator().manual_seed(3))
    logits, tokens = [], []
    for kernels in (True, False):
        with Session(few, spec, config.with_chunk(256), tokens=740, kernels=kernels) as session:  # type: ignore[arg-type]
            logits.append(session.prefill(ids).float().cpu())
            tokens.append(session.generate(ids, 16, stops=frozenset()).tokens[0])
    off = float((logits[0] - logits[1]).norm() / logits[1].norm())
    same = sum(a == b for a, b in zip(*tokens, strict=True)) / len(tokens[0])
    return {"reference_logits": off, "reference_tokens": same}


def run_all(wanted: list[Case], rows: RowFile, seconds: float) -> None:
    from kvpareto.calibration.execution.loaded_model import open_model
    from kvpareto.calibration.execution.run import execute
    from kvpareto.calibration.execution.run_record import Warmup

    began = time.monotonic()
    signal.signal(signal.SIGALRM, _late)
    gpu = find_gpu("H200") if "H200" in _device_name() else find_gpu("H100 SXM")
    blocks: dict[tuple[str, int], list[Case]] = {}
    for case in wanted:
        if case.key not in rows.done:
            blocks.setdefault((case.model, case.config.weight_bits), []).append(case)
    for (model, bits), members in blocks.items():
        left = seconds - (time.monotonic() - began)
        if left < BUILD_S + RUN_S:
            break
        signal.alarm(int(min(left, MODEL_S)))
        try:
            more = {}
            if any(isinstance(m, LatentAttention) for m, _ in spec_of(model).mixer_counts):
                print("  ", more := check_latents(model, members[0].config), flush=True)
            with folder_of(model) as source, open_model(
                source, bits, device="cuda", random_weights=True, offline=True
            ) as opened:  # fmt: skip
                print(f"{model} w{bits}: {opened.seconds:.1f} s", flush=True)
                checked = check(opened, members[0].config, opened.spec)
                print("  ", checked, flush=True)
                for case in members:
                    if seconds - (time.monotonic() - began) < RUN_S:
                        break
                    size = estimate(opened.spec, case.config, case.workload, KVPARETO, gpu)
                    found = execute(
                        opened, case.config, case.workload, budget=size.total_high,
                        warmup=Warmup.SHORT,
                    )  # fmt: skip
                    row = {
                        "key": list(case.key), "check": checked | more, "predicted": _numbers(size),
                        "outcome": found.outcome, "reason": found.reason,
                        "execution": found.model_dump(
                            mode="json", by_alias=True, exclude_none=True
                        ),
                    }  # fmt: skip
                    rows.append(row)
                    print("  ", line(row), f"{time.monotonic() - began:.0f} s", flush=True)
        except Exception as error:
            traceback.print_exc()
            print(f"{model} w{bits} cannot run: {error!r:.600}", flush=True)
        finally:
            signal.alarm(0)


def _late(*_: object) -> None:
    raise TimeoutError(f"a model took more than {MODEL_S} s")


def _numbers(size: Any) -> dict[str, int]:
    names = ("weights", "kv", "activation", "overhead", "total", "total_low", "total_high",
             "allocated_resident", "allocated_peak")  # fmt: skip
    return {name: getattr(size, name) for name in names}


def _device_name() -> str:
    import torch

    return str(torch.cuda.get_device_name())


def line(row: dict[str, Any]) -> str:
    """One row: what was predicted, what was measured, the difference of each."""
    planned, run, used = row["predicted"], row["execution"], held(row)
    if used is None:
        return f"{row['key']} {row['outcome']}: {row['reason']!s:.300}"
    peak = max(run.get("peaks", {}).values(), default=0)
    return (
        f"{row['key']} {row['outcome']}: total {used / 1e9:.3f} GB, planned "
        f"{planned['total'] / 1e9:.3f} ({planned['total'] / used - 1:+.2%}); weights "
        f"{planned['weights'] - run.get('weights', 0):+d}, kv {planned['kv'] - run.get('kv', 0):+d}"
        f", allocated peak {peak / 1e9:.3f} planned {planned['allocated_peak'] / 1e9:.3f}; "
        f"TTFT {run.get('ttft_s', 0):.2f} s, TPOT {1e3 * run.get('tpot_s', 0):.2f} ms"
    )


def summary(rows: list[dict[str, Any]]) -> str:
    measured = [row for row in rows if held(row) is not None]
    gaps = sorted(abs(row["predicted"]["total"] / (held(row) or 1) - 1) for row in measured)
    models = len({row["key"][0] for row in measured})
    lost = sum(row["outcome"] != "ok" for row in rows)
    if not gaps:
        return "no rows"
    return (
        f"{len(rows)} plans of {models} models, {lost} not within the cap; total off by "
        f"{statistics.median(gaps):.2%} in the median, {gaps[-1]:.2%} at worst"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, nargs="?", help="rows are appended to this file")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run after this long")
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--plan-only", action="store_true", help="print what would be run")
    parser.add_argument("--summary", action="store_true", help="of the rows that are there")
    chosen = parser.parse_args()
    if chosen.output is None and not chosen.plan_only:
        parser.error("a file for the rows, or --plan-only")
    names = chosen.only.split(",")
    wanted = [case for name in names for case in cases() if name in case.model]
    if chosen.plan_only:
        gpu = find_gpu("H200")
        for case in wanted:
            spec = spec_of(case.model)
            size = estimate(spec, case.config, case.workload, KVPARETO, gpu)
            print(*case.key, f"{size.total / 1e9:.2f} GB", spec.runnable)
        return
    if not chosen.summary:
        prefer_expandable_segments()
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        run_all(wanted, RowFile(chosen.output), chosen.seconds)
    rows = read(chosen.output)
    for row in rows:
        print(line(row))
    print(summary(rows))


if __name__ == "__main__":
    main()
