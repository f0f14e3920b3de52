"""Quantizing models in memory, random models, joined projections: against the planner and bf16."""

import copy

import pytest
import torch

from kvpareto.planner.errors import BadInput
from kvpareto.planner.memory.weights import weight_bytes
from kvpareto.runtime.weights.experts import QuantizedExperts
from kvpareto.runtime.weights.fused_projections import move, siblings_of
from kvpareto.runtime.weights.layout import Packed4
from kvpareto.runtime.weights.linear import QuantizedLinear, W4Linear, W8Linear, multiply
from kvpareto.runtime.weights.quantize_modules import (
    apply,
    packed_bytes,
    spec_of,
    targets,
    workspace_for,
)
from kvpareto.runtime.weights.random import random_model
from kvpareto.runtime.weights.workspace import Workspace, require_16_bits
from tests.support.models.weights_models import PROMPT, TINY, TINY_MOE, apart

FAMILIES = {
    "llama": TINY,
    "qwen2-bias": {**TINY, "model_type": "qwen2"},
    "qwen3": {**TINY, "model_type": "qwen3", "head_dim": 32},
    "mistral": {**TINY, "model_type": "mistral", "sliding_window": 16},
    "gemma2-tied": {
        **TINY,
        "model_type": "gemma2",
        "head_dim": 64,
        "tie_word_embeddings": True,
        "query_pre_attn_scalar": 64,
    },
    "phi3-fused": {**TINY, "model_type": "phi3", "pad_token_id": 0},
    "qwen3_moe": TINY_MOE,
    "mixtral": {**TINY, "model_type": "mixtral", "num_local_experts": 4},
    "gpt_oss-misfits": {
        **TINY,
        "model_type": "gpt_oss",
        "hidden_size": 192,  # no multiple of 128: only the matrices that fit are packed
        "head_dim": 64,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "pad_token_id": 0,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)
BITS = pytest.mark.parametrize("bits", [8, 4])


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(PROMPT, use_cache=False).logits.float()


def token_errors(got: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
    """Relative error of each token's logits."""
    return ((got - want).norm(dim=-1) / want.norm(dim=-1)).flatten()


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).norm() / want.norm()).item()


@EVERY_FAMILY
@pytest.mark.parametrize("bits", [16, 8, 4])
def test_a_random_model_has_the_planners_bytes(family: str, bits: int) -> None:
    model = random_model(FAMILIES[family], bits)
    predicted = weight_bytes(spec_of(model), bits)
    assert packed_bytes(model) == predicted.total
    if bits < 16:
        assert model.weight_workspace.scratch.nbytes == predicted.workspace
        assert any(isinstance(m, QuantizedLinear) for m in model.modules()) == (
            predicted.quantized > 0
        )
    result = logits(model)
    assert torch.isfinite(result).all()
    assert result.std() > 1e-3


@EVERY_FAMILY
@BITS
def test_replacing_keeps_the_function(family: str, bits: int) -> None:
    """Rounding noise alone separates a packed model from the one it was made of."""
    plain = random_model(FAMILIES[family], 16, dtype=torch.float32)
    packed = copy.deepcopy(plain)
    apply(packed, bits)
    assert packed_bytes(packed) < packed_bytes(plain)
    # 4 bits leave a relative error of about 0.1 in every weight, 8 bits one of about 0.007.
    # The median, because a router's choice between experts flips for some tokens; attention
    # spreads even that, so mixtures of 8 bits get twice the room.
    error = token_errors(logits(packed), logits(plain)).median()
    room = 2 if "num_local_experts" in FAMILIES[family] else 1
    assert 0 < error < {4: 0.35, 8: 0.03 * room}[bits]


def test_sixteen_bits_change_nothing() -> None:
    model = random_model(TINY, 16)
    before = logits(model)
    apply(model, 16)
    assert torch.equal(logits(model), before)
    assert not hasattr(model, "weight_workspace")


def test_what_is_kept_and_what_is_packed() -> None:
    model = random_model(TINY_MOE, 4)
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    assert kinds["model.layers.0.self_attn.q_proj"] == "W4Linear"
    assert kinds["model.layers.0.mlp.experts"] == "QuantizedExperts"
    assert kinds["lm_head"] == "Linear"
    assert kinds["model.embed_tokens"] == "Embedding"
    assert not isinstance(model.model.layers[0].mlp.gate, QuantizedLinear)
    assert isinstance(random_model(TINY, 8).model.layers[1].mlp.down_proj, W8Linear)


def test_experts_equal_their_dequantized_matrices() -> None:
    """Each token through its own experts, by the definition of a mixture."""
    model = random_model(TINY_MOE, 4, dtype=torch.float32)
    experts = model.model.layers[0].mlp.experts
    assert isinstance(experts, QuantizedExperts)
    hidden = torch.randn(5, 128)
    chosen = torch.tensor([[0, 3], [1, 0], [2, 1], [3, 2], [0, 1]])
    weights = torch.rand(5, 2)
    want = torch.zeros(5, 128)
    for token in range(5):
        for expert, weight in zip(chosen[token].tolist(), weights[token], strict=True):
            gate_up = hidden[token] @ experts.stack("first").member(expert).dequantized(
                torch.float32
            )
            gate, up = gate_up.chunk(2)
            inner = torch.nn.functional.silu(gate) * up
            down = experts.stack("down").member(expert).dequantized(torch.float32)
            want[token] += weight * (inner @ down)
    assert relative_error(experts(hidden, chosen, weights), want) < 1e-5


@BITS
@pytest.mark.parametrize("family", ["mixtral", "gpt_oss-misfits"])
def test_packed_experts_stay_close_to_plain_ones(family: str, bits: int) -> None:
    """Transposed, biased and partly packed stacks included: the same routes, so no flips."""
    plain = random_model(FAMILIES[family], 16, dtype=torch.float32)
    packed = copy.deepcopy(plain)
    apply(packed, bits)
    before, after = (m.model.layers[1].mlp.experts for m in (plain, packed))
    assert isinstance(after, QuantizedExperts)
    hidden = torch.randn(9, plain.config.hidden_size)
    chosen, weights = torch.tensor([[0, 3], [1, 2], [3, 1]] * 3), torch.rand(9, 2)
    error = relative_error(after(hidden, chosen, weights), before(hidden, chosen, weights))
    assert 1e-3 < error < {4: 0.25, 8: 0.02}[bits]


@BITS
def test_projections_lie_side_by_side_as_soon_as_they_are_packed(bits: int) -> None:
    """Buffers of their own would leave holes where they were. Until the last has come each
    computes alone."""
    model = random_model(FAMILIES["qwen2-bias"], 16, dtype=torch.float32)
    kind = W4Linear if bits == 4 else W8Linear
    found = targets(model, bits, spec_of(model))
    workspace = workspace_for(model, 8, found, "cpu")
    x = torch.randn(1, 3, found[0].module.in_features)
    for target in found[:3]:
        bias = target.module.bias.detach()
        layer = kind.from_weight(target.module.weight.detach(), bias, workspace)
        want = layer(x)
        target.put(layer)
        (joint, _) = layer.joint
        assert layer.words.untyped_storage().data_ptr() == joint.weight.words.data_ptr()
        assert layer.bias.untyped_storage().data_ptr() == joint.bias.data_ptr()
        assert torch.allclose(layer(x), want, atol=1e-5)
        assert (joint._output is not None) == (target is found[2])  # of all, once all are there


def test_a_projection_whose_siblings_stay_as_they_are_is_hung_alone() -> None:
    model = random_model(FAMILIES["llama"], 16, dtype=torch.float32)
    found = {t.name: t.module for t in targets(model, 8, spec_of(model))}
    query = "model.layers.0.self_attn.q_proj"
    assert siblings_of(query, found) == ("q_proj", "k_proj", "v_proj")
    del found["model.layers.0.self_attn.k_proj"]
    assert siblings_of(query, found) == ()


@BITS
def test_a_moved_model_is_joined_where_it_lies(bits: int) -> None:
    model = random_model(FAMILIES["qwen2-bias"], bits, dtype=torch.float32)
    expected = model(PROMPT).logits
    move(model, torch.device("meta"))
    joined = [m for m in model.modules() if isinstance(m, QuantizedLinear) and m.joint is not None]
    assert len(joined) == 10
    for member in joined:
        assert all(x.is_meta for x in member.buffers())
    assert all(member.joint[0].weight.words.is_meta for member in joined)
    model = random_model(FAMILIES["qwen2-bias"], bits, dtype=torch.float32)
    move(model, torch.device("cpu"))
    assert relative_error(model(PROMPT).logits, expected) < 1e-6


@BITS
@pytest.mark.parametrize("family", ["llama", "qwen2-bias"])
def test_joined_projections_change_neither_results_nor_bytes(family: str, bits: int) -> None:
    model = random_model(FAMILIES[family], bits, dtype=torch.float32)
    joined = [m for m in model.modules() if isinstance(m, QuantizedLinear) and m.joint is not None]
    assert len(joined) == 10  # q, k, v, gate and up of two layers
    assert packed_bytes(model) == weight_bytes(spec_of(model), bits).total
    single = apart(model)
    for prompt in (PROMPT, torch.arange(5, 12)[None]):  # the second does not see the first
        with torch.no_grad():
            error = relative_error(model(prompt).logits, single(prompt).logits)
        assert error < 1e-5


def test_a_joined_member_alone_is_right() -> None:
    """Called out of turn, and again with the same tensor after all parts were taken."""
    attention = random_model(TINY, 4, dtype=torch.float32).model.layers[0].self_attn
    members = (attention.q_proj, attention.k_proj, attention.v_proj)
    x = torch.randn(1, 3, 128)
    want = [x @ member.packed.dequantized(torch.float32) for member in members]
    for index in (2, 0, 2, 1, 1):
        assert relative_error(members[index](x), want[index]) < 1e-5, index


def test_a_joined_member_asked_about_another_tensor_computes_it() -> None:
    attention = random_model(TINY, 4, dtype=torch.float32).model.layers[0].self_attn
    first, second = torch.randn(1, 3, 128), torch.randn(1, 3, 128)
    attention.q_proj(first)
    want = second @ attention.k_proj.packed.dequantized(torch.float32)
    assert relative_error(attention.k_proj(second), want) < 1e-5


def test_a_moved_model_computes_apart() -> None:
    model = random_model(TINY, 4, dtype=torch.float32)
    before = logits(model)
    query = model.model.layers[0].self_attn.q_proj
    query.joint[0].weight = packed_on_meta(query.packed)
    assert relative_error(logits(model), before) < 1e-5


@BITS
def test_a_cast_model_computes_apart(bits: int) -> None:
    """A model that is loaded in bfloat16 is scored in float32 on a CPU: biases of its own dtype."""
    model = random_model(FAMILIES["qwen2-bias"], bits, dtype=torch.bfloat16)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.k_proj.bias.normal_()
        before = model(PROMPT).logits.float()
        assert relative_error(model.float()(PROMPT).logits, before) < 3e-2


def packed_on_meta(weight: Packed4) -> Packed4:
    return Packed4(weight.words.to("meta"), weight.zeros.to("meta"), weight.scales.to("meta"))


def test_same_seed_same_model() -> None:
    first, second = (random_model(TINY, 4, seed=3) for _ in range(2))
    assert torch.equal(logits(first), logits(second))
    assert not torch.equal(logits(first), logits(random_model(TINY, 4, seed=4)))


def test_layers_can_be_cut() -> None:
    config = {**FAMILIES["gpt_oss-misfits"], "num_hidden_layers": 2}
    assert len(random_model(config, 16, layers=1).model.layers) == 1


def test_an_unknown_model_is_one_line() -> None:
    with pytest.raises(BadInput, match="no_such_model"):
        random_model({**TINY, "model_type": "no_such_model"}, 4)


def test_thirty_two_bit_activations_are_refused_on_a_gpu() -> None:
    with pytest.raises(BadInput, match="16-bit"):
        require_16_bits(torch.float32)


def test_a_workspace_too_small_is_named() -> None:
    with pytest.raises(BadInput, match="128 x 64"):
        Workspace(128 * 64 - 1, "cpu").weight(128, 64, torch.bfloat16)
    assert Workspace(128 * 64, "cpu").weight(128, 64, torch.bfloat16).shape == (128, 64)


def test_one_linear_layer_against_its_definition() -> None:
    weight, bias = torch.randn(64, 256), torch.randn(64)
    layer = W4Linear.from_weight(weight, bias, Workspace(64 * 256, "cpu"))
    x = torch.randn(2, 3, 256)
    want = x @ layer.packed.dequantized(torch.float32) + bias
    assert torch.allclose(layer(x), want, atol=1e-4)
    flat = multiply(x.view(6, 256), layer.packed, bias, layer.workspace)
    assert torch.allclose(flat.view(2, 3, 64), want, atol=1e-4)
