"""Fused kernels against the modules they stand in for, in Triton's interpreter or on a GPU."""

from typing import Any
from unittest import mock

import pytest
import torch
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

pytest.importorskip("triton")

from kvpareto.runtime import fused
from kvpareto.runtime.fused_kernels import add_rms_norm, rms_norm, rope, swiglu
from tests.support.runtime_builders import relative_error, session, small_model

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EXACT = 1e-6  # float32 all through


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@pytest.mark.parametrize("width", [8, 96, 130])
def test_norms_equal_the_modules(width: int) -> None:
    x, residual = noise(2, 3, width), noise(2, 3, width, seed=1)
    plain, offset = LlamaRMSNorm(width, eps=1e-5).to(DEVICE), Gemma2RMSNorm(width).to(DEVICE)
    for module, shifted, eps in ((plain, False, 1e-5), (offset, True, 1e-6)):
        torch.nn.init.normal_(module.weight)
        weight = module.weight.detach()
        expected = module(x).detach()
        assert relative_error(rms_norm(x, weight, eps, offset=shifted), expected) < EXACT
        normed, total = add_rms_norm(x, residual, weight, eps, offset=shifted)
        assert torch.equal(total, x + residual)
        assert relative_error(normed, module(x + residual).detach()) < EXACT


@pytest.mark.parametrize("batch", [1, 3])
def test_queries_and_keys_are_normed_where_they_lie(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slices of q, k and v as one, by token or by head, are not copied first; other views are."""
    width, heads = 16, 4
    joint = noise(batch, 5, heads + 2, width)
    weight = noise(width, seed=1)
    norm = fused._Norm(1e-5, offset=False)
    module = LlamaRMSNorm(width, eps=1e-5).to(DEVICE)
    module.weight.data.copy_(weight)
    queries = joint[:, :, :heads]
    odd = joint.expand(2, *joint.shape)[:, :, ::2, 1:3]
    copies: list[torch.Tensor] = []
    copy = torch.Tensor.contiguous
    monkeypatch.setattr(torch.Tensor, "contiguous", lambda x: copies.append(x) or copy(x))
    cases = ((queries, 0), (queries.transpose(1, 2)[:1], 0), (joint[:, :1, 1:3], 0), (odd, 1))
    for view, copied in cases:
        copies.clear()
        with torch.no_grad():
            found = norm(module, view)
        assert len(copies) == copied
        assert found.shape == view.shape
        assert found.is_contiguous()
        assert relative_error(found, module(view).detach()) < EXACT


def test_a_norm_made_with_a_sum_is_that_sums_alone() -> None:
    x, residual, other = noise(2, 3, 96), noise(2, 3, 96, seed=1), noise(2, 3, 96, seed=2)
    module = LlamaRMSNorm(96, eps=1e-5).to(DEVICE)
    torch.nn.init.normal_(module.weight)
    norm = fused._Norm(1e-5, offset=False)
    with torch.no_grad():
        total = norm.prepare(module, x, residual)
        assert torch.equal(total, x + residual)
        made = norm._ready
        assert made is not None
        assert norm(module, total) is made[1]
        assert relative_error(made[1], module(total)) < EXACT
        held = residual.clone()
        assert norm.prepare(module, x, held, in_place=True).data_ptr() == held.data_ptr()
        assert torch.equal(held, x + residual)
        assert relative_error(norm(module, held), module(held)) < EXACT
        for asked in (total, other):  # the first was taken; another is not what was made
            assert relative_error(norm(module, asked), module(asked)) < EXACT
            norm.prepare(module, x, residual)


@pytest.mark.parametrize("tanh", [False, True], ids=["silu", "gelu-tanh"])
def test_swiglu_reads_strided_halves(tanh: bool) -> None:
    gate, up = noise(2, 3, 2 * 1100).chunk(2, dim=-1)
    functional = torch.nn.functional
    active = functional.gelu(gate, approximate="tanh") if tanh else functional.silu(gate)
    assert relative_error(swiglu(gate, up, tanh=tanh), active * up) < EXACT


@pytest.mark.parametrize("dim", [8, 80, 128])
@pytest.mark.parametrize("shared", [True, False], ids=["one-angle", "angle-a-sequence"])
def test_rope_equals_transformers(dim: int, shared: bool) -> None:
    x = noise(2, 5, 3 * dim + 16)[..., : 3 * dim].view(2, 5, 3, dim)  # rows wider than read
    half = noise(1 if shared else 2, 5, dim // 2, seed=2)
    cos, sin = torch.cat((half, half), -1).cos(), torch.cat((half, half), -1).sin()
    key = noise(2, 5, 1, dim, seed=4)
    expected = apply_rotary_pos_emb(x.transpose(1, 2), key.transpose(1, 2), cos, sin)
    for found, wanted in zip(rope(x, key, cos, sin), expected, strict=True):
        assert relative_error(found, wanted) < EXACT


def rotary(kind: str, **more: Any) -> torch.nn.Module:
    rope = {"rope_type": kind, "rope_theta": 10_000.0, **more}
    config = LlamaConfig(hidden_size=192, num_attention_heads=2, rope_parameters=rope)
    return LlamaRotaryEmbedding(config).to(DEVICE)


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}  # fmt: skip


@pytest.mark.parametrize(("kind", "more"), [("default", {}), ("llama3", LLAMA3)])
def test_angles_of_few_tokens_are_the_modules(kind: str, more: dict[str, float]) -> None:
    module, own = rotary(kind, **more), rotary(kind, **more)
    few = torch.tensor([[0, 5, 131_000], [7, 1_000_000, 3]], device=DEVICE)
    many = torch.arange(fused.FEW_ROWS + 1, device=DEVICE)[None]
    like = noise(1)
    changed = fused.fuse(torch.nn.ModuleList([module]))
    assert changed == [module]
    for positions in (few, many):
        for found, wanted in zip(module(like, positions), own(like, positions), strict=True):
            assert found.shape == (*positions.shape, 96)
            assert relative_error(found, wanted) < 1e-5
    module.inv_freq *= 2  # they are read where they are, at each pass
    own.inv_freq *= 2
    assert relative_error(module(like, few)[0], own(like, few)[0]) < 1e-5
    fused.restore(changed)
    assert "forward" not in module.__dict__


def test_angles_that_each_pass_chooses_or_that_differ_are_left_alone() -> None:
    class OddLlamaRotaryEmbedding(LlamaRotaryEmbedding):
        def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> Any:
            cos, sin = super().forward(x, position_ids)
            return cos + 0.5, sin

    OddLlamaRotaryEmbedding.__name__ = "LlamaRotaryEmbedding"
    odd = OddLlamaRotaryEmbedding(rotary("default").config).to(DEVICE)
    dynamic = rotary("dynamic", factor=2.0)
    assert fused.fuse(torch.nn.ModuleList([odd, dynamic])) == []


def test_rows_of_a_table_are_the_modules() -> None:
    plain, scaled = torch.nn.Embedding(11, 6), Gemma3TextScaledWordEmbedding(11, 6, 0, 2.0)
    bounded = torch.nn.Embedding(11, 6, max_norm=1.0)
    holder = torch.nn.ModuleList([plain, scaled, bounded]).to(DEVICE)
    ids = torch.tensor([[0, 10, 3], [3, 3, 7]], device=DEVICE)
    wanted, one = plain(ids), plain(ids[:1, :1])
    changed = fused.fuse(holder)
    assert changed == [plain]  # the others do more than look up
    assert torch.equal(plain(ids), wanted)
    with mock.patch.object(torch.nn.functional, "embedding", return_value=one) as looked_up:
        assert plain(ids[:1, :1]) is one
        plain(ids)
    looked_up.assert_called_once()


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "mixtral"])
def test_plain_families_are_fused_throughout(family: str) -> None:
    model: Any = small_model(family)
    model.to(DEVICE)
    ids = torch.randint(3, 97, (2, 9), generator=torch.Generator().manual_seed(1))
    rows = [ids[0].tolist(), ids[1, :4].tolist()]
    with session(model, "w16a16-k8v8+pc5", tokens=16, batch=2, fused=False, kernels=False) as run:
        expected = run.prefill(rows).clone()
    with session(model, "w16a16-k8v8+pc5", tokens=16, batch=2, fused=True, kernels=False) as run:
        layers = model.model.layers
        assert all("forward" in layer.__dict__ for layer in layers)
        assert all("forward" in layer.self_attn.__dict__ for layer in layers)
        assert all("forward" in layer.input_layernorm.__dict__ for layer in layers)
        assert relative_error(run.prefill(rows), expected) < 1e-3  # 8-bit codes may flip
    assert not any("forward" in module.__dict__ for module in model.modules())


@pytest.mark.parametrize(
    ("family", "norms", "mlps"),
    [("gemma2", True, True), ("phi3", True, True), ("gpt_oss", True, False)],
)
def test_other_families_get_what_fits(family: str, norms: bool, mlps: bool) -> None:
    model: Any = small_model(family)
    model.to(DEVICE)
    ids = torch.randint(3, 97, (1, 9), generator=torch.Generator().manual_seed(1))
    with session(model, "w16a16-k16v16", tokens=16, fused=False, kernels=False) as run:
        expected = run.prefill(ids).clone()
    with session(model, "w16a16-k16v16", tokens=16, fused=True, kernels=False) as run:
        layer = model.model.layers[0]
        assert ("forward" in layer.input_layernorm.__dict__) is norms
        assert ("forward" in layer.mlp.__dict__) is mlps
        assert relative_error(run.prefill(ids), expected) < 2e-4


def test_granite_gates_in_one_launch_where_rows_are_few() -> None:
    """Its matrix of gate and up has a name of its own; a long chunk stays transformers' own."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.granitemoehybrid.modeling_granitemoehybrid import GraniteMoeHybridMLP

    torch.manual_seed(1)
    config = CONFIG_MAPPING["granitemoehybrid"](
        hidden_size=48, shared_intermediate_size=80, mamba_n_heads=6
    )
    mlp = GraniteMoeHybridMLP(config).to(DEVICE)
    few, many = noise(1, 7, 48), noise(1, fused.FEW_ROWS + 1, 48)
    with torch.no_grad():
        expected = mlp(few), mlp(many)
        taken: list[int] = []
        own, mlp.activation.forward = mlp.activation.forward, lambda x: taken.append(1) or own(x)
        changed = fused.fuse(torch.nn.ModuleList([mlp]))
        assert changed == [mlp]
        taken.clear()
        assert relative_error(mlp(few), expected[0]) < EXACT
        assert not taken
        assert torch.equal(mlp(many), expected[1])
        assert taken
    fused.restore(changed)
    assert "forward" not in mlp.__dict__


def test_an_mlp_that_is_told_its_layer_is_left_alone() -> None:
    """Zamba2's shared block adds an adapter of the layer that asks, and knows none without."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.zamba2.modeling_zamba2 import Zamba2MLP

    config = CONFIG_MAPPING["zamba2"](hidden_size=32, intermediate_size=48, num_mem_blocks=1)
    mlp = Zamba2MLP(config, num_fwd_mem_blocks=1, block_id=0)
    assert fused.fuse(torch.nn.ModuleList([mlp])) == []


def test_a_module_whose_formula_differs_is_left_alone() -> None:
    class OddRMSNorm(LlamaRMSNorm):
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden_states) + 0.5

    holder = torch.nn.ModuleList([OddRMSNorm(16), LlamaRMSNorm(16)]).to(DEVICE)
    changed = fused.fuse(holder)
    assert changed == [holder[1]]
    fused.restore(changed)
    assert "forward" not in holder[1].__dict__
