"""Latent attention over packed latents: transformers' logits, two ways that agree, exact bytes."""

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.kvpareto.where_runs import why_planned_only
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.workload import Workload
from kvpareto.runtime import latent
from kvpareto.runtime.weights.quantize_modules import apply
from tests.support.models.hybrid_models import (
    check_equals_transformers,
    check_joining,
    hybrid,
)
from tests.support.runtime_builders import TOLERANCE, relative_error, session
from tests.support.tiny_configs import CONFIGS

pytestmark = pytest.mark.cpu

KINDS = ("deepseek_v2", "deepseek_v3", "glm4_moe_lite", "minicpm3", "youtu")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", ["", "+pc5"], ids=["one-shot", "chunk-5"])
def test_sixteen_bits_equal_transformers(kind: str, chunk: str) -> None:
    model = hybrid(kind)
    check_equals_transformers(model, "w16a16-k16v16" + chunk)
    assert not any("expand_kv" in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("text", ["k8v8-g32", "k4v4-g32+res5+sink2", "k4v4+rope8", "k8v8+rope4"])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_cache_takes_what_the_planner_counts(text: str, batch: int) -> None:
    model = hybrid("deepseek_v3")
    spec = read_model(model.config.to_dict() | {"dtype": "float32"}, "test")
    config = Configuration.parse(f"w16a16-{text}+pc8")
    predicted = kv_bytes(spec, config, Workload(30, 10, batch), KVPARETO).total
    with session(model, str(config), tokens=40, batch=batch) as run:
        assert run.cache.nbytes == predicted


def test_rotary_keys_take_the_bits_that_are_asked_for() -> None:
    spec = read_model(CONFIGS["deepseek_v3"], "test")  # rank 20, rotary 8, four layers

    def per_token(text: str) -> int:
        return kv_bytes(spec, Configuration.parse(text), Workload(100, 0), KVPARETO).per_token

    assert per_token("w16a16-k8v8") == 4 * (20 + 4 + 16)
    assert per_token("w16a16-k8v8+rope8") == 4 * (20 + 4 + 8 + 4)
    assert per_token("w16a16-k8v8+rope4") == 4 * (20 + 4 + 4 + 4)


@pytest.mark.parametrize("text", ["k16v16", "k8v8-g32", "k4v4-g32+res5", "k8v8+rope8"])
def test_both_ways_give_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk attends to expanded latents, a token to the latents themselves."""
    model = hybrid("deepseek_v3")
    ids = torch.randint(3, 90, (2, 17), generator=torch.Generator().manual_seed(2))
    with session(model, f"w16a16-{text}+pc6", tokens=40, batch=2) as run:
        expected = run.prefill(ids)
        absorbed = latent.absorbed
        monkeypatch.setattr(
            latent, "expanded", lambda *args: absorbed(*args, latent.attend_latents)
        )
        assert relative_error(run.prefill(ids), expected) < TOLERANCE


def test_fewer_bits_cost_more() -> None:
    model = hybrid("deepseek_v3")
    ids = torch.randint(3, 90, (1, 23), generator=torch.Generator().manual_seed(1))
    found = {}
    for text in ("k16v16", "k8v8-g32", "k4v4-g32"):
        with session(model, f"w16a16-{text}", tokens=40) as run:
            found[text] = run.prefill(ids)
    near, far = (relative_error(found[text], found["k16v16"]) for text in ("k8v8-g32", "k4v4-g32"))
    assert 0 < near < far / 4


def model_of_wide_latents() -> PreTrainedModel:
    """One whose kv_b_proj is wide enough for packed weights."""
    fields = {"hidden_size": 128, "kv_lora_rank": 128, "q_lora_rank": 128, "v_head_dim": 32}
    fields |= {"qk_nope_head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 4}
    content = {k: v for k, v in CONFIGS["deepseek_v3"].items() if k not in ("model_type", "dtype")}
    torch.manual_seed(3)
    config = CONFIG_MAPPING["deepseek_v3"](**{**content, **fields})
    found: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    return found


def test_packed_weights_are_absorbed_too() -> None:
    """kv_b_proj at 8 bits: the absorbed way dequantizes it, and agrees with the product."""
    pytest.importorskip("triton")
    model = model_of_wide_latents()
    apply(model, 8)
    project = model.model.layers[0].self_attn.kv_b_proj
    assert type(project).__name__ == "W8Linear"
    up = latent.Expansion.of(model.model.layers[0].self_attn)
    keys, values = up.weights(torch.float32)
    latents = torch.randn(1, 7, 128)
    wide, tall = up(latents, torch.zeros(1, 7, 8))
    assert relative_error(latents @ keys.mT, wide[0, :, :, :32]) < 1e-5
    assert relative_error(latents @ values, tall[0]) < 1e-5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("k8v4", "key and value at once"),
        ("k4v4-kc", "one scale a token"),
        ("k4v4+rot", "one scale a token"),
        ("k4v4-g32+protect{1}:k8v4", "key and value at once"),
    ],
)
def test_formats_that_latents_have_not_are_refused(text: str, said: str) -> None:
    model, config = hybrid("deepseek_v2"), f"w16a16-{text}"
    spec = read_model(CONFIGS["deepseek_v2"], "test")
    with pytest.raises(BadInput, match=said):
        kv_bytes(spec, Configuration.parse(config), Workload(30, 10), KVPARETO)
    with pytest.raises(BadInput, match=said):
        session(model, config, tokens=40)


def test_rotary_bits_are_of_latent_attention_alone() -> None:
    spec = read_model(CONFIGS["llama"], "test")
    with pytest.raises(BadInput, match="which llama has not"):
        kv_bytes(spec, Configuration.parse("w16a16-k8v8+rope8"), Workload(30, 10), KVPARETO)


@pytest.mark.parametrize("kind", ["deepseek_v32", "glm_moe_dsa"])
def test_an_indexer_is_refused_by_name(kind: str) -> None:
    spec = read_model(CONFIGS[kind], "test")
    assert not spec.runnable
    assert "sparse indexer" in (why_planned_only(spec, None) or "")
    with pytest.raises(BadInput, match="sparse indexer"):
        session(hybrid(kind), "w16a16-k16v16", tokens=40)


def test_sequences_join_and_leave() -> None:
    check_joining(hybrid("deepseek_v2"))
