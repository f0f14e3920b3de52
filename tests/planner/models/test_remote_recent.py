"""Newer families transformers has no class for: published totals, and totals counted by hand."""

from typing import Any

import pytest

from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.errors import BadConfig
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.kv_cache import kv_bytes, state_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import Attention, ModelSpec, MoEFFN, Part, RecurrentState
from kvpareto.planner.workload import Workload
from tests.planner.models.published_configs import (
    DEEPSEEK_OCR,
    ERNIE_VL,
    GROK_2,
    HUNYUAN_LARGE,
    INTERNVL,
    LONGCAT,
    LONGCAT_LITE,
    MINICPM_V_2_6,
    OURO,
    PLAMO_2_1B,
    SALA,
    SMALLTHINKER_21B,
)


def read(config: dict[str, Any]) -> ModelSpec:
    return read_model(config, str(config["model_type"]))


def grown(spec: ModelSpec) -> int:
    """KV bytes per token in transformers."""
    return kv_bytes(spec, Configuration(), Workload(9000, 0), TRANSFORMERS).per_token


def test_hunyuan_large_reads_every_other_layers_cache() -> None:
    """389 B as published; 32 of 64 layers cache 8 heads of 80 channels in 2 bytes."""
    spec = read(HUNYUAN_LARGE)
    assert round(spec.parameters / 1e9) == 389
    assert grown(spec) == 32 * 8 * 2 * 80 * 2


def test_grok_2_has_experts_beside_a_dense_ffn() -> None:
    """About 270 B as published, under a model_type that is another model's."""
    assert round(read(GROK_2).parameters / 1e9) == 270


def test_smallthinker_has_experts_in_every_layer_and_three_of_four_slide() -> None:
    """21 B as published, of which a token passes 3; its file names a class and no type."""
    spec = read_model(SMALLTHINKER_21B, "smallthinker")
    attention, routed = 2 * 2560 * (28 + 4) * 128, 64 * (3 * 2560 * 768 + 2560)
    assert spec.parameters == 52 * (attention + routed + 2 * 2560) + 2560 + 2 * 151936 * 2560
    windows = [m.window for layer in spec.layers for m in layer.mixers if isinstance(m, Attention)]
    assert windows == [None, 4096, 4096, 4096] * 13
    assert {(x.ffn.experts, x.ffn.top_k) for x in spec.layers if isinstance(x.ffn, MoEFFN)} == {
        (64, 6)
    }
    shared = SMALLTHINKER_21B | {"moe_shared_primary_experts": 1}
    with pytest.raises(BadConfig, match="moe_shared_primary_experts is 1"):
        read_model(shared, "smallthinker")
    tied = {k: v for k, v in SMALLTHINKER_21B.items() if k != "tie_word_embeddings"}
    assert read_model(tied, "smallthinker").parameters == spec.parameters - 151936 * 2560


def test_ernie_vl_is_what_transformers_holds_under_other_names() -> None:
    """29.4 B: 64 experts for text and as many narrower ones for images in 27 of 28 layers."""
    spec = read(ERNIE_VL)
    same = read({"model_type": "ernie4_5_vl_moe", "dtype": "bfloat16"})
    assert spec.parameters == same.parameters == 29_399_294_336
    assert grown(spec) == 28 * 2 * 4 * 128 * 2
    assert [isinstance(x.ffn, MoEFFN) for x in spec.layers] == [False] + [True] * 27
    with pytest.raises(BadConfig, match=r"moe_layer_start_index is \[1, 3\]"):
        read(ERNIE_VL | {"architectures": None, "moe_layer_start_index": [1, 3]})


def test_minicpm_v_is_its_text_model_a_siglip_and_a_resampler() -> None:
    """Parameters of the checkpoint of 2.6 as a public table has them, of 4.5 from memory; Qwen2 and
    Qwen3. A layer of the tower that is dropped by hand."""
    spec = read(MINICPM_V_2_6)
    assert spec.parameters == 8_099_175_152
    assert grown(spec) == 28 * 2 * 4 * 128 * 2
    later = {
        "version": 4.5, "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32,
        "num_hidden_layers": 36, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151748,
        "attention_bias": False, "sliding_window": None, "max_position_embeddings": 40960,
    }  # fmt: skip
    assert read(MINICPM_V_2_6 | later).parameters == 8_695_895_280
    short = read(MINICPM_V_2_6 | {"drop_vision_last_layer": True})
    layer = 4 * 1152 * 1153 + 2 * 1152 * 4304 + 1152 + 4304 + 4 * 1152
    assert spec.parameters - short.parameters == layer
    with pytest.raises(BadConfig, match="the text models of versions other than"):
        read(MINICPM_V_2_6 | {"version": 2.0})


def test_deepseek_ocr_weighs_what_its_index_says() -> None:
    assert 2 * read(DEEPSEEK_OCR).parameters == 6_672_212_480


def test_ouro_caches_every_pass() -> None:
    spec = read(OURO)
    layer = 4 * 2048**2 + 3 * 2048 * 5632 + 4 * 2048
    assert spec.parameters == 24 * layer + 2 * 49152 * 2048 + 2048 + 2049
    assert grown(spec) == 4 * 24 * 2 * 16 * 128 * 2


def test_plamo_2_keeps_windows_and_states() -> None:
    """Eight Mamba layers; eight of attention keep 2,048 tokens: the window without the current."""
    spec = read(PLAMO_2_1B)
    inner, rank = 32 * 128, 128
    mamba = 2048 * 2 * inner + inner * 4 + inner * (rank + 128) + rank * 32
    mamba += 3 * 32 + rank + 2 * 64 + inner * 2048
    attention = 2048 * (16 + 2) * 128 + 16 * 128 * 2048 + 17 * 128
    each = 3 * 2048 * 8192 + 4 * 2048
    assert spec.parameters == 8 * (mamba + attention) + 16 * each + 100000 * 2048 + 2048
    held = kv_bytes(spec, Configuration(), Workload(9000, 0), TRANSFORMERS)
    assert held.per_token == 0
    assert held.total == 8 * 2048 * 2 * 128 * 2 + state_bytes(spec, 1)
    assert state_bytes(spec, 1) == 8 * (inner * 64 * 4 + inner * 3 * 2)


def test_minicpm_sala_bounds_what_its_sparse_layers_pool() -> None:
    spec = read(SALA)
    mixers = [layer.mixers[0] for layer in spec.layers]
    assert [type(mixer) for mixer in mixers] == [
        Attention,
        RecurrentState,
        RecurrentState,
        Attention,
    ]
    (bounds,) = spec.bounds
    assert bounds.quantity == "kv_bytes_per_token"
    assert bounds.low == grown(spec) == 2 * 2 * 2 * 128 * 2
    assert bounds.high == bounds.low + 2 * 2 * 128 * 2 * 5 // 64
    assert state_bytes(spec, 1) == 2 * 32 * 128 * 128 * 4


def test_longcat_lite_has_twelve_tables_of_ngrams() -> None:
    """4 tables for each of 2, 3 and 4 neighbours, of 78 vocabularies and 1, 3, 5 … rows more."""
    plain = {k: v for k, v in LONGCAT_LITE.items() if k != "ngram_vocab_size_ratio"}
    rows = sum(78 * 131072 + 2 * i + 1 for i in range(12))
    more = read(LONGCAT_LITE).parameters - read(plain).parameters
    assert more == rows * 256 + 12 * 256 * 3072


def test_longcats_identity_experts_are_routed_to_and_have_no_weights() -> None:
    """LongCat-Flash-Chat by hand: 28 layers of 512 experts, two latent attentions and two FFNs,
    a router of 768 rows; 560 B by its card, 180 B more by transformers' class."""
    attention = 6144 * (1536 + 576) + 1536 * 64 * 192 + 512 * 64 * 256 + 64 * 128 * 6144
    layer = 512 * 3 * 6144 * 2048 + 768 * 6144 + 2 * (attention + 3 * 6144 * 12288)
    norms = 28 * 2 * (2 * 6144 + 1536 + 512) + 6144
    spec = read(LONGCAT)
    assert spec.parameters == 28 * layer + norms + 2 * 131072 * 6144 == 560_664_958_976
    assert {layer.ffn.experts for layer in spec.layers if isinstance(layer.ffn, MoEFFN)} == {768}


def test_a_section_without_model_type_is_read_with_its_experts() -> None:
    """DeepSeek-OCR's language_config names no type; its MoE layers are all there."""
    spec = read(DEEPSEEK_OCR)
    assert len(spec.layers) == 12
    assert all(isinstance(layer.mixers[0], Attention) for layer in spec.layers)


def test_internvl_chat_is_its_text_model_with_internvit() -> None:
    """OpenGVLab/InternVL3_5-8B: 8,528,318,464 parameters by its index. InternLM2 stands in too."""
    spec = read(INTERNVL)
    assert (spec.parameters, spec.understood, spec.decoder_type) == (8_528_318_464, True, "qwen3")
    vision = 24 * (12 * 2**20 + 15 * 2**10) + 1024 * (3 * 14 * 14 + 1) + (1024 + 2) * 1024
    assert spec.parameters_of(Part.VISION) == vision
    assert spec.parameters_of(Part.PROJECTOR) == 2 * 4096 + 2 * (4096 * 4096 + 4096)
    alone = {"model_type": "internlm2", "hidden_size": 4096, "intermediate_size": 14336,
             "num_hidden_layers": 2, "num_attention_heads": 32, "num_key_value_heads": 8,
             "vocab_size": 92553, "max_position_embeddings": 32768}  # fmt: skip
    held = read(INTERNVL | {"llm_config": alone}).parameters_of(Part.TEXT)
    assert held == read(alone).parameters
    with pytest.raises(BadConfig, match=r"llm_config\.model_type"):
        read(INTERNVL | {"llm_config": {**alone, "model_type": "chatglm"}})
