"""quantization_config in every dialect: formats, ignore lists, layers, and what is refused."""

import pytest

from kvpareto.planner.errors import BadConfig
from kvpareto.planner.formats.weight_format import MatrixFormat
from kvpareto.planner.load_model import load_config, load_model
from kvpareto.planner.memory.weights import checkpoint_storage, weight_bytes
from kvpareto.planner.models.quantization.module_rules import canonical, rules_for
from kvpareto.planner.models.quantization.quantization_config import read_quantization
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import CheckpointQuantization, TensorGroup


def _read(**section: object) -> CheckpointQuantization:
    found = read_quantization({"quantization_config": section})
    assert found is not None
    return found


def _format(**section: object) -> MatrixFormat:
    """The format of a plain linear layer under `section`."""
    for rule in _read(**section).rules:
        if rule.layers_matching("model.layers.*.self_attn.q_proj.weight", frozenset({5})):
            assert rule.format is not None
            return rule.format
    raise AssertionError("q_proj is not quantized")


def _ct(weights: dict[str, object], **more: object) -> dict[str, object]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, **more}


@pytest.mark.parametrize(
    ("section", "outputs", "inputs", "expected"),
    [
        # Each by the tensors its saver writes for a 256 -> 512 linear layer.
        pytest.param(
            {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True},
            *(512, 256, 512 * 128 + 4 * 512 * 2 + 4 * 64 * 4),
            id="awq-g64",
        ),
        pytest.param(
            {"quant_method": "gptq", "bits": 8, "group_size": -1, "sym": True},
            *(512, 256, 512 * 256 + 512 * 2 + 128 * 4 + 256 * 4),
            id="gptq-8bit-whole-column",
        ),
        pytest.param(
            {"quant_method": "gptq", "bits": 3, "group_size": 128},
            *(512, 256, 512 * 96 + 2 * 512 * 2 + 2 * 48 * 4 + 256 * 4),
            id="gptq-3bit",
        ),
        pytest.param(
            {"quant_method": "fp8", "weight_block_size": [128, 128]},
            *(512, 256, 512 * 256 + 4 * 2 * 4),
            id="fp8-blocks",
        ),
        pytest.param(
            {"quant_method": "fp8", "activation_scheme": "static"},
            *(512, 256, 512 * 256 + 4 + 4),
            id="fp8-static-tensor",
        ),
        pytest.param(
            {"quant_method": "fbgemm_fp8"}, 512, 256, 512 * 256 + 512 * 4 + 4, id="fbgemm"
        ),
        pytest.param(
            {"quant_method": "bitsandbytes", "load_in_8bit": True},
            *(512, 256, 512 * 256 + 512 * 4 + 1),
            id="bitsandbytes-int8",
        ),
        pytest.param(
            {"quant_method": "bitsandbytes", "_load_in_4bit": True, "_load_in_8bit": False},
            *(512, 256, 512 * 128 + 512 * 4 * 4 + 64),
            id="bitsandbytes-nf4",
        ),
        pytest.param(
            {
                "quant_method": "hqq",
                "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}},
            },
            *(512, 256, 512 * 128 + 512 * 4 * 2 + 512 * 4 * 2),
            id="hqq",
        ),
        pytest.param({"quant_method": "bitnet"}, 512, 256, 128 * 256 + 2, id="bitnet"),
        pytest.param({"quant_method": "eetq"}, 512, 256, 512 * 256 + 512 * 2, id="eetq"),
        pytest.param(
            {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16},
            *(512, 256, 512 * 128 + 512 * 16 + 8),
            id="modelopt-nvfp4",
        ),
        pytest.param({"quant_algo": "FP8"}, 512, 256, 512 * 256 + 8, id="modelopt-by-algorithm"),
        pytest.param(
            _ct({"num_bits": 4, "group_size": 32, "strategy": "group", "symmetric": True}),
            *(512, 256, 512 * 128 + 512 * 8 * 2 + 16),
            id="compressed-tensors-w4a16",
        ),
        pytest.param(
            _ct({"num_bits": 4, "group_size": 128, "strategy": "group", "symmetric": False}),
            *(512, 256, 512 * 128 + 512 * 2 * 2 + 2 * 64 * 4 + 16),
            id="compressed-tensors-asymmetric",
        ),
        pytest.param(
            _ct({"num_bits": 8, "type": "float", "strategy": "channel"}),
            *(512, 256, 512 * 256 + 512 * 2),
            id="compressed-tensors-fp8-dynamic",
        ),
        pytest.param(
            _ct(
                {"num_bits": 4, "strategy": "group", "group_size": 32},
                format="mxfp4-pack-quantized",
            ),
            *(512, 256, 512 * 128 + 512 * 8),
            id="compressed-tensors-mxfp4",
        ),
        pytest.param(
            _ct({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}),
            *(512, 256, 512 * 128 + 512 * 16 + 4),
            id="compressed-tensors-nvfp4-weight-only",
        ),
    ],
)
def test_dialects(section: dict[str, object], outputs: int, inputs: int, expected: int) -> None:
    assert _format(**section).nbytes(outputs, inputs) == expected


def test_nested_text_config_is_read() -> None:
    section = {"quant_method": "awq", "bits": 4, "group_size": 128}
    found = read_quantization({"text_config": {"quantization_config": section}})
    assert found is not None
    assert found.method == "awq"
    assert found.group_size == 128


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.7.mlp.gate", ("layers.mlp.gate", 7)),
        ("language_model.model.layers.60.self_attn*", ("layers.self_attn*", 60)),
        ("model.layers.3.block_sparse_moe.experts.17.w1", ("layers.mlp.experts", 3)),
        ("layers.12.ffn.experts", ("layers.mlp.experts", 12)),
        ("model.layers.61*", ("layers", 61)),
        ("model.layers.*.self_attn.q_proj", ("layers.self_attn.q_proj", None)),
        ("head", ("lm_head", None)),
        ("model.visual*", ("visual*", None)),
    ],
)
def test_names_come_to_one_form(name: str, expected: tuple[str, int | None]) -> None:
    assert canonical(name) == expected


@pytest.mark.parametrize(
    ("entry", "module", "layers"),
    [
        ("model.layers.2.self_attn*", "model.layers.*.self_attn.q_proj.weight", {2}),
        ("model.layers.2.self_attn", "model.language_model.layers.*.self_attn.o_proj.weight", {2}),
        ("model.layers.2.mlp.gate", "model.layers.*.mlp.gate_proj.weight", set()),
        ("gate", "model.layers.*.mlp.gate_proj.weight", set()),
        ("gate", "model.layers.*.mlp.gate.weight", {0, 1, 2}),
        ("*.ffn.shared_experts.*", "model.layers.*.mlp.shared_experts.up_proj.weight", {0, 1, 2}),
        ("re:.*self_attn.*", "model.layers.*.self_attn.q_proj.weight", {0, 1, 2}),
        ("re:model.layers.[01].mlp.*", "model.layers.*.mlp.up_proj.weight", {0, 1}),
        (r"re:.*mlp\.(gate|up|down)_proj.*", "model.layers.*.mlp.experts.gate_up_proj", set()),
        (r"re:.*mlp\.experts\.\d+\..*", "model.layers.*.mlp.experts.gate_up_proj", {0, 1, 2}),
        ("model.layers.1.mlp.experts.5.w2", "model.layers.*.mlp.experts.down_proj", {1}),
        ("layers.1.ffn.experts", "model.layers.*.mlp.experts.down_proj", {1}),
        ("model.layers.12*", "model.layers.*.mlp.up_proj.weight", set()),
    ],
)
def test_entries_name_modules(entry: str, module: str, layers: set[int]) -> None:
    (rule,) = rules_for([entry], None)
    assert rule.layers_matching(module, frozenset(range(3))) == layers


def test_lists_of_all_layers_collapse() -> None:
    names = [f"model.layers.{i}.mlp.experts.{e}.up_proj" for i in range(60) for e in range(64)]
    (rule,) = rules_for(names, None)
    assert rule.layers == frozenset(range(60))


def _storage_of(model: str, name: str) -> list[tuple[str | None, int]]:
    spec = load_model(model)
    group: TensorGroup = next(g for g in spec.tensors if g.name == name)
    return [(f.name if f else None, count) for f, count in checkpoint_storage(spec, group)]


def test_layers_kept_by_name_are_counted() -> None:
    # Nemotron-3-Nano-NVFP4 keeps the in_proj of the six Mamba layers before attention layers.
    found = _storage_of(
        "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4", "model.layers.*.mixer.in_proj.weight"
    )
    assert found == [(None, 6), ("NVFP4", 17)]


def test_mixed_precision_follows_the_list_of_modules() -> None:
    model, prefix = "nvidia/Qwen3.6-35B-A3B-NVFP4", "model.language_model.layers.*."
    assert _storage_of(model, prefix + "self_attn.k_proj.weight") == [("FP8 per tensor", 10)]
    assert _storage_of(model, prefix + "mlp.experts.down_proj") == [("NVFP4 weight-only", 40)]
    assert _storage_of(model, prefix + "linear_attn.in_proj_a.weight") == [(None, 30)]
    assert _storage_of(model, "lm_head.weight") == [("NVFP4 weight-only", 1)]


def test_gptq_leaves_out_what_dynamic_names() -> None:
    dynamic = {"-:.*shared_expert.*": {}, "-:model.layers.0.*": {}}
    rules = _read(quant_method="gptq", bits=4, dynamic=dynamic).rules
    layers = frozenset(range(3))
    shared, other = rules[0], rules[1]
    assert shared.layers_matching("model.layers.*.mlp.shared_expert.up_proj.weight", layers)
    assert other.layers_matching("model.layers.*.self_attn.q_proj.weight", layers) == {0}
    assert [rule.format is None for rule in rules] == [True, True, False]
    with pytest.raises(BadConfig, match="dynamic"):
        _read(quant_method="gptq", bits=4, dynamic={"+:.*down.*": {"bits": 8}})


@pytest.mark.parametrize(
    ("method", "vision"),
    [("gptq", [(None, 32)]), ("fp8", [("FP8 per tensor", 32)])],
    ids=["decoder-only", "all-linear-layers"],
)
def test_towers_are_left_alone_by_methods_that_walk_the_decoder(
    method: str, vision: list[tuple[str | None, int]]
) -> None:
    config = load_config("Qwen/Qwen2.5-VL-7B-Instruct").config
    config["quantization_config"] = {"quant_method": method, "bits": 4}
    spec = read_model(config, "vl")
    qkv = next(g for g in spec.tensors if "visual" in g.name and "qkv.weight" in g.name)
    assert [(f.name if f else None, n) for f, n in checkpoint_storage(spec, qkv)] == vision


def test_gpt_oss_quantizes_experts_only() -> None:
    spec = load_model("openai/gpt-oss-20b")
    expert = 5760 * 2880 // 2 + 5760 * 90 + 2880 * 2880 // 2 + 2880 * 90
    assert weight_bytes(spec, 4).quantized == 24 * 32 * expert


@pytest.mark.parametrize(
    ("model", "scale_bytes"),
    [("deepseek-ai/DeepSeek-V3.2", 4), ("deepseek-ai/DeepSeek-V4-Flash", 1)],
)
def test_ue8m0_scales_take_a_byte_only_in_v4(model: str, scale_bytes: int) -> None:
    spec = load_model(model)
    assert spec.quantization is not None
    default = spec.quantization.rules[-1].format
    assert default is not None
    assert (default.tile_rows, default.scale_bytes) == (128, scale_bytes)
    experts = next(g for g in spec.tensors if g.name.endswith("experts.down_proj"))
    ((stored, _),) = checkpoint_storage(spec, experts)
    assert stored is not None
    assert stored.bits == (8 if scale_bytes == 4 else 4)


def test_modelopt_settings_beside_the_config_are_merged() -> None:
    spec = load_model("nvidia/DeepSeek-V3.1-NVFP4")
    assert spec.quantization is not None
    assert spec.quantization.method == "modelopt"
    assert _storage_of(spec.name, "model.layers.*.self_attn.o_proj.weight") == [("NVFP4", 61)]
    assert _storage_of(spec.name, "model.layers.*.self_attn.kv_b_proj.weight") == [(None, 61)]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        pytest.param({"quant_method": "aqlm"}, "aqlm", id="unknown-method"),
        pytest.param({"quant_method": 7}, "not a text", id="method-no-text"),
        pytest.param({"bits": 4}, "names no quant_method", id="no-method"),
        pytest.param({"quant_method": "awq", "bits": 3}, "bits 3", id="awq-3bit"),
        pytest.param({"quant_method": "gptq"}, "bits", id="gptq-no-bits"),
        pytest.param({"quant_method": "gptq", "bits": "4"}, "bits", id="bits-text"),
        pytest.param({"quant_method": "fp8", "weight_block_size": [0, 128]}, "positive", id="zero"),
        pytest.param({"quant_method": "fp8", "weight_block_size": 128}, "two numbers", id="block"),
        pytest.param(
            {"quant_method": "fp8", "modules_to_not_convert": "x"}, "not a list", id="list"
        ),
        pytest.param({"quant_method": "fp8", "ignore": [3]}, "as 3", id="entry-no-text"),
        pytest.param({"quant_method": "fp8", "ignore": ["re:("]}, "usable", id="regex-broken"),
        pytest.param({"quant_method": "fp8", "ignore": ["re:(a+)+$"]}, "usable", id="regex-slow"),
        pytest.param({"quant_method": "fp8", "ignore": ["*a" * 30]}, "wildcards", id="wildcards"),
        pytest.param({"quant_method": "compressed-tensors"}, "config_groups", id="ct-no-groups"),
        pytest.param({"quant_method": "modelopt", "quant_algo": "X"}, "'X'", id="modelopt-algo"),
        pytest.param(
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": True},
            "neither",
            id="bnb-both",
        ),
        pytest.param({"quant_method": "modelopt", "quantized_layers": [1]}, "object", id="layers"),
    ],
)
def test_what_cannot_be_counted_is_refused(section: dict[str, object], message: str) -> None:
    with pytest.raises(BadConfig, match=message) as caught:
        _read(**section)
    assert caught.value.hint
