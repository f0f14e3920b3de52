"""Bytes of weights: each format by hand, whole models against published and real checkpoints."""

from dataclasses import replace

import pytest
import torch
import transformers
from transformers.integrations.finegrained_fp8 import replace_with_fp8_linear
from transformers.utils.quantization_config import FineGrainedFP8Config

from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.formats.weight_format import AWQ, INT8, MatrixFormat
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.memory.weights import available_weight_bits, weight_bytes
from kvpareto.planner.models.quantization.grouped_methods import FP8_TENSOR, MXFP4, NVFP4
from kvpareto.planner.models.quantization.quantization_config import read_quantization
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import Part, Role
from kvpareto.planner.workload import Workload

FP8_BLOCKS = MatrixFormat("fp8", 8, 128, 128, 4)
GPTQ = MatrixFormat("gptq", 4, 1, 128, 2, zero_bits=4, index_bytes=4)
NF4 = MatrixFormat("nf4", 4, 1, 64, 4, constant_bytes=64)
NF4_NESTED = MatrixFormat("nf4", 4, 1, 64, 4, constant_bytes=64 + 1024, nested=True)
PACKED_INT4 = MatrixFormat("int4", 4, 1, 32, 2, constant_bytes=16, word_bytes=4)


@pytest.mark.parametrize(
    ("stored", "outputs", "inputs", "expected"),
    [
        # qweight int32 [4096, 1792] + scales fp16 [32, 14336] + qzeros int32 [32, 1792]
        pytest.param(AWQ, 14336, 4096, 29_360_128 + 917_504 + 229_376, id="awq-4096to14336"),
        # the same bytes for the transposed shape: groups run along the inputs, 112 of them
        pytest.param(AWQ, 4096, 14336, 29_360_128 + 917_504 + 229_376, id="awq-14336to4096"),
        pytest.param(INT8, 14336, 4096, 58_720_256 + 28_672, id="int8-4096to14336"),
        # codes + one e4m3 scale for 16 inputs + two fp32 scalars
        pytest.param(NVFP4, 14336, 4096, 29_360_128 + 3_670_016 + 8, id="nvfp4"),
        pytest.param(FP8_TENSOR, 14336, 4096, 58_720_256 + 4 + 4, id="fp8-per-tensor"),
        # 112 x 32 blocks, fp32 each
        pytest.param(FP8_BLOCKS, 14336, 4096, 58_720_256 + 14_336, id="fp8-blocks"),
        # DeepSeek-V3's kv_a_proj: 576 rows are four and a half blocks, so five
        pytest.param(FP8_BLOCKS, 576, 7168, 4_128_768 + 5 * 56 * 4, id="fp8-blocks-partial"),
        # gpt-oss-20b: one expert's gate_up, blocks [5760, 90, 16] and scales [5760, 90]
        pytest.param(MXFP4, 5760, 2880, 8_294_400 + 518_400, id="mxfp4-gate-up"),
        pytest.param(MXFP4, 2880, 2880, 4_147_200 + 259_200, id="mxfp4-down"),
        # AWQ's bytes and an int32 for each input
        pytest.param(GPTQ, 14336, 4096, 30_507_008 + 16_384, id="gptq-with-g_idx"),
        # absmax fp32 for 64 codes, and a code book of 16 fp32
        pytest.param(NF4, 14336, 4096, 29_360_128 + 917_504 * 4 + 64, id="nf4"),
        # absmax uint8 for 64, fp32 for 256 of those, two code books
        pytest.param(
            NF4_NESTED, 14336, 4096, 29_360_128 + 917_504 + 14_336 + 64 + 1024, id="nf4-nested"
        ),
        # two groups of 64 a row: 48 of them, and one fp32 for these
        pytest.param(NF4_NESTED, 24, 100, 24 * 50 + 48 + 4 + 64 + 1024, id="nf4-nested-odd"),
        # 100 inputs are 12.5 int32 words, so 13; four groups of 32, the last of 4
        pytest.param(PACKED_INT4, 24, 100, 24 * 13 * 4 + 24 * 4 * 2 + 16, id="packed-int4-odd"),
    ],
)
def test_one_matrix_by_hand(stored: MatrixFormat, outputs: int, inputs: int, expected: int) -> None:
    assert stored.nbytes(outputs, inputs) == expected


def test_stacked_experts_have_a_scale_for_each_output() -> None:
    """Llama 4 stacks them as (experts, in, out): 16 of gate and up in one, and of down."""
    spec = load_model("meta-llama/Llama-4-Scout-17B-16E-Instruct")
    attention, ffn = 5120 * (2 * 5120 + 2 * 1024), 3 * 5120 * 8192
    rows = 2 * 5120 + 2 * 1024 + 17 * (2 * 8192 + 5120)
    assert weight_bytes(spec, 8).quantized == 48 * (attention + 17 * ffn + 2 * rows)


def test_llama_8b_in_every_format() -> None:
    spec = load_model("meta-llama/Llama-3.1-8B-Instruct")
    kept = 2 * 128_256 * 4096 * 2 + 65 * 4096 * 2  # embeddings, head, norms
    square, narrow, wide = 8_716_288, 2_179_072, 30_507_008  # q and o; k and v; gate, up and down
    w4 = weight_bytes(spec, 4)
    assert (w4.kept, w4.quantized) == (kept, 32 * (2 * square + 2 * narrow + 3 * wide))
    assert w4.total == 5_727_854_592
    assert w4.workspace == 14336 * 4096 * 2
    w8 = weight_bytes(spec, 8)
    rows = 32 * (4096 + 1024 + 1024 + 4096 + 14336 + 14336 + 4096)
    assert w8.total == kept + (16_060_522_496 - kept) // 2 + 2 * rows
    w16 = weight_bytes(spec, 16)
    assert (w16.total, w16.quantized, w16.workspace) == (16_060_522_496, 0, 0)


@pytest.mark.parametrize(
    ("model", "bits", "published"),
    [
        # `total_size` of the checkpoint's model.safetensors.index.json
        pytest.param("openai/gpt-oss-20b", 4, 13_761_264_768, id="gpt-oss-20b-mxfp4"),
        pytest.param("openai/gpt-oss-120b", 4, 65_248_815_744, id="gpt-oss-120b-mxfp4"),
        # Qwen/Qwen3-32B-AWQ: the sum over its safetensors headers
        pytest.param("Qwen/Qwen3-32B", 4, 19_325_298_688, id="qwen3-32b-awq"),
        # mistralai/Devstral-Small-2507: consolidated.safetensors less its header
        pytest.param("mistralai/Devstral-Small-2507", 16, 47_144_806_400, id="devstral-bf16"),
    ],
)
def test_published_checkpoints_to_the_byte(model: str, bits: int, published: int) -> None:
    assert weight_bytes(load_model(model), bits).total == published


def test_deepseek_v3_files_are_its_tensors_and_their_headers() -> None:
    """688,586,727,753 bytes in 163 files: what is left over are the headers of 91,991 tensors."""
    block = 2048 * 7168 + 16 * 56 * 4
    attention = sum(
        out * inputs + -(-out // 128) * (inputs // 128) * 4
        for out, inputs in ((1536, 7168), (24576, 1536), (576, 7168), (32768, 512), (7168, 16384))
    )
    norms = 2 * (2 * 7168 + 1536 + 512 + 3 * 7168)
    router = 256 * 7168 * 2 + 256 * 4
    copies = 2 * 129_280 * 7168 * 2  # the prediction layer's own embedding and head
    prediction = copies + 7168 * 14336 * 2 + 257 * 3 * block + attention + norms + router
    biases = 58 * 256 * 4  # the routers' correction terms, fp32
    tensors = weight_bytes(load_model("deepseek-ai/DeepSeek-V3"), 8).total + prediction + biases
    headers = 688_586_727_753 - tensors
    assert headers == 11_888_393
    assert 100 < headers / 91_991 < 160


def _tiny(**changes: object) -> dict[str, object]:
    config: dict[str, object] = {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "vocab_size": 1000,
        "hidden_size": 320,
        "intermediate_size": 448,
        "moe_intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "mlp_only_layers": [1],
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    return config | changes


@pytest.mark.parametrize(
    ("ignored", "per_tensor"),
    [
        pytest.param(["lm_head"], False, id="all-but-head"),
        pytest.param(["lm_head", "model.layers.0.self_attn"], False, id="one-layer-kept"),
        pytest.param(["lm_head", "model.layers.1.mlp.up_proj", "k_proj"], False, id="modules-kept"),
        pytest.param(["lm_head"], True, id="per-tensor"),
    ],
)
def test_fp8_bytes_are_those_of_transformers_modules(ignored: list[str], per_tensor: bool) -> None:
    """The parameters that transformers allocates for the same quantization_config, on meta."""
    config = transformers.Qwen3MoeConfig(**_tiny())
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    block = None if per_tensor else (128, 128)
    replace_with_fp8_linear(
        model,
        modules_to_not_convert=ignored,
        quantization_config=FineGrainedFP8Config(weight_block_size=block),
        pre_quantized=True,
    )
    allocated = sum(p.numel() * p.element_size() for p in model.parameters())
    section = {
        "quant_method": "fp8",
        "weight_block_size": None if per_tensor else [128, 128],
        "modules_to_not_convert": ignored,
    }
    spec = read_model(_tiny(quantization_config=section), "tiny")
    # transformers keeps two scales for a stacked gate_up, as the checkpoint keeps two matrices
    assert weight_bytes(spec, 8).total == allocated


def test_matrices_that_do_not_fit_stay_and_are_named() -> None:
    spec = read_model(_tiny(hidden_size=320, moe_intermediate_size=256), "tiny")
    w4 = weight_bytes(spec, 4)
    # 320 is no multiple of 128: only what reads 256 inputs is quantized
    assert "model.layers.*.self_attn.q_proj.weight" in w4.misfits
    assert "model.layers.*.self_attn.o_proj.weight" not in w4.misfits
    heads = 3 * AWQ.nbytes(320, 256)
    experts = 2 * 8 * AWQ.nbytes(320, 256)
    assert w4.quantized == heads + experts


def test_experts_are_quantized_one_by_one() -> None:
    spec = load_model("Qwen/Qwen3-30B-A3B")
    w4 = weight_bytes(spec, 4)
    expert = 2 * AWQ.nbytes(768, 2048) + AWQ.nbytes(2048, 768)
    attention = 2 * AWQ.nbytes(4096, 2048) + 2 * AWQ.nbytes(512, 2048)  # q, o (same bytes); k, v
    assert w4.quantized == 48 * (128 * expert + attention)
    assert w4.workspace == 2 * 4096 * 2048  # an attention matrix, not a stack of experts


def test_towers_stay_in_sixteen_bits() -> None:
    spec = load_model("Qwen/Qwen2.5-VL-7B-Instruct")
    plain, w4 = weight_bytes(spec, 16), weight_bytes(spec, 4)
    assert w4.parts[Part.VISION] == plain.parts[Part.VISION] > 0
    assert w4.parts[Part.TEXT] < plain.parts[Part.TEXT] / 2


def test_breakdowns_add_up() -> None:
    for model in ("Qwen/Qwen3.5-27B", "openai/gpt-oss-20b", "nvidia/Qwen3.6-35B-A3B-NVFP4"):
        spec = load_model(model)
        for bits in available_weight_bits(spec):
            found = weight_bytes(spec, bits)
            assert found.total == sum(found.parts.values()) == sum(found.formats.values())
            assert found.total == found.quantized + found.kept


@pytest.mark.parametrize(
    ("model", "own"),
    [
        pytest.param("openai/gpt-oss-20b", 4, id="mxfp4-counts-as-w4"),
        pytest.param("Qwen/Qwen3-32B-FP8", 8, id="fp8-counts-as-w8"),
    ],
)
def test_quantized_checkpoints_have_one_format(model: str, own: int) -> None:
    spec = load_model(model)
    assert available_weight_bits(spec) == (own,)
    dequantized = weight_bytes(spec, 16)
    assert dequantized.total == 2 * spec.parameters
    assert "dequantized to 16 bits" in dequantized.notes[0]
    for bits in {8, 4} - {own}:
        with pytest.raises(BadInput, match="already quantized") as caught:
            weight_bytes(spec, bits)
        assert f"w{own}a16" in caught.value.hint


def test_fixed_dtypes_count_in_their_own_size() -> None:
    spec = load_model("Qwen/Qwen3-8B")
    norm = next(group for group in spec.tensors if group.role is Role.NORM)
    tensors = tuple(replace(g, dtype="float32") if g is norm else g for g in spec.tensors)
    wide = replace(spec, tensors=tensors)
    assert weight_bytes(wide, 16).total == 2 * spec.parameters + 2 * norm.parameters
    assert weight_bytes(wide, 4).formats["float32"] == 4 * norm.parameters


def test_reading_needs_a_quantization_config() -> None:
    assert read_quantization({"model_type": "llama"}) is None
    assert read_quantization({"quantization_config": None}) is None


def test_what_does_not_fit_is_told_with_the_estimate() -> None:
    spec = load_model("google/gemma-4-26B-A4B")  # experts 704 wide: five and a half groups
    (note,) = weight_bytes(spec, 4).notes
    assert "experts.down_proj" in note
    assert weight_bytes(spec, 8).notes == ()
    workload = Workload(context=1024, output=1)
    config = Configuration.parse("w4a16-k16v16")
    assert note in estimate(spec, config, workload, TRANSFORMERS, None).notes
