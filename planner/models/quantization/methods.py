"""The dialects of `quantization_config` that quantize all linear layers alike, read to rules.

The bytes are those of the tools' own savers: transformers' integrations (fp8, mxfp4, fbgemm,
bitnet, eetq, hqq), AutoGPTQ and GPTQModel, AutoAWQ, bitsandbytes' Params4bit. docs/weights.md
draws them and checks them against published sizes.
"""

from dataclasses import replace

from ...errors import BadConfig
from ...formats.weight_format import AWQ, INT8, MatrixFormat
from ..spec import GptqCodes
from .fields import Section, flag, group_of, inner, whole
from .grouped_methods import FP8_TENSOR, MXFP4, quantized_layers
from .module_rules import ModuleRule, all_modules, experts, rules_for
from .section import HINT


def read_fp8(section: Section, config: Section) -> list[ModuleRule]:
    """DeepSeek-V3's format: e4m3 in blocks, `weight_scale_inv` fp32 (or ue8m0: one byte)."""
    block = section.get("weight_block_size")
    if block is None:
        constant = 4 if section.get("activation_scheme") == "static" else 0
        default = replace(FP8_TENSOR, constant_bytes=constant)
    elif isinstance(block, list) and len(block) == 2:
        rows, columns = (
            whole({"weight_block_size": size}, "weight_block_size", 0) for size in block
        )
        if rows < 1 or columns < 1:
            raise BadConfig("quantization_config: weight_block_size is not positive", HINT)
        scale = 1 if section.get("scale_fmt") == "ue8m0" and _is_v4(config) else 4
        default = MatrixFormat(f"FP8 in {rows}x{columns} blocks", 8, rows, columns, scale)
    else:
        raise BadConfig("quantization_config: weight_block_size is not two numbers", HINT)
    rules = quantized_layers(section)
    if not rules and "fp4" in (config.get("expert_dtype"), section.get("expert_dtype")):
        rules = experts(replace(MXFP4, name="FP4 experts"))
    # Small projections that the published fp8 checkpoints keep: the indexer's head weights and
    # the multi-token-prediction layer's input projection.
    kept = rules_for(["indexer.weights_proj", "indexers_proj", "eh_proj"], None)
    return [*rules, *kept, *all_modules(default)]


def _is_v4(config: Section) -> bool:
    """DeepSeek-V4 stores its scales as ue8m0; V3.2 only rounds its fp32 scales to powers of two."""
    return str(config.get("model_type")).startswith(("deepseek_v4", "deepseek_ref"))


def read_fbgemm(section: Section, config: Section) -> list[ModuleRule]:
    return all_modules(MatrixFormat("FP8 per channel (fbgemm)", 8, 1, 0, 4, constant_bytes=4))


def read_mxfp4(section: Section, config: Section) -> list[ModuleRule]:
    """gpt-oss: only the experts' matrices; `blocks` of 16 bytes and one scale byte for each 32."""
    return experts(MXFP4)


def read_awq(section: Section, config: Section) -> list[ModuleRule]:
    """int32 words of eight codes with fp16 scales, and zero points packed alike, a group."""
    whole(section, "bits", whole(section, "w_bit", 4, (4,)), (4,))
    group = group_of(section, group_of(section, 128, "q_group_size"))
    zero = 4 if flag(section, "zero_point", True) else 0
    columns = 0 if group < 1 else group
    return all_modules(
        replace(
            AWQ,
            name=f"AWQ 4-bit, group {group}",
            tile_columns=columns,
            input_multiple=columns or 1,
            zero_bits=zero,
        )
    )


def read_gptq(section: Section, config: Section) -> list[ModuleRule]:
    """int32 qweight [in*bits/32, out] and qzeros [in/g, out*bits/32], fp16 scales, int32 g_idx."""
    bits = whole(section, "bits", None, (2, 3, 4, 8))
    group = group_of(section, 128)
    columns = 0 if group < 1 else group
    gptq = MatrixFormat(
        f"GPTQ {bits}-bit, group {group}",
        bits=bits,
        tile_rows=1,
        tile_columns=columns,
        scale_bytes=2,
        zero_bits=bits,
        index_bytes=4,
    )
    head = rules_for(["lm_head"], gptq) if flag(section, "lm_head") else []
    return [*_left_out(section), *head, *all_modules(gptq)]


def gptq_codes(section: Section, method: str) -> GptqCodes | None:
    """What the section says of codes that are packed as GPTQ's; None of any other. auto-round names
    its packing, and has no order of inputs."""
    packing = str(section.get("packing_format") or "auto_round:auto_gptq")
    if method not in ("gptq", "auto-round") or (method == "auto-round" and "gptq" not in packing):
        return None
    asked = ("sym", "desc_act") if method == "gptq" else ("sym",)
    missing = tuple(name for name in asked if section.get(name) is None)
    marlin = section.get("checkpoint_format") == "marlin" or flag(section, "is_marlin_format")
    return GptqCodes(flag(section, "sym", True), missing, marlin)


def _left_out(section: Section) -> list[ModuleRule]:
    """GPTQModel's `dynamic`: expressions after `-:` name modules that are not quantized."""
    dynamic = section.get("dynamic")
    if not dynamic:
        return []
    if not isinstance(dynamic, dict) or not all(isinstance(key, str) for key in dynamic):
        raise BadConfig("quantization_config: dynamic is not an object", HINT)
    if any(not key.startswith("-:") for key in dynamic):
        raise BadConfig("quantization_config: dynamic gives modules settings of their own", HINT)
    return rules_for([f"re:{key[2:]}" for key in dynamic], None)


def read_bitsandbytes(section: Section, config: Section) -> list[ModuleRule]:
    """LLM.int8(): int8 and fp32 `SCB` a row. 4 bits: codes, fp32 (or nested 8-bit) absmax of 64."""
    eight, four = (
        flag(section, name, flag(section, f"_{name}")) for name in ("load_in_8bit", "load_in_4bit")
    )
    if eight == four:
        raise BadConfig("quantization_config: bitsandbytes is neither 8-bit nor 4-bit", HINT)
    if eight:
        return all_modules(MatrixFormat("bitsandbytes int8", 8, 1, 0, 4, constant_bytes=1))
    nested = flag(section, "bnb_4bit_use_double_quant")
    return all_modules(
        MatrixFormat(
            "bitsandbytes 4-bit" + ", nested scales" * nested,
            bits=4,
            tile_rows=1,
            tile_columns=64,
            scale_bytes=4,
            constant_bytes=64 + 1024 * nested,  # the code books
            nested=nested,
        )
    )


def read_hqq(section: Section, config: Section) -> list[ModuleRule]:
    """HQQ: packed codes, fp16 scale and zero for each group along the inputs."""
    settings = inner(inner(section, "quant_config"), "weight_quant_params")
    bits = whole(settings, "nbits", 4, (1, 2, 4, 8))
    group = group_of(settings, 64)
    name = f"HQQ {bits}-bit, group {group}"
    return all_modules(MatrixFormat(name, bits, 1, max(group, 0), 2, zero_bits=16))


def read_bitnet(section: Section, config: Section) -> list[ModuleRule]:
    """uint8 [out/4, in] and one 16-bit scale; quantized online, weights stay as they are."""
    if section.get("quantization_mode", "offline") != "offline":
        raise BadConfig("quantization_config: bitnet weights that are quantized online", HINT)
    return all_modules(MatrixFormat("BitNet, 2 bits", 2, 0, 0, 2))


def read_eetq(section: Section, config: Section) -> list[ModuleRule]:
    return all_modules(replace(INT8, name="EETQ int8"))
