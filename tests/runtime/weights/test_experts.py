"""Packed experts in a chunk: each token meets the experts that it chose, on a GPU together."""

import os
import types

import pytest
import torch

from kvpareto.planner.memory.activation.blocks import moe
from kvpareto.planner.memory.activation.family_traits import block_traits_of
from kvpareto.planner.memory.activation.workspace import tokens_at_once
from kvpareto.runtime.weights.experts import (
    InputRoutedExperts,
    QuantizedExperts,
    pack_stack,
)
from kvpareto.runtime.weights.quantize_modules import apply
from kvpareto.runtime.weights.random import random_model
from kvpareto.runtime.weights.workspace import Workspace
from tests.support.tiny_configs import CONFIGS

EXPERTS, HIDDEN, WIDTH, TOP_K = 8, 128, 128, 2


class Plain(torch.nn.Module):
    """Stacked experts as transformers holds them, [out, in]."""

    has_gate = True

    def __init__(self) -> None:
        super().__init__()
        make = torch.Generator().manual_seed(0)
        first = torch.randn(EXPERTS, 2 * WIDTH, HIDDEN, generator=make) / HIDDEN**0.5
        down = torch.randn(EXPERTS, HIDDEN, WIDTH, generator=make) / WIDTH**0.5
        self.gate_up_proj = torch.nn.Parameter(first)
        self.down_proj = torch.nn.Parameter(down)

    def _apply_gate(self, rows: torch.Tensor) -> torch.Tensor:
        gate, up = rows.chunk(2, dim=-1)
        return torch.nn.functional.silu(gate) * up


def _packed() -> tuple[QuantizedExperts, torch.Tensor, torch.Tensor]:
    """The module, and the matrices it really holds: first [E, in, out] and down."""
    inner = Plain()
    stacks = {
        "first": pack_stack(inner.gate_up_proj.detach(), 8, False),
        "down": pack_stack(inner.down_proj.detach(), 8, False),
    }
    held = [
        torch.stack([stack.member(e).dequantized(torch.float32) for e in range(EXPERTS)])
        for stack in stacks.values()
    ]
    return QuantizedExperts(inner, stacks, Workspace(2 * WIDTH * HIDDEN, "cpu")), held[0], held[1]


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("tokens", [1, 3, 37])
def test_an_expert_that_all_tokens_choose_gives_the_same(tokens: int, together: bool) -> None:
    if together and not INTERPRETED:
        pytest.skip("needs TRITON_INTERPRET=1")
    module, first, down = _packed()
    make = torch.Generator().manual_seed(1)
    x = torch.randn(tokens, HIDDEN, generator=make)
    others = torch.randint(1, EXPERTS, (tokens, 1), generator=make)
    chosen = torch.cat([torch.zeros_like(others), others], dim=1)  # everybody's first is 0
    weights = torch.rand(tokens, TOP_K, generator=make)
    if together:
        found = torch.empty_like(x).half()
        module._together(x.half(), chosen, weights, found)
    else:
        found = module(x, chosen, weights)
    expected = torch.zeros_like(x)
    for token in range(tokens):
        for place in range(TOP_K):
            e = int(chosen[token, place])
            gate, up = (x[token] @ first[e]).chunk(2)
            row = (torch.nn.functional.silu(gate) * up) @ down[e]
            expected[token] += weights[token, place] * row
    near = {"rtol": 1e-4, "atol": 1e-5} if not together else {"rtol": 5e-3, "atol": 5e-3}
    torch.testing.assert_close(found.float(), expected, **near)


def test_a_long_chunk_takes_so_many_tokens_at_a_time() -> None:
    """128 rows for each expert, by an even share."""
    assert tokens_at_once(16384, 4, 32) == 1024  # gpt-oss
    assert tokens_at_once(16384, 8, 128) == 2048  # Qwen3-30B-A3B
    assert tokens_at_once(1024, 6, 64) == 1024  # DeepSeek-V2-Lite
    assert tokens_at_once(5000, 7, 64) == 1170
    assert tokens_at_once(7, 8, 8) == 7


def test_tokens_together_take_what_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted tensor by tensor on the meta device, where launches do nothing."""
    pytest.importorskip("triton")
    from kvpareto.runtime.weights.grouped import kernels
    from tests.support.oracle.tracker import LiveBytes

    launch = types.SimpleNamespace(__getitem__=lambda self, grid: lambda *_, **__: None)
    silent = type("Silent", (), vars(launch))()
    for name in ("grouped", "combine"):
        monkeypatch.setattr(kernels, name, silent)
    module, _, _ = _packed()
    module.to("meta")
    tokens = 512
    hidden = torch.empty(tokens, HIDDEN, dtype=torch.bfloat16, device="meta")
    chosen = torch.empty(tokens, TOP_K, dtype=torch.int64, device="meta")
    weights = torch.empty(tokens, TOP_K, device="meta")
    out = torch.empty_like(hidden)
    live = LiveBytes()
    for given in (hidden, chosen, weights, out):
        live.adopt(given)
    before = live.live
    with live:
        module._together(hidden, chosen, weights, out)
    step = types.SimpleNamespace(
        rows=tokens, hidden=HIDDEN, element=2, bytes=lambda width: tokens * width * 2,
        traits=block_traits_of("qwen3_moe"),
    )  # fmt: skip
    ffn = types.SimpleNamespace(
        top_k=TOP_K, experts=EXPERTS, width=WIDTH, gated=True, activation="silu"
    )
    planned = moe.LiveTensors()
    moe._packed_experts(planned, ffn, step)  # type: ignore[arg-type]
    # `out` is among what is given here; where experts end takes 512 bytes
    assert live.peak - before == planned.peak - tokens * HIDDEN * 2 + 512


def test_gpt_oss_clamps_copies_of_gate_and_up() -> None:
    # gate, up, sigmoid's factor, the sigmoid; then gate, up, glu, up + 1 and the product
    stage = types.SimpleNamespace(traits=block_traits_of("gpt_oss"))
    ffn = types.SimpleNamespace(activation="silu", gated=True)
    live = moe.LiveTensors()
    product = moe._activated(live, ffn, 1024, stage)  # type: ignore[arg-type]
    assert (product, live.nbytes, live.peak) == (1024, 1024, 5 * 1024)
    stage = types.SimpleNamespace(traits=block_traits_of("qwen3_moe"))
    live = moe.LiveTensors()
    moe._activated(live, ffn, 1024, stage)  # type: ignore[arg-type]
    assert live.peak == 2 * 1024


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("few", [False, True])
def test_llama4_routes_by_what_its_experts_are_given(
    bits: int, few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stacks lie [in, out] without saying so; two experts a token, one of them never chosen."""
    config = {k: v for k, v in CONFIGS["llama4_text"].items() if v != "absent"}
    config |= {"hidden_size": 128, "intermediate_size": 256, "intermediate_size_mlp": 128,
               "num_experts_per_tok": 2, "dtype": "float32"}  # fmt: skip
    packed = random_model(config, 16, dtype=torch.float32)
    plain = random_model(config, 16, dtype=torch.float32)
    ids = torch.arange(3, 20)[None]
    apply(packed, bits)
    place, experts = next(
        (n, m) for n, m in packed.named_modules() if isinstance(m, InputRoutedExperts)
    )
    other = plain.get_submodule(place)
    for part, name in experts.names.items():
        stack = experts.stack(part)
        held = [stack.member(e).dequantized(torch.float32) for e in range(4)]
        getattr(other, name).data.copy_(torch.stack(held))
    if few:
        monkeypatch.setattr(InputRoutedExperts, "_one_by_one", InputRoutedExperts._decode)
        monkeypatch.setattr(InputRoutedExperts, "_own_expert", _own)
    given = torch.randn(4, 9, 128, generator=torch.Generator().manual_seed(3))
    given[3] = 0
    given[0, ::2] = given[1, 1::2] = 0
    given[2, :] *= 1e-3
    given[1, 2::2] = 0
    given[0, 1] = given[2, 1] = 0
    rows = given.view(-1, 128)
    torch.testing.assert_close(experts(rows), other(rows), rtol=1e-3, atol=1e-4)
    assert torch.isfinite(packed(ids).logits).all()


def _own(self: QuantizedExperts, part: str, x: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    stack = self.stack(part)
    return torch.stack(
        [x[i] @ stack.member(int(e)).dequantized(x.dtype) for i, e in enumerate(experts)]
    )
