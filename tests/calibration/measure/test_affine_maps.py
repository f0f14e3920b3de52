"""Affine maps learnt from a text: the least of their measure, and less lost than by a rotation."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from kvpareto.calibration.measure import affine_maps
from kvpareto.calibration.measure.affine_maps import best_map, learn_maps
from kvpareto.calibration.measure.divergence import divergence
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.models.read_config import read_model
from kvpareto.runtime import Session
from kvpareto.runtime.cache import kv_cache


def moments(seed: int, dim: int = 16) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 400, dim, generator=random).double() * torch.logspace(-1, 1, dim).double()
    return x.mT @ x / 400


def lost(matrix: torch.Tensor, written: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
    """tr(M A M^T) tr(M^-T B M^-1) of each head."""
    inverse = torch.linalg.inv(matrix)
    one = (matrix @ written @ matrix.mT).diagonal(dim1=-2, dim2=-1).sum(-1)
    return one * (inverse.mT @ read @ inverse).diagonal(dim1=-2, dim2=-1).sum(-1)


def test_no_other_matrix_loses_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least is the square of the sum of the singular values of A^1/2 B^1/2."""
    monkeypatch.setattr(affine_maps, "RIDGE", 0.0)
    written, read = moments(1), moments(2).flip(-1, -2)
    found = best_map(written, read)
    roots = [affine_maps._power(x, 0.5) for x in (written, read)]
    least = torch.linalg.svdvals(roots[0] @ roots[1]).sum(-1) ** 2
    assert torch.allclose(lost(found, written, read), least, rtol=1e-6)
    random = torch.Generator().manual_seed(3)
    for size in (0.01, 0.3):
        other = found + size * torch.randn(found.shape, generator=random).double()
        assert bool((lost(other, written, read) > least).all())


def test_variances_come_out_even() -> None:
    written, read = moments(1), moments(2)
    found = best_map(written, read)
    variances = (found @ affine_maps._ridged(written) @ found.mT).diagonal(dim1=-2, dim2=-1)
    assert torch.allclose(variances, variances.mean(-1, keepdim=True).expand_as(variances))


def test_a_head_that_holds_nothing_has_a_finite_map() -> None:
    nothing = torch.zeros(1, 16, 16).double()
    found = best_map(nothing, moments(2)[:1])
    assert bool(found.isfinite().all())
    assert bool(torch.linalg.inv(found).isfinite().all())


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    """Random, but that few channels of keys, and others of queries, are large."""
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=97, max_position_embeddings=512, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    model = Qwen2ForCausalLM._from_config(config, dtype=torch.float32).eval()
    for layer in model.model.layers:
        attention = layer.self_attn
        for projection, size in (("q", 0.06), ("k", 0.06), ("v", 0.4), ("o", 0.4)):
            torch.nn.init.normal_(getattr(attention, f"{projection}_proj").weight, std=size)
        attention.k_proj.weight.data[::4] *= 8.0
        attention.q_proj.weight.data[1::4] *= 4.0
        torch.nn.init.normal_(attention.k_proj.bias, std=0.3)
    return model


def test_few_bits_lose_far_less_under_learnt_maps(
    model: Qwen2ForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read_model(model.config.to_dict(), "test")
    text = torch.randint(3, 97, (400,), generator=torch.Generator().manual_seed(1))
    windows = torch.randint(3, 97, (2, 96), generator=torch.Generator().manual_seed(2))
    with Session(model, spec, Configuration(), tokens=96) as base:
        maps = learn_maps(base, text)
        assert sorted(maps) == sorted(f"{i}.{side}" for i in range(3) for side in ("key", "value"))
        monkeypatch.setattr(kv_cache, "find_maps", lambda spec: maps)
        kl = {}
        for turn in ("+smooth+rot", "+affine"):
            config = Configuration.parse(f"w16a16-k3v16{turn}")
            with Session(model, spec, config, tokens=96) as session:
                kl[turn] = divergence(base, session, windows).kl.value
    assert kl["+affine"] < 0.6 * kl["+smooth+rot"]


def test_a_text_that_is_too_short_is_refused(model: Qwen2ForCausalLM) -> None:
    spec = read_model(model.config.to_dict(), "test")
    with (
        Session(model, spec, Configuration(), tokens=96) as base,
        pytest.raises(BadInput, match="teaches no maps"),
    ):
        learn_maps(base, torch.arange(20))
