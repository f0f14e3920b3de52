"""Quantized checkpoints that are dequantized while they are loaded: fp8, int8, MXFP4."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from kvpareto.calibration.config_check.meta_model import hf_config
from kvpareto.planner.errors import BadInput
from kvpareto.runtime.load_weights import load_weights
from kvpareto.runtime.loading import load
from kvpareto.runtime.weights.dequantize import mxfp4, scaled
from kvpareto.runtime.weights.linear import W8Linear
from tests.support.tiny_configs import CONFIGS

CPU = torch.device("cpu")
LLAMA: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 96,
    "intermediate_size": 136, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 24, "vocab_size": 120, "tie_word_embeddings": False,
    "dtype": "float32", "eos_token_id": 3,
}  # fmt: skip
FP8 = {"quant_method": "fp8", "weight_block_size": [32, 40], "activation_scheme": "dynamic"}
FLOATS = {"num_bits": 8, "type": "float", "symmetric": True}


def compressed(strategy: str, **more: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": FLOATS | {"strategy": strategy} | more}
    kind = "float-quantized" if group["weights"]["type"] == "float" else "int-quantized"
    return {
        "quant_method": "compressed-tensors", "format": kind, "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }  # fmt: skip


def codes_of(
    weight: torch.Tensor, rows: int, columns: int, kind: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(codes, scales [ceil, ceil], the values that they stand for), block by block."""
    most = 448.0 if kind == torch.float8_e4m3fn else 127.0
    out, inputs = weight.shape
    scales = torch.empty(-(-out // rows), -(-inputs // columns))
    codes = torch.empty(weight.shape, dtype=kind)
    values = torch.empty(weight.shape)
    for r in range(scales.shape[0]):
        for c in range(scales.shape[1]):
            here = slice(r * rows, (r + 1) * rows), slice(c * columns, (c + 1) * columns)
            scales[r, c] = weight[here].abs().max() / most
            code = weight[here] / scales[r, c]
            codes[here] = (code.round() if kind == torch.int8 else code).to(kind)
            values[here] = codes[here].float() * scales[r, c]
    return codes, scales, values


def checkpoint(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors")
    return folder


def random_llama(config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    plain = {k: v for k, v in config.items() if k != "quantization_config"}
    model = AutoModelForCausalLM.from_config(hf_config(plain), dtype=torch.float32).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model


@pytest.mark.parametrize(
    ("section", "rows", "columns", "kind", "scale_name"),
    [
        (FP8, 32, 40, torch.float8_e4m3fn, "weight_scale_inv"),
        (FP8 | {"weight_block_size": None}, 999, 999, torch.float8_e4m3fn, "weight_scale_inv"),
        (compressed("channel"), 1, 999, torch.float8_e4m3fn, "weight_scale"),
        (compressed("channel", type="int"), 1, 999, torch.int8, "weight_scale"),
        (
            compressed("block", block_structure=[48, 56]),
            48, 56, torch.float8_e4m3fn, "weight_scale",
        ),
        ({"quant_method": "modelopt", "quant_algo": "FP8"},
         999, 999, torch.float8_e4m3fn, "weight_scale"),
    ],
    ids=["fp8-blocks", "fp8-tensor", "channels", "int8-channels", "blocks", "modelopt"],
)  # fmt: skip
def test_eight_bits_are_what_they_stand_for(
    section: dict[str, Any], rows: int, columns: int, kind: torch.dtype, scale_name: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Blocks that no matrix fills among them; the model answers as its dequantized weights do."""
    model = random_llama(LLAMA)
    stored, plain = {}, {}
    for name, value in model.state_dict().items():
        plain[name] = value
        stored[name] = value.clone()
        if name.endswith("_proj.weight"):
            codes, scales, values = codes_of(value, rows, columns, kind)
            stored[name], plain[name] = codes, values
            scales = scales.flatten()[0] if scales.numel() == 1 else scales
            stored[name.replace("weight", scale_name)] = scales.clone()
            stored[name.replace("weight", "input_scale")] = torch.tensor(2.0)
    folder = checkpoint(tmp_path, LLAMA | {"quantization_config": section}, stored)
    model.load_state_dict(plain)
    loaded = load_weights(str(folder), 16, CPU)
    assert loaded.spec.quantization is None
    ids = torch.randint(1, 100, (1, 9))
    torch.testing.assert_close(loaded.model(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
    rounded = load_weights(str(folder), 8, CPU).model
    assert sum(isinstance(m, W8Linear) for m in rounded.modules()) == 14


def test_experts_that_are_stored_one_by_one(tmp_path: Path) -> None:
    """DeepSeek-V3's form: latents, and a matrix of each expert under blocks of its own."""
    config = {k: v for k, v in CONFIGS["deepseek_v3"].items() if v != "absent"}
    config |= {"dtype": "float32", "quantization_config": FP8}
    model = random_llama(config)
    model.save_pretrained(tmp_path)
    stored, plain = load_file(tmp_path / "model.safetensors"), {}
    for name, value in list(stored.items()):
        plain[name] = value
        if "_proj" in name and name.endswith("weight"):
            codes, scales, plain[name] = codes_of(value, 32, 40, torch.float8_e4m3fn)
            stored[name], stored[f"{name}_scale_inv"] = codes, scales
    assert sum(".experts.1." in name and "scale" in name for name in stored) >= 3
    folder = checkpoint(tmp_path, config, stored)
    (tmp_path / "plain").mkdir()
    unquantized = {k: v for k, v in config.items() if k != "quantization_config"}
    expected = load_weights(str(checkpoint(tmp_path / "plain", unquantized, plain)), 16, CPU)
    loaded = dict(load_weights(str(folder), 16, CPU).model.named_parameters())
    for name, value in expected.model.named_parameters():
        torch.testing.assert_close(loaded[name], value, rtol=1e-6, atol=0)


def packed_mxfp4(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Random blocks and scales for a stack [experts, in, out]."""
    experts, inputs, out = values.shape
    blocks = torch.randint(0, 256, (experts, out, inputs // 32, 16), dtype=torch.uint8)
    scales = torch.randint(118, 124, (experts, out, inputs // 32), dtype=torch.uint8)
    return blocks, scales


def gpt_oss() -> dict[str, Any]:
    config = {k: v for k, v in CONFIGS["gpt_oss"].items() if v != "absent"}
    return config | {
        "hidden_size": 64, "intermediate_size": 96, "dtype": "bfloat16", "eos_token_id": 5,
        "quantization_config": {
            "quant_method": "mxfp4",
            "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                       "model.embed_tokens", "lm_head"],
        },
    }  # fmt: skip


def test_mxfp4_is_what_transformers_dequantizes(tmp_path: Path) -> None:
    """gpt-oss from its own format, held to transformers' load of the same files."""
    config = gpt_oss()
    model = random_llama(config).to(torch.bfloat16)
    stored = {}
    for name, value in model.state_dict().items():
        if name.endswith(("gate_up_proj", "down_proj")):
            stored[f"{name}_blocks"], stored[f"{name}_scales"] = packed_mxfp4(value)
        else:
            stored[name] = value.clone()
    folder = checkpoint(tmp_path, config, stored)
    GenerationConfig(eos_token_id=[5, 7]).save_pretrained(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    loaded = load_weights(str(folder), 16, CPU)
    ours = dict(loaded.model.named_parameters())
    for name, value in theirs.named_parameters():
        assert torch.equal(ours[name], value), name
    with load(folder, "w16a16-k16v16+pc8", context=20, output=4) as session:
        assert session.stops == {5, 7}
        assert len(session.generate([1, 2, 3, 4], 3, stops=frozenset()).tokens[0]) == 3


def test_blocks_of_mxfp4_are_transformers_own() -> None:
    blocks, scales = packed_mxfp4(torch.empty(3, 96, 40))
    scales[0, 0, 0], scales[1, 2, 1] = 0, 200
    expected = convert_moe_packed_tensors(blocks, scales, dtype=torch.bfloat16)
    assert torch.equal(mxfp4(blocks, scales, torch.bfloat16), expected)


def test_exponents_are_powers_of_two() -> None:
    codes = torch.ones(2, 4).to(torch.float8_e4m3fn)
    scales = torch.tensor([[127, 128], [126, 0]], dtype=torch.uint8)
    values = scaled(codes, scales, (1, 2))
    assert values.tolist() == [[1, 1, 2, 2], [0.5, 0.5, 2**-127, 2**-127]]
    same = scaled(codes, scales.view(torch.float8_e8m0fnu), (1, 2))
    assert torch.equal(values, same)


def test_zero_points_are_taken_off() -> None:
    codes = torch.tensor([[5, -3], [1, 2]], dtype=torch.int8)
    zero = torch.tensor([[1], [-2]], dtype=torch.int8)
    values = scaled(codes, torch.tensor([[2.0], [0.5]]), zero=zero)
    assert values.tolist() == [[8, -8], [1.5, 2]]


def test_scales_of_another_shape_are_refused_by_name() -> None:
    codes = torch.ones(300, 256).to(torch.float8_e4m3fn)
    with pytest.raises(BadInput, match=r"300 x 256 has scales of 4 x 2.*128 x 128"):
        scaled(codes, torch.ones(4, 2))


@pytest.mark.parametrize(
    ("blocks", "scales"),
    [
        (torch.zeros(1, 4, 2, 16), torch.zeros(1, 4, 2, dtype=torch.uint8)),
        (torch.zeros(1, 4, 2, 16, dtype=torch.uint8), torch.zeros(1, 4, 2)),
        (torch.zeros(1, 4, 2, 16, dtype=torch.int8), torch.zeros(1, 4, 2, dtype=torch.uint8)),
        (torch.zeros(1, 4, 2, 16, dtype=torch.uint8), torch.zeros(1, 4, 2, dtype=torch.int32)),
        (torch.zeros(1, 4, 2, 8, dtype=torch.uint8), torch.zeros(1, 4, 2, dtype=torch.uint8)),
        (torch.zeros(1, 4, 2, 16, dtype=torch.uint8), torch.zeros(1, 4, 1, dtype=torch.uint8)),
        (torch.zeros(4, 2, 16, dtype=torch.uint8), torch.zeros(4, 2, dtype=torch.uint8)),
    ],
    ids=["fp32-blocks", "fp32-scales", "int8-blocks", "int32-scales", "half", "few", "flat"],
)
def test_what_is_no_mxfp4_is_refused(blocks: torch.Tensor, scales: torch.Tensor) -> None:
    with pytest.raises(BadInput, match=r"experts has blocks .* which are no MXFP4: bytes"):
        mxfp4(blocks, scales, torch.bfloat16)


def test_exponents_of_mxfp4_may_be_stored_as_such() -> None:
    blocks, scales = packed_mxfp4(torch.empty(3, 96, 40))
    stored = scales.view(torch.float8_e8m0fnu)
    expected = mxfp4(blocks, scales, torch.bfloat16)
    assert torch.equal(mxfp4(blocks, stored, torch.bfloat16), expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.bool])
def test_whole_numbers_are_no_scales(dtype: torch.dtype) -> None:
    codes = torch.ones(4, 4, dtype=torch.int8)
    for scales in (torch.ones(4, 1, dtype=dtype), torch.ones(1, dtype=dtype)):
        with pytest.raises(BadInput, match="which is no scale"):
            scaled(codes, scales)


def test_codes_without_scales_are_refused(tmp_path: Path) -> None:
    model = random_llama(LLAMA)
    stored = {
        name: value.to(torch.float8_e4m3fn) if name.endswith("o_proj.weight") else value.clone()
        for name, value in model.state_dict().items()
    }
    folder = checkpoint(tmp_path, LLAMA | {"quantization_config": FP8}, stored)
    with pytest.raises(BadInput, match=r"stores .*o_proj.weight as F8_E4M3 without its scales"):
        load_weights(str(folder), 16, CPU)


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"quant_method": "gptq", "bits": 4}, "GPTQ 4-bit"),
        (compressed("tensor_group", num_bits=4), "NVFP4"),
        (compressed("group", num_bits=4, type="int", group_size=128), "int4 per group of 128"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "NVFP4"),
    ],
)
def test_other_formats_are_refused_with_their_names(
    section: dict[str, Any], named: str, tmp_path: Path
) -> None:
    stored = {name: value.clone() for name, value in random_llama(LLAMA).state_dict().items()}
    folder = checkpoint(tmp_path, LLAMA | {"quantization_config": section}, stored)
    with pytest.raises(BadInput, match="is quantized as") as caught:
        load_weights(str(folder), 4, CPU)
    assert named in caught.value.message
