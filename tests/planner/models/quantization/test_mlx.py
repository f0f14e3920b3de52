"""MLX checkpoints to the byte, what their files say of single modules, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from kvpareto.cli import run
from kvpareto.planner.errors import BadConfig, BadInput
from kvpareto.planner.load_model import load_config
from kvpareto.planner.memory.weights import available_weight_bits, checkpoint_storage, weight_bytes
from kvpareto.planner.models.quantization.quantization_config import read_quantization
from kvpareto.planner.models.quantization.section import find_section
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec, Role
from kvpareto.runtime import load
from tests.planner.models.quantization.small_checkpoint import GROUP64, dense

EMBEDDING = 1000 * 256
ATTENTION = 2 * 256 * 256 + 2 * 128 * 256  # q and o, k and v
FFN = 3 * 512 * 256
MATRICES = 2 * EMBEDDING + 2 * (ATTENTION + FFN)
NORMS = 2 * (2 * 2 + 1) * 256  # in 16 bits


def total(spec: ModelSpec) -> int:
    return weight_bytes(spec, available_weight_bits(spec)[0]).total


def quantized(weights: int, bits: int, group: int, beside: int = 4) -> int:
    """`bits` a weight, and `beside` bytes for each group."""
    return weights * bits // 8 + weights // group * beside


@pytest.mark.parametrize(
    ("section", "bits", "group", "beside"),
    [
        (GROUP64, 4, 64, 4),
        ({"group_size": 64, "bits": 4}, 4, 64, 4),  # before there were modes
        ({"group_size": 32, "bits": 8, "mode": "affine"}, 8, 32, 4),
        ({"group_size": 128, "bits": 3}, 3, 128, 4),
        ({"group_size": 64, "bits": 6}, 6, 64, 4),
        ({"group_size": 32, "bits": 5}, 5, 32, 4),
        ({"group_size": 64, "bits": 2}, 2, 64, 4),
        ({"group_size": 32, "bits": 4, "mode": "mxfp4"}, 4, 32, 1),
        ({"group_size": 32, "bits": 8, "mode": "mxfp8"}, 8, 32, 1),
        ({"group_size": 16, "bits": 4, "mode": "nvfp4"}, 4, 16, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("key", ["quantization", "quantization_config"])
def test_every_matrix_and_the_embeddings_are_quantized(
    section: dict[str, Any], bits: int, group: int, beside: int, key: str
) -> None:
    config = dense()
    del config["quantization"]
    spec = read_model({**config, key: section}, "mlx")
    assert total(spec) == quantized(MATRICES, bits, group, beside) + NORMS
    assert spec.quantization is not None
    assert spec.quantization.method == "mlx"
    assert any("MLX" in warning for warning in spec.warnings)


def test_a_float32_checkpoint_has_scales_and_biases_in_float32() -> None:
    spec = read_model(dense(torch_dtype="float32"), "mlx")
    assert total(spec) == quantized(MATRICES, 4, 64, 8) + 2 * NORMS


def test_modules_with_settings_of_their_own() -> None:
    section = {
        **GROUP64,
        "lm_head": False,
        "model.embed_tokens": {"group_size": 32, "bits": 8},
        "model.layers.1.mlp.down_proj": {"group_size": 64, "bits": 6},
        "model.layers.0.self_attn.v_proj": {"bits": 8},  # in the file's groups
        "model.layers.0.self_attn.q_proj": True,  # as the others
    }
    spec = read_model(dense(quantization=section), "mlx")
    down, value = 512 * 256, 128 * 256
    rest = MATRICES - 2 * EMBEDDING - down - value
    assert total(spec) == (
        NORMS
        + 2 * EMBEDDING
        + quantized(EMBEDDING, 8, 32)
        + quantized(down, 6, 64)
        + quantized(value, 8, 64)
        + quantized(rest, 4, 64)
    )
    assert not any("is not read to have" in warning for warning in spec.warnings)


def test_a_tied_head_is_one_quantized_embedding() -> None:
    spec = read_model(dense(tie_word_embeddings=True), "mlx")
    assert total(spec) == quantized(MATRICES - EMBEDDING, 4, 64) + NORMS


def test_a_matrix_whose_inputs_are_no_multiple_of_the_group_stays() -> None:
    spec = read_model(dense(intermediate_size=352), "mlx")
    gate_and_up, down = 2 * 352 * 256, 352 * 256  # 352 inputs are five groups and a half
    matrices = 2 * EMBEDDING + 2 * (ATTENTION + gate_and_up)
    assert total(spec) == quantized(matrices, 4, 64) + 2 * 2 * down + NORMS


MOE = {
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "moe_intermediate_size": 128,
    "num_experts": 8,
    "num_experts_per_tok": 2,
}
EXPERTS, ROUTER = 2 * 8 * 3 * 128 * 256, 2 * 8 * 256


def test_experts_and_routers_by_mlx_names() -> None:
    section = {
        **GROUP64,
        **{f"model.layers.{i}.mlp.gate": {"group_size": 64, "bits": 8} for i in range(2)},
        "model.layers.0.mlp.switch_mlp.gate_proj": {"group_size": 64, "bits": 3},
        "model.layers.0.mlp.switch_mlp.up_proj": {"group_size": 64, "bits": 3},
    }
    spec = read_model(dense(**MOE, quantization=section), "mlx")
    routers = weight_bytes(spec, 3).formats["MLX affine 8-bit, group 64"]
    assert routers == quantized(ROUTER, 8, 64)
    at_3_bits = weight_bytes(spec, 3).formats["MLX affine 3-bit, group 64"]
    assert at_3_bits == quantized(8 * 2 * 128 * 256, 3, 64)
    others = 2 * EMBEDDING + 2 * ATTENTION + EXPERTS - 8 * 2 * 128 * 256
    kept = 2 * sum(g.parameters for g in spec.tensors if g.role is Role.NORM)
    assert total(spec) == quantized(others, 4, 64) + routers + at_3_bits + kept
    assert not any("is not read to have" in warning for warning in spec.warnings)


def test_a_router_that_mlx_keeps_as_a_bare_tensor_stays() -> None:
    """mlx_lm's MoEGate of DeepSeek and its kin has no layer to quantize; Qwen's router is one."""
    at_16_bits = {}
    for model in ("deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-30B-A3B"):
        config = dict(load_config(model, offline=True).config)
        config.pop("quantization_config", None)
        spec = read_model({**config, "quantization": GROUP64}, model)
        routers = [g for g in spec.tensors if g.role is Role.ROUTER and len(g.shape) == 2]
        stored = [form for g in routers for form, _ in checkpoint_storage(spec, g)]
        assert stored
        at_16_bits[model] = {form is None for form in stored}
    assert at_16_bits == {"deepseek-ai/DeepSeek-V3": {True}, "Qwen/Qwen3-30B-A3B": {False}}


def test_a_module_that_the_model_has_not_is_named() -> None:
    section = {**GROUP64, "model.layers.0.mixer.in_proj": {"group_size": 64, "bits": 8}}
    spec = read_model(dense(quantization=section), "mlx")
    assert any("model.layers.0.mixer.in_proj" in warning for warning in spec.warnings)


def test_both_keys_may_say_the_same_but_not_two_things() -> None:
    same = dense(quantization_config=dict(GROUP64))
    assert total(read_model(same, "mlx")) == quantized(MATRICES, 4, 64) + NORMS
    with pytest.raises(BadConfig, match="different things"):
        read_model(dense(quantization_config={"quant_method": "fp8"}), "mlx")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"quantization": {**GROUP64, "mode": "turbo"}}, "turbo"),
        ({"quantization": {**GROUP64, "bits": 7}}, "bits 7"),
        ({"quantization": {**GROUP64, "group_size": 48}}, "group_size 48"),
        ({"quantization": {**GROUP64, "mode": "mxfp4"}}, "mxfp4 with 4 bits in groups of 64"),
        ({"quantization": {**GROUP64, "shift": 3}}, "shift"),
        ({"quantization": {"bits": 4}}, "names no quant_method"),
        ({"quantization": "awq"}, "quantization is not an object"),
        ({"quantization": None, "quant": {"bits": 4}}, "quant is"),
        ({"quantization": None, "quantize": "int8"}, "quantize"),
        ({"quantization": None, "quantization_bit": 4}, "quantization_bit"),
        ({"quantization": None, "quantization_scheme": {"w": 4}}, "quantization_scheme"),
        ({"quantization": None, "quant_method": "aqlm"}, "quant_method"),
        ({"quantization": None, "compression_config": {"x": 1}}, "names no quant_method"),
        ({"quantization": None, "text_config": {"quantization": {"bits": 4}}}, "no quant_method"),
    ],
    ids=str,
)
def test_what_is_not_understood_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(BadConfig, match=named) as caught:
        read_model(dense(**changes), "mlx")
    assert caught.value.hint


@pytest.mark.parametrize("value", [None, False, {}, [], 0, "", "none"], ids=repr)
def test_a_key_that_says_there_is_no_quantization(value: object) -> None:
    for key in ("quantization", "quantization_bit", "quantize", "quantization_config"):
        config = dense()
        del config["quantization"]
        assert read_quantization({**config, key: value}) is None


def test_other_keys_are_no_quantization() -> None:
    assert find_section({"compress_ratios": [4, 0], "quantity": 3, "quantile": 0.5}) is None


def test_a_published_checkpoint_to_the_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Telechat3-36B by MLX: 36.24 B weights at 4.5 bits, but for norms."""
    file = tmp_path / "config.json"
    telechat = dense(
        model_type="telechat3",
        architectures=["Telechat3ForCausalLM"],
        vocab_size=131_072,
        hidden_size=6144,
        intermediate_size=24_576,
        num_hidden_layers=64,
        num_attention_heads=48,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=32_768,
    )
    file.write_text(json.dumps(telechat))
    asked = ["-m", str(file), "--config", "w4a16-k16v16", "--context", "1k"]
    assert run(["estimate", *asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    layer = 2 * 6144 * 6144 + 2 * 1024 * 6144 + 3 * 24_576 * 6144
    expected = quantized(2 * 131_072 * 6144 + 64 * layer, 4, 64) + 2 * 129 * 6144
    assert found["memory"]["weights"] == expected
    assert round(expected / 1e9, 2) == 20.39
    assert run(["plan", "-m", str(file), "--budget", "32GB", "--context", "1k", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["recommended"]["memory"]["weights"] == expected
    assert plan["runnable"] is False
    assert any("the checkpoint is MLX's" in w for w in plan["warnings"])
    assert any(w.startswith("planned only: ") for w in plan["warnings"])


def test_the_runtime_refuses_what_only_quantization_names(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(dense()))
    with pytest.raises(BadInput, match="does not read"):
        load(tmp_path, "w16a16-k16v16", context=8, output=1, device="cpu")
