"""Published models of types that nobody here knew: right, within bounds, or refused by name.

The truths are transformers' on the meta device, published sizes, or sums by hand
(tests/data/unknown_types holds the files).
"""

from dataclasses import replace

import pytest

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.errors import BadConfig, NothingFits
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.latency.predict import predict
from kvpareto.planner.load_model import load_config, load_model
from kvpareto.planner.memory import estimate as memory
from kvpareto.planner.models.families import registry as styles
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.search.recommend import Request, recommend
from kvpareto.planner.workload import Workload
from tests.planner.models.unknown.newcomers import BF16, LONG, PLAIN, load, of, renamed

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


def test_what_layers_keep_of_a_whole_prompt_has_no_bound() -> None:
    """Experts and recurrent layers keep many times what plain ones do: plans are in chunks."""
    spec, work = read_model(renamed(load("hunyuan-large")), "hunyuan"), Workload(4096, 64)
    plan = recommend(Request(spec, work, KVPARETO, 900 * 10**9))
    assert all(point.config.chunk for point in (plan.recommended, *plan.frontier))
    whole, cut = (
        memory.estimate(spec, BF16.with_chunk(chunk), work, TRANSFORMERS, None)
        for chunk in (None, 1024)
    )
    assert any("in chunks" in note for note in whole.notes)
    assert not any("in chunks" in note for note in cut.notes)


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


def test_a_chunk_as_long_as_the_prompt_is_said_to_have_no_bound() -> None:
    spec = read_model(renamed(load_config("Qwen/Qwen3-8B").config), "x")
    for chunk, said in ((None, True), (8192, True), (4096, False)):
        config = Configuration(chunk=chunk)
        found = memory.estimate(spec, config, Workload(8192), KVPARETO, None)
        assert any("of a whole prompt" in note for note in found.notes) == said


def test_experts_behind_dense_layers_are_as_uncertain_as_experts() -> None:
    experts = {"num_experts": 64, "num_experts_per_tok": 4, "moe_intermediate_size": 512}
    mixed = read_model({**PLAIN, **experts, "first_k_dense_replace": 2}, "mixed")
    assert len({type(layer.ffn) for layer in mixed.layers}) == 2
    assert memory.activation_error(mixed) == memory.UNKNOWN_EXPERTS
    plain = read_model(PLAIN, "plain")
    assert memory.activation_error(plain) == memory.NOT_UNDERSTOOD
    hybrid = load_model("Qwen/Qwen3-Next-80B-A3B-Instruct", offline=True)
    states = replace(plain, layers=(*hybrid.layers[:1], *plain.layers[1:]))
    assert memory.activation_error(states) == memory.UNKNOWN_STATES


def test_a_placeholder_for_the_experts_is_named() -> None:
    config = {**load("hunyuan-large"), "model_type": "newcomer", "num_experts": -1}
    with pytest.raises(BadConfig, match="num_experts is -1, not a number of experts"):
        read_model(config, "newcomer")
