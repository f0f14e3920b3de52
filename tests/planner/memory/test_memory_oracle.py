"""Predicted live bytes held to transformers itself, run on the meta device and counted."""

from typing import Any

import pytest
import transformers

from kvpareto.calibration.evidence.memory_tables import configs
from kvpareto.planner.engine import Activation
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.engines.transformers_eager import TRANSFORMERS_EAGER
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.activation.block_traits import LLAMA
from kvpareto.planner.memory.activation.family_traits import block_traits_of
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.workload import Workload
from tests.support.oracle.transformers_memory import Memory, build, measure

# transformers 5.23 rewrote these since 5.17, whose passes the planner counts: gated delta nets,
# Mamba-2 (an order of magnitude less memory) and Falcon's attention; Gemma 2 lost SDPA. They are
# held to an H200 with 5.17 instead (test_memory_measured.py).
REWRITTEN = (
    "Qwen/Qwen3.5-35B-A3B",
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "tiiuae/falcon-7b",
)
EAGER_ONLY = ("openai/gpt-oss-20b", "google/gemma-2-2b-it")
MEASURED = [name for name in configs() if name not in REWRITTEN]

# Families that nobody measured, at their configuration classes' own shapes.
OTHERS: dict[str, dict[str, Any]] = {
    "bitnet": {"num_hidden_layers": 2},
    "cohere": {"num_hidden_layers": 2, "hidden_size": 4096, "intermediate_size": 11264,
               "num_attention_heads": 32, "vocab_size": 100_000},
    "cohere2": {"num_hidden_layers": 5, "hidden_size": 4096, "intermediate_size": 14336,
                "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 100_000},
    "ernie4_5": {"num_hidden_layers": 3, "head_dim": 128},
    "exaone4": {"num_hidden_layers": 5},
    "exaone_moe": {"num_hidden_layers": 3, "num_experts": 32},
    "falcon": {"num_hidden_layers": 2, "hidden_size": 2048, "num_attention_heads": 32,
               "num_kv_heads": 4, "new_decoder_architecture": True},
    "glm4": {"num_hidden_layers": 3},
    "gpt_bigcode": {"n_layer": 3, "n_embd": 2048, "n_head": 16, "multi_query": True},
    "gpt_neox": {"num_hidden_layers": 3, "hidden_size": 2560, "num_attention_heads": 32,
                 "intermediate_size": 10240, "use_parallel_residual": False},
    "granite": {"num_hidden_layers": 3},
    "granitemoe": {"num_hidden_layers": 3, "hidden_size": 2048, "intermediate_size": 1024,
                   "num_attention_heads": 16, "num_local_experts": 32, "num_experts_per_tok": 8},
    "hunyuan_v1_dense": {"num_hidden_layers": 3, "head_dim": 128},
    "hunyuan_v1_moe": {"num_hidden_layers": 2, "hidden_size": 2048, "intermediate_size": 1536,
                       "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128,
                       "num_experts": 16, "moe_topk": 4},
    "lfm2": {"num_hidden_layers": 4},
    "olmo3": {"num_hidden_layers": 5},
    "olmoe": {"num_hidden_layers": 3},
    "phi": {"num_hidden_layers": 3, "hidden_size": 2560, "intermediate_size": 10240,
            "num_attention_heads": 32, "partial_rotary_factor": 0.4},
    "qwen2_moe": {"num_hidden_layers": 3, "num_experts": 12},
    "seed_oss": {"num_hidden_layers": 3},
    "stablelm": {"num_hidden_layers": 3, "num_key_value_heads": 8, "use_parallel_residual": True},
    "starcoder2": {"num_hidden_layers": 3},
}  # fmt: skip
MORE_OTHERS: dict[str, dict[str, Any]] = {
    "gpt_neo": {"hidden_size": 2048, "num_layers": 4, "num_heads": 16,
                "attention_types": [[["global", "local"], 2]]},
    "glm_moe_dsa": {"num_hidden_layers": 4, "n_routed_experts": 32},
    "gemma3n_text": {"num_hidden_layers": 10, "num_kv_shared_layers": 5},
}  # fmt: skip
CASES = [(1000, None), (4096, None), (4096, 1024), (4100, 512), (12288, None), (12288, 2048)]


def _check(predicted: Activation, counted: Memory, part: float) -> None:
    """Above the weights, so that their bytes do not dilute the error."""
    weights = counted.weights
    assert predicted.prefill_peak == pytest.approx(counted.peak_prefill - weights, rel=part)
    assert predicted.resident == pytest.approx(counted.resident - weights, rel=part)


def _spec(config: dict[str, Any]) -> Any:
    return read_model({**config, "dtype": "bfloat16"}, config["model_type"])


@pytest.fixture(scope="module")
def models() -> dict[tuple[str, str], Any]:
    return {}


def _model(models: dict[tuple[str, str], Any], name: str, attention: str) -> tuple[Any, Any]:
    if (name, attention) not in models:
        models.clear()  # tests come model by model
        others = OTHERS | MORE_OTHERS
        if name in others:
            config = transformers.AutoConfig.for_model(name, **others[name]).to_dict()
        else:
            config = configs()[name]
        models[name, attention] = _spec(config), build(config, attention)
    return models[name, attention]


@pytest.mark.parametrize(("context", "chunk"), CASES, ids=lambda x: str(x or "one-shot"))
@pytest.mark.parametrize("name", [x for x in MEASURED if x not in EAGER_ONLY])
def test_sdpa(
    models: dict[tuple[str, str], Any], name: str, context: int, chunk: int | None
) -> None:
    spec, model = _model(models, name, "sdpa")
    counted = measure(model, context, chunk)
    predicted = TRANSFORMERS.activation(spec, Configuration(chunk=chunk), Workload(context, 2))
    _check(predicted, counted, part=0.005)


@pytest.mark.parametrize(("context", "chunk"), [(2048, None), (2100, 512)])
@pytest.mark.parametrize("name", MEASURED)
def test_eager(
    models: dict[tuple[str, str], Any], name: str, context: int, chunk: int | None
) -> None:
    spec, model = _model(models, name, "eager")
    counted = measure(model, context, chunk)
    workload = Workload(context, 2)
    predicted = TRANSFORMERS_EAGER.activation(spec, Configuration(chunk=chunk), workload)
    _check(predicted, counted, part=0.01)


@pytest.mark.parametrize(("context", "chunk"), [(4096, None), (4100, 512)])
@pytest.mark.parametrize("name", OTHERS)
def test_families_nobody_measured(
    models: dict[tuple[str, str], Any], name: str, context: int, chunk: int | None
) -> None:
    spec, model = _model(models, name, "sdpa")
    counted = measure(model, context, chunk)
    predicted = TRANSFORMERS.activation(spec, Configuration(chunk=chunk), Workload(context, 2))
    _check(predicted, counted, part=0.01)


@pytest.mark.parametrize("batch", [2, 3])
@pytest.mark.parametrize("full_logits", [False, True], ids=["last-logits", "full-logits"])
def test_batches_and_logits(
    models: dict[tuple[str, str], Any], batch: int, full_logits: bool
) -> None:
    spec, model = _model(models, "google/gemma-3-4b-it", "sdpa")
    counted = measure(model, 1500, None, batch=batch, full_logits=full_logits)
    workload = Workload(1500, 2, batch, full_logits)
    predicted = TRANSFORMERS.activation(spec, Configuration(), workload)
    _check(predicted, counted, part=0.01)


@pytest.mark.parametrize("context", [1100, 2000])
def test_eager_with_scores_in_float32(models: dict[tuple[str, str], Any], context: int) -> None:
    spec, model = _model(models, "gpt_neo", "eager")
    counted = measure(model, context, None)
    predicted = TRANSFORMERS_EAGER.activation(spec, Configuration(), Workload(context, 2))
    _check(predicted, counted, part=0.01)


@pytest.mark.parametrize("name", ["cohere2", "granite", "granitemoe"])
def test_logits_that_are_scaled(models: dict[tuple[str, str], Any], name: str) -> None:
    spec, model = _model(models, name, "sdpa")
    counted = measure(model, 1500, None, full_logits=True)
    workload = Workload(1500, 2, full_logits=True)
    predicted = TRANSFORMERS.activation(spec, Configuration(), workload)
    _check(predicted, counted, part=0.01)


@pytest.mark.parametrize("batch", [1, 3])
def test_an_indexer_in_batches(models: dict[tuple[str, str], Any], batch: int) -> None:
    spec, model = _model(models, "glm_moe_dsa", "sdpa")
    counted = measure(model, 1500, None, batch=batch)
    predicted = TRANSFORMERS.activation(spec, Configuration(), Workload(1500, 2, batch))
    _check(predicted, counted, part=0.03)


@pytest.mark.parametrize(("context", "chunk"), [(4096, None), (4100, 512)])
def test_streams_of_altup(
    models: dict[tuple[str, str], Any], context: int, chunk: int | None
) -> None:
    spec, model = _model(models, "gemma3n_text", "sdpa")
    counted = measure(model, context, chunk)
    predicted = TRANSFORMERS.activation(spec, Configuration(chunk=chunk), Workload(context, 2))
    _check(predicted, counted, part=0.01)


def test_a_text_model_inside_another_is_written_as_its_own_family() -> None:
    """GLM-4.5V's decoder keeps routing weights in float32, as GLM-4.5's does."""
    text = {"num_hidden_layers": 2, "n_routed_experts": 8, "first_k_dense_replace": 1}
    outer = read_model({"model_type": "glm4v_moe", "dtype": "bfloat16", "text_config": text}, "x")
    alone = read_model({"model_type": "glm4_moe", "dtype": "bfloat16", **text}, "x")
    assert (outer.text_type, alone.text_type) == ("glm4v_moe_text", "glm4_moe")
    assert block_traits_of(outer.text_type) == block_traits_of(alone.text_type) != LLAMA


@pytest.mark.parametrize("steps", [1, 40])
def test_decode(models: dict[tuple[str, str], Any], steps: int) -> None:
    spec, model = _model(models, "Qwen/Qwen3-8B", "sdpa")
    counted = measure(model, 3000, None, steps=steps)
    predicted = TRANSFORMERS.activation(spec, Configuration(), Workload(3000, steps))
    assert predicted.decode_peak == pytest.approx(counted.peak_decode - counted.weights, rel=0.01)
