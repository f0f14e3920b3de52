"""Published models of types that nobody here knew: right, within bounds, or refused by name.

The truths are transformers' on the meta device, published sizes, or sums by hand
(tests/data/unknown_types holds the files).
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.errors import BadConfig, NothingFits
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.latency.predict import predict
from kvpareto.planner.memory import estimate as memory
from kvpareto.planner.memory.kv_cache import KVBytes, kv_bytes
from kvpareto.planner.models.families import registry as styles
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.search.evaluate import evaluate
from kvpareto.planner.search.recommend import Request, recommend
from kvpareto.planner.workload import Workload

FILES = Path(__file__).parents[2] / "data" / "unknown_types"
BF16 = Configuration()
LONG = 131_072

# Hunyuan-Large by hand: 64 layers of 16 experts and a shared one, width 18,304, 80 heads and 8 KV
# heads of 80; tied. Every second layer reads its neighbour's cache.
HUNYUAN = 64 * (17 * 3 * 6400 * 18304 + 6400 * 16 + 2 * 6400 * 80 * 88) + 128512 * 6400
# grok-2 by hand: 8 experts of 16,384 beside a dense FFN of 32,768 in each of 64 layers.
GROK = 64 * (3 * 8192 * (8 * 16384 + 32768) + 8192 * 8 + 2 * 8192 * 128 * 72) + 2 * 131072 * 8192
# DeepSeek-OCR by its checkpoint's index: 6,672,212,480 bytes of bfloat16, towers and all.
DEEPSEEK_OCR = 6_672_212_480 // 2
# RecurrentGemma: 8 layers keep 2,047 tokens of one KV head of 256, 18 a state of 2,560 floats and
# three columns of their convolution.
RECURRENT = 8 * 2 * 256 * 2047 * 2 + 18 * (2560 * 4 + 3 * 2560 * 2)
GEMMA_FIXED = 40 * 2 * 8 * 256 * 1023 * 2  # 40 layers slide over 1,024 tokens

CASES: dict[str, tuple[int, int | None, int | None]] = {
    # name: parameters, KV bytes a token at 131,072 tokens, bytes that do not grow
    "ling-3.0-flash": (124_414_191_072, 8_064, 76_840_960),
    "hunyuan-large": (HUNYUAN, 81_920, 0),
    "grok-2": (GROK, 64 * 2 * 8 * 128 * 2, 0),
    "deepseek-ocr": (DEEPSEEK_OCR, 12 * 2 * 10 * 128 * 2, 0),
    "recurrentgemma-2b": (2_682_862_080, 0, RECURRENT),
    "gemma-4-12b-unified": (11_907_350_272, 16_384, GEMMA_FIXED),
    "glm-5.3-flash": (313_786_889_214, None, None),
}


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FILES / f"{name}.json").read_text(encoding="utf-8"))
    return found


def renamed(config: dict[str, Any]) -> dict[str, Any]:
    """The file under names of types and classes that nobody will ever know."""
    found = copy.deepcopy(config)
    for section in (found, *(x for x in found.values() if isinstance(x, dict))):
        if "model_type" in section:
            section["model_type"] = "newcomer"
        if section.get("architectures"):
            section["architectures"] = ["NewcomerForCausalLM"]
    return found


def of(spec: ModelSpec) -> list[KVBytes]:
    asked = BF16, Workload(LONG, 0), TRANSFORMERS
    return [kv_bytes(one, *asked) for one in (spec, *spec.ends)]


def holds(spec: ModelSpec, case: tuple[int, int | None, int | None]) -> None:
    parameters, growth, fixed = case
    low, high = spec.parameter_range
    assert low <= parameters <= high
    sizes = of(spec)
    if growth is not None and fixed is not None:
        total = growth * LONG + fixed
        for name, value in (("per_token", growth), ("fixed", fixed), ("total", total)):
            each = [getattr(one, name) for one in sizes]
            assert min(each) <= value <= max(each), name
    found = memory.estimate(spec, BF16, Workload(32768, 512), TRANSFORMERS, None)
    assert found.range_of("weights")[0] <= 2 * parameters <= found.range_of("weights")[1]
    least = 2 * parameters + (growth or 0) * 33_280 + (fixed or 0)
    assert found.total_low <= least + 500_000_000
    assert found.total_high >= least


@pytest.mark.parametrize("name", CASES)
def test_published_files(name: str) -> None:
    """As their families read them; the counts by hand leave norms and biases out."""
    spec, (parameters, per_token, _) = read_model(load(name), name), CASES[name]
    assert spec.understood
    assert spec.parameters == pytest.approx(parameters, rel=1e-3)
    assert per_token is None or {one.per_token for one in of(spec)} == {per_token}


@pytest.mark.parametrize("name", CASES)
def test_published_files_under_another_name(name: str) -> None:
    """By the rule: no family of these files helps."""
    if name == "gemma-4-12b-unified":  # without its sister, heads of a second kind
        with pytest.raises(BadConfig, match=r"not known, and text_config\.global_head_dim"):
            read_model(renamed(load(name)), name)
        return
    spec = read_model(renamed(load(name)), name)
    holds(spec, CASES[name])
    assert not spec.understood
    assert any("not known" in note for note in spec.warnings)


@pytest.fixture
def without_unified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma 4 is known, whatever is known of its unified variant is not."""
    for table in (styles.STYLE_ALIASES, styles.STYLE_MODULES, styles.READER_MODULES):
        for name in ("gemma4_unified", "gemma4_unified_text"):
            monkeypatch.delitem(table, name, raising=False)


@pytest.mark.usefixtures("without_unified")
def test_a_sister_family_is_tried_first() -> None:
    spec = read_model(load("gemma-4-12b-unified"), "gemma")
    assert any("read as gemma4" in note for note in spec.warnings)
    assert {(k.per_token, k.fixed) for k in of(spec)} == {(16_384, GEMMA_FIXED)}
    assert spec.parameters == 11_907_350_272


PLAIN: dict[str, Any] = {
    "model_type": "newcomer",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
HARMLESS: dict[str, Any] = {
    "attention_bias": True,
    "attention_dropout": 0.1,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "final_logit_softcapping": 30.0,
    "initializer_range": 0.02,
    "pretraining_tp": 2,
    "rope_scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 4096},
    "router_aux_loss_coef": 0.01,
    "sliding_window": None,
    "embedding_multiplier": 12,
    "num_experts": 0,
    "num_nextn_predict_layers": 0,
    "use_cla": False,
    "n_loops": 1,
    "lora_rank": None,
    "quantization_config": None,
    "transformers_version": "4.50.0",
}
SIZES: dict[str, Any] = {
    "moe_num_experts": 64,
    "n_experts": 64,
    "ffn_num_experts": 8,
    "num_local_experts": 8,
    "n_routed_experts": 128,
    "num_moe_experts": 16,
    "expert_count": 8,
    "moe_experts_total": 8,
    "use_moe": True,
    "expert_ffn_hidden_size": 1024,
    "moe_layer_interval": 2,
    "moe_hidden_size": 1024,
    "n_mixtures": 4,
    "kv_share": True,
    "cla_share_factor": 2,
    "use_cla": True,
    "num_kv_shared_layers": 8,
    "share_kv_every": 2,
    "sliding_window": 1024,
    "sliding_window_pattern": 6,
    "attention_window_size": 2048,
    "local_attention_size": 512,
    "use_sliding_window": True,
    "attn_layer_period": 4,
    "attn_layer_indices": [3, 11, 19],
    "full_attention_interval": 4,
    "layer_types": ["linear_attention", "full_attention"] * 12,
    "block_types": ["recurrent", "attention"],
    "layers_kind": ["a", "b"],
    "hybrid_override_pattern": "M-M*" * 6,
    "ssm_state_size": 16,
    "mamba_d_state": 128,
    "lru_width": 2560,
    "linear_num_key_heads": 16,
    "conv_kernel": 4,
    "rwkv_head_size": 64,
    "lora_rank": 16,
    "kv_rank": 512,
    "latent_dim": 512,
    "adapter_size": 64,
    "n_loops": 4,
    "num_recurrent_passes": 4,
    "total_ut_steps": 4,
    "block_repeats": 2,
    "share_layers": True,
    "num_cycles": 3,
    "ngram_vocab": 1_000_000,
    "ngram_vocab_size_ratio": 78,
    "engram_size": 100_000,
    "hash_buckets": 10_000,
    "vocab_size_per_layer_input": 262_144,
    "hidden_size_per_layer_input": 256,
    "embedding_size": 512,
    "memory_slots": 128,
    "mem_tokens": 128,
    "vision_config": {"hidden_size": 1024},
    "visual": {"width": 1664, "layers": 48},
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "audio_encoder_layers": 32,
    "talker_config": {"hidden_size": 896},
    "llm_backbone": {"hidden_size": 896},
    "num_nextn_predict_layers": 1,
    "num_mtp_layers": 2,
    "second_intermediate_size": 11008,
    "intermediate_size_mlp": 16384,
    "ffn_dims": [4096] * 24,
    "num_heads_per_layer": [16] * 24,
    "num_global_key_value_heads": 8,
    "v_head_dim": 256,
    "attention_hidden_size": 4096,
    "ffn_dim_multiplier": 1.3,
    "compress_ratio": 4,
    "ffn_config": {"ffn_hidden_size": 8192},
    "moe": {"num_experts": 8},
    "cross_attention_layers": [3, 8],
    "residual_ffn_beside": True,
    "anything_at_all": 7,
}


def is_tight(spec: ModelSpec) -> bool:
    """Every number of the model lies within a hundredth."""
    low, high = spec.parameter_range
    return high <= 1.01 * low and len(spec.bounds) == 1 and len({k.total for k in of(spec)}) == 1


def test_a_plain_unknown_type_stays_tight() -> None:
    assert is_tight(read_model(PLAIN, "plain"))


@pytest.mark.parametrize("key", HARMLESS)
def test_settings_without_size_open_nothing(key: str) -> None:
    spec = read_model({**PLAIN, key: HARMLESS[key]}, "plain")
    assert is_tight(spec)


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("key", SIZES)
def test_a_key_that_can_carry_size_never_leaves_tight_bounds(key: str, nested: bool) -> None:
    config = {**PLAIN, key: SIZES[key]}
    if nested:
        del config["model_type"]
        config = {"model_type": "newcomer_chat", "llm_config": config}
    try:
        spec = read_model(config, "sized")
    except BadConfig as error:
        assert key in error.message  # noqa: PT017
        assert "not known" in error.message  # noqa: PT017
        assert "published config" not in error.hint  # noqa: PT017
        return
    assert not is_tight(spec)
    plain = read_model(PLAIN, "plain")
    low, high = spec.parameter_range
    assert low <= plain.parameters or key in ("moe_num_experts", *EXPERTS)
    assert high >= plain.parameters
    if nested:
        assert high >= plain.parameters + 6_500_000_000


EXPERTS = (
    "n_experts",
    "ffn_num_experts",
    "num_local_experts",
    "n_routed_experts",
    "num_moe_experts",
)


@pytest.mark.parametrize("key", SIZES)
def test_a_plan_never_fits_from_the_low_end(key: str) -> None:
    """What is recommended fits by the largest reading, and the table agrees with the estimate."""
    try:
        spec = read_model({**PLAIN, key: SIZES[key]}, "sized")
    except BadConfig:
        return
    workload = Workload(4096, 64)
    asked = spec, BF16, workload, KVPARETO, None
    found = memory.estimate(*asked)
    largest = max(memory.estimate(end, *asked[1:]).total_high for end in (spec, *spec.ends))
    assert found.total_high >= largest - 1
    table = evaluate(spec, workload, KVPARETO, None)
    first = table.points_at([0])[0].memory
    again = memory.estimate(spec, table.space.configuration(0), workload, KVPARETO, None)
    assert (first.total_low, first.total_high) == (again.total_low, again.total_high)
    assert int(table.points.memory[0]) == again.total_high


def test_ling_does_not_fit_a_4090() -> None:
    spec, card = read_model(load("ling-3.0-flash"), "ling"), find_gpu("4090")
    request = Request(spec, Workload(32768, 512), KVPARETO, card.memory_bytes, hardware=card)
    with pytest.raises(NothingFits):
        recommend(request)


def test_what_fits_says_by_which_reading() -> None:
    spec = read_model(renamed(load("hunyuan-large")), "hunyuan")
    plan = recommend(Request(spec, Workload(4096, 64), KVPARETO, 900 * 10**9))
    assert "however newcomer, which is not known, is read" in plan.reasons[0]
    assert any("parameters lie between" in note for note in plan.warnings)
    assert any("use_cla, cla_share_factor" in note for note in plan.warnings)


def test_seconds_hold_every_reading() -> None:
    spec = read_model(renamed(load("recurrentgemma-2b")), "recurrent")
    asked = BF16, Workload(8192, 64), TRANSFORMERS, find_gpu("H200")
    found = predict(spec, *asked)
    assert found is not None
    for end in spec.ends:
        one = predict(end, *asked)
        assert one is not None
        assert found.tpot_low <= one.tpot_s <= found.tpot_high
        assert found.ttft_low <= one.ttft_s <= found.ttft_high


def test_the_class_says_whose_a_file_without_model_type_is() -> None:
    config = {k: v for k, v in PLAIN.items() if k != "model_type"}
    spec = read_model({**config, "architectures": ["Qwen3ForCausalLM"]}, "qwen")
    assert spec.model_type == "qwen3"
    assert "does not say its model_type: qwen3, by its class" in spec.warnings[0]
    other = read_model({**config, "architectures": ["NobodysForCausalLM"]}, "nobody")
    assert other.model_type == "nobodys"
    assert not other.understood


def test_a_known_family_says_what_it_does_not_count() -> None:
    spec = read_model({**PLAIN, "model_type": "llama", "num_experts": 8}, "llama")
    assert "num_experts: not part of llama, and not counted" in spec.warnings
    assert spec.understood
    same = read_model(
        {**PLAIN, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "llama"
    )
    assert same.parameters == spec.parameters


def test_a_known_name_on_another_class_is_not_believed() -> None:
    """grok-2 calls itself `git`; here it calls itself `llama`, and has experts."""
    config = {**load("grok-2"), "model_type": "llama"}
    spec = read_model(config, "grok")
    assert not spec.understood
    holds(spec, CASES["grok-2"])


def test_zero_rotary_channels_are_legal() -> None:
    """GLM-5.3-Flash has none, and says so."""
    text = {**load("glm-5.3-flash")["text_config"], "model_type": "deepseek_v3"}
    text = {k: v for k, v in text.items() if k not in ("layer_types", "head_dim")}
    spec = read_model({**text, "first_k_dense_replace": 3}, "mla")
    assert of(spec)[0].per_token == 45 * 512 * 2


def test_what_is_wrong_is_said_of_the_type_and_not_of_the_file() -> None:
    with pytest.raises(BadConfig, match="'newcomer' is not known") as caught:
        read_model({**PLAIN, "num_key_value_heads": "many"}, "odd")
    assert "published" not in caught.value.hint
    with pytest.raises(BadConfig, match="kv_lora_rank has no qk_nope_head_dim"):
        read_model({**PLAIN, "kv_lora_rank": 512}, "half")
