"""Which tensor gets which type, mix by mix: the branches of llama-quantize's rule, by hand.

Expected types follow llama.cpp's llama_tensor_get_type, from memory of its source, for a model of
32 layers: its first and last eighth are four layers each, and every third between counts from the
fifth.
"""

from dataclasses import replace

import pytest

from kvpareto.planner.formats.gguf_mix import MixFacts, tensor_type

GROUPED = MixFacts(layers=32, value_tensors=32, gqa=4)
EVERY_HEAD = MixFacts(layers=32, value_tensors=32, gqa=3)
EIGHT = MixFacts(layers=32, value_tensors=32, gqa=4, experts=8)
FALCON = MixFacts(layers=32, value_tensors=32, gqa=71, falcon=True)
SEVENTY_B = MixFacts(layers=32, value_tensors=32, gqa=4, seventy_b=True)
MORE = {0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31}


def by_layer(mix: str, kind: str, facts: MixFacts) -> list[str]:
    return [tensor_type(mix, kind, i, 4096, facts) for i in range(facts.layers)]


def finer(first: str, rest: str, layers: set[int]) -> list[str]:
    return [first if i in layers else rest for i in range(32)]


@pytest.mark.parametrize(
    ("mix", "kind", "facts", "first", "rest", "layers"),
    [
        ("Q4_K_M", "attn_v", GROUPED, "Q6_K", "Q4_K", MORE),
        ("Q5_K_M", "attn_qkv", GROUPED, "Q6_K", "Q5_K", MORE),
        ("Q5_K_M", "ffn_down", GROUPED, "Q6_K", "Q5_K", MORE),
        ("Q4_K_M", "experts ffn_down", EIGHT, "Q6_K", "Q4_K", MORE),
        ("Q4_K_S", "attn_v", GROUPED, "Q5_K", "Q4_K", {0, 1, 2, 3}),
        ("Q4_K_S", "ffn_down", GROUPED, "Q5_K", "Q4_K", {0, 1, 2, 3}),
        ("Q3_K_M", "attn_v", GROUPED, "Q5_K", "Q4_K", {0, 1}),
        ("Q3_K_M", "ffn_down", GROUPED, "Q5_K", "Q4_K", {0, 1}),
        ("Q2_K_S", "ffn_down", GROUPED, "Q4_K", "Q2_K", {0, 1, 2, 3}),
        ("IQ3_M", "ffn_down", GROUPED, "Q4_K", "IQ3_S", {0, 1, 2, 3}),
        ("IQ3_M", "ffn_down", EIGHT, "Q4_K", "IQ3_S", MORE),
        ("Q4_0", "ffn_down", GROUPED, "Q4_1", "Q4_0", {0, 1, 2, 3}),
        ("Q5_0", "ffn_down", GROUPED, "Q5_1", "Q5_0", {0, 1, 2, 3}),
        ("IQ2_XXS", "ffn_down", GROUPED, "Q2_K", "IQ2_XXS", {0, 1, 2, 3}),
        ("IQ2_M", "ffn_down", GROUPED, "IQ3_S", "IQ2_S", {0, 1, 2, 3}),
        ("IQ3_XS", "ffn_gate", GROUPED, "IQ3_S", "IQ3_XXS", {0, 1, 2, 3, 28, 29, 30, 31}),
        ("IQ3_XS", "ffn_up", GROUPED, "IQ3_S", "IQ3_XXS", {0, 1, 2, 3, 28, 29, 30, 31}),
        ("Q4_K_M", "ffn_down", FALCON, "Q5_K", "Q4_K", MORE - {0, 1}),
        ("Q3_K_M", "ffn_down", FALCON, "Q4_K", "Q3_K", MORE - {0, 1}),
    ],
)  # fmt: skip
def test_some_layers_get_a_finer_type(
    mix: str, kind: str, facts: MixFacts, first: str, rest: str, layers: set[int]
) -> None:
    expected = finer(first, rest, layers)
    if facts.falcon:
        expected[:2] = [{"Q4_K_M": "Q6_K", "Q3_K_M": "Q5_K"}[mix]] * 2
    assert by_layer(mix, kind, facts) == expected


@pytest.mark.parametrize(
    ("mix", "kind", "facts", "expected"),
    [
        ("Q2_K", "attn_v", GROUPED, "Q4_K"),
        ("Q2_K", "attn_v", EVERY_HEAD, "Q3_K"),
        ("Q2_K_S", "attn_v", GROUPED, "Q4_K"),
        ("Q2_K_S", "attn_v", EVERY_HEAD, "Q2_K"),
        ("IQ3_XXS", "attn_v", GROUPED, "Q4_K"),
        ("IQ3_XXS", "attn_v", EVERY_HEAD, "IQ3_XXS"),
        ("IQ3_XXS", "attn_v", replace(EVERY_HEAD, imatrix=False), "IQ3_S"),
        ("IQ3_XS", "attn_v", GROUPED, "Q4_K"),
        ("IQ3_S", "attn_v", EVERY_HEAD, "IQ3_S"),
        ("IQ3_M", "attn_v", EVERY_HEAD, "Q4_K"),
        ("Q3_K_L", "attn_v", EVERY_HEAD, "Q5_K"),
        ("IQ4_XS", "attn_v", GROUPED, "Q5_K"),
        ("IQ4_NL", "attn_kv_b", EVERY_HEAD, "IQ4_NL"),
        ("IQ2_XS", "attn_v", GROUPED, "Q4_K"),
        ("IQ2_XS", "attn_v", EVERY_HEAD, "Q2_K"),
        ("IQ2_XS", "attn_v", replace(EVERY_HEAD, experts=4), "Q4_K"),
        ("IQ2_S", "attn_v", EVERY_HEAD, "IQ3_S"),
        ("Q3_K_S", "attn_v", SEVENTY_B, "Q5_K"),
        ("Q5_K_S", "attn_v", SEVENTY_B, "Q5_K"),
        ("Q4_K_M", "attn_v", EIGHT, "Q8_0"),
        ("Q4_K_M", "attn_k", EIGHT, "Q8_0"),
        ("Q4_K_M", "attn_q", EIGHT, "Q4_K"),
        ("Q4_K_M", "attn_k", GROUPED, "Q4_K"),
        ("IQ3_XS", "attn_q", GROUPED, "IQ3_XXS"),
        ("IQ3_XXS", "attn_k", GROUPED, "IQ2_S"),
        ("IQ2_XXS", "attn_k", EIGHT, "Q4_K"),
        ("IQ2_XXS", "attn_k", GROUPED, "IQ2_XXS"),
        ("IQ2_XXS", "attn_output", EIGHT, "Q5_K"),
        ("IQ1_S", "attn_output", GROUPED, "IQ2_XXS"),
        ("IQ2_M", "attn_output", GROUPED, "IQ3_S"),
        ("IQ2_XS", "attn_output", GROUPED, "IQ2_XS"),
        ("IQ2_XS", "ffn_up", GROUPED, "IQ2_XS"),
        ("Q4_K_M", "attn_output", EIGHT, "Q5_K"),
        ("Q5_K_M", "attn_output", EIGHT, "Q5_K"),
        ("Q6_K", "attn_output", EIGHT, "Q6_K"),
        ("Q2_K", "attn_output", GROUPED, "Q3_K"),
        ("IQ3_XXS", "attn_output", GROUPED, "IQ3_S"),
        ("Q4_K_M", "attn_output", GROUPED, "Q4_K"),
        ("Q3_K_L", "attn_output", FALCON, "Q4_K"),
        ("Q3_K_M", "attn_output", FALCON, "Q3_K"),
        ("Q2_K", "ffn_down", GROUPED, "Q3_K"),
        ("Q3_K_L", "ffn_down", GROUPED, "Q5_K"),
        ("Q3_K_L", "ffn_down", FALCON, "Q4_K"),
        ("Q4_K_S", "ffn_down", FALCON, "Q4_K"),
        ("Q4_0", "ffn_down", replace(GROUPED, imatrix=False), "Q4_0"),
        ("Q6_K", "ffn_down", GROUPED, "Q6_K"),
        ("Q4_K_M", "ffn_up", GROUPED, "Q4_K"),
        ("Q4_K_M", "other", GROUPED, "Q4_K"),
        ("MXFP4_MOE", "experts ffn_up", EIGHT, "MXFP4"),
        ("MXFP4_MOE", "attn_q", EIGHT, "Q8_0"),
        ("F16", "ffn_down", GROUPED, "F16"),
    ],
)
def test_all_layers_have_one_type(mix: str, kind: str, facts: MixFacts, expected: str) -> None:
    assert set(by_layer(mix, kind, facts)) == {expected}


@pytest.mark.parametrize(
    ("mix", "first", "rest"), [("IQ4_XS", "Q5_K", "IQ4_XS"), ("IQ3_XXS", "Q4_K", "Q3_K")]
)
def test_without_an_importance_matrix_the_way_down_is_finer(
    mix: str, first: str, rest: str
) -> None:
    facts = replace(GROUPED, imatrix=False)
    assert by_layer(mix, "ffn_down", facts) == finer(first, rest, {0, 1, 2, 3})


@pytest.mark.parametrize(
    ("mix", "output", "embedding"),
    [
        ("Q4_K_M", "Q6_K", "Q4_K"),
        ("Q8_0", "Q8_0", "Q8_0"),
        ("IQ3_XXS", "Q5_K", "IQ3_S"),
        ("IQ2_M", "Q5_K", "IQ3_S"),
        ("IQ1_M", "Q5_K", "Q2_K"),
        ("TQ2_0", "Q6_K", "Q4_K"),
        ("MXFP4_MOE", "Q8_0", "Q8_0"),
    ],
)
def test_heads_and_embeddings(mix: str, output: str, embedding: str) -> None:
    tied = replace(GROUPED, tied=True)
    assert tensor_type(mix, "output", 0, 4096, GROUPED) == output
    assert tensor_type(mix, "token_embd", 0, 4096, GROUPED) == embedding
    assert tensor_type(mix, "token_embd", 0, 4096, tied) == output  # it is the head too
    assert tensor_type(mix, "output", 0, 4096, FALCON) == "Q8_0"


@pytest.mark.parametrize(
    ("mix", "columns", "expected"),
    [
        ("Q4_K_M", 512, "Q4_K"),
        ("Q4_K_M", 96, "Q5_0"),
        ("Q2_K", 96, "Q4_0"),
        ("IQ4_XS", 96, "IQ4_NL"),
        ("IQ4_XS", 100, "F16"),
        ("Q8_0", 100, "F16"),
    ],
)
def test_rows_that_are_no_whole_blocks(mix: str, columns: int, expected: str) -> None:
    assert tensor_type(mix, "ffn_up", 0, columns, GROUPED) == expected
