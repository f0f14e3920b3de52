"""On a GPU: layers that are no plain attention, in graphs and without, and by kernels and plainly.

Small models with heads that the kernels take. Routing of random experts turns with the last bit, so
models that are held to the plain way have none.
"""

from typing import Any

import pytest
import torch

from tests.support.models.gpu_models import LATENT, WIDE, model_of
from tests.support.runtime_builders import relative_error, session
from tests.support.tiny_configs import CONFIGS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


HYBRIDS: dict[str, dict[str, Any]] = {
    "granitemoehybrid-dense": {
        "layer_types": ["mamba", "attention", "mamba", "mamba"],
        "layers_block_type": "absent",
    },
    "bamba": {"mamba_d_head": 64},
    "falcon_h1": {"mamba_d_head": 64, "mamba_d_ssm": 512},
    "zamba2": {"num_key_value_heads": 4, "attention_head_dim": 128, "head_dim": "absent"},
    "lfm2": {},
}


def passes(model: Any, text: str, **options: Any) -> tuple[torch.Tensor, str | None]:
    """Logits of a prompt's last token and of 24 more, [25, V], and why no graph was captured."""
    ids = torch.randint(3, 90, (1, 300), generator=torch.Generator().manual_seed(1)).cuda()
    with session(model, text + "+pc64", tokens=340, **options) as run:
        logits = [run.prefill(ids).clone()]
        logits += [run.forward(ids[:, i : i + 1]).clone() for i in range(24)]
        return torch.cat(logits).float(), run.why_eager


@pytest.mark.parametrize("text", ["w16a16-k16v16", "w16a16-k8v8-g64", "w16a16-k4v4-g64"])
@pytest.mark.parametrize("kind", ["deepseek_v2", "deepseek_v3"])
def test_packed_latents_are_read_as_the_plain_way_reads_them(kind: str, text: str) -> None:
    model = model_of(kind, LATENT)
    found, why = passes(model, text)
    assert why is None
    expected, _ = passes(model, text, kernels=False)
    assert relative_error(found, expected) < 3e-2
    eager, _ = passes(model, text, graphs=False)
    assert torch.equal(found, eager)


def test_chunks_of_latents_are_captured_around_attention() -> None:
    model = model_of("deepseek_v2", LATENT)
    ids = torch.randint(3, 90, (1, 700), generator=torch.Generator().manual_seed(1)).cuda()
    found = []
    for graphs in (True, False):
        with session(model, "w16a16-k8v8-g64+pc64", tokens=740, graphs=graphs) as run:
            found.append(run.prefill(ids).clone())
            assert (64 in run.forward._graphs) is graphs
    assert torch.equal(*found)


@pytest.mark.parametrize(("wide", "value"), [(192, 128), (256, 256)])
@pytest.mark.parametrize(("queries", "keys"), [(256, 256), (256, 1024), (1024, 3072)])
def test_the_librarys_attention_of_unlike_heads(
    wide: int, value: int, queries: int, keys: int
) -> None:
    """DeepSeek's and GLM's heads, by cuDNN where it has a plan, beside torch's own."""
    from kvpareto.runtime.kernels import latent

    make = torch.Generator().manual_seed(2)
    q, k = (torch.randn(1, 4, n, wide, generator=make) for n in (queries, keys))
    both = torch.randn(1, keys, 4, wide + value, generator=make).cuda().bfloat16()
    q, k, v = q.cuda().bfloat16(), k.cuda().bfloat16(), both.transpose(1, 2)[..., wide:]
    out, lse = latent._attention(q, k, v, 0.1, queries == keys)
    expected, tops, *_ = latent._efficient_attention(
        q, k, v, None, True, 0.0, queries == keys, scale=0.1
    )
    assert relative_error(out.float(), expected.float()) < 1e-2
    assert relative_error(lse, tops[..., :queries]) < 1e-4
    print(wide, value, "without a plan:", latent._without_plan)


@pytest.mark.parametrize("kind", ["gemma3n_text", "llama4_text"])
def test_decoding_is_captured_and_gives_the_same(kind: str) -> None:
    """Gemma 3n's sparse activation copied a constant from the host in every pass."""
    layers = CONFIGS[kind]["num_hidden_layers"]
    sparse = {"activation_sparsity_pattern": [0.9] + [0.0] * (layers - 1)}
    model = model_of(kind, WIDE | (sparse if kind == "gemma3n_text" else {}))
    found, why = passes(model, "w16a16-k8v8-g64")
    assert why is None
    eager, _ = passes(model, "w16a16-k8v8-g64", graphs=False)
    assert torch.equal(found, eager)


@pytest.mark.parametrize("kind", HYBRIDS)
def test_hybrids_are_as_near_to_float32_fused_and_captured_as_plain(kind: str) -> None:
    """Whole models: Granite's gate of one matrix, and Zamba2's MLP that knows which layer asks."""
    text = "w16a16-k8v8-g64"
    model = model_of(kind, WIDE | HYBRIDS[kind])
    found, why = passes(model, text)
    assert why is None
    eager, _ = passes(model, text, graphs=False)
    assert torch.equal(found, eager)
    plain, _ = passes(model, text, kernels=False, fused=False)
    exact, _ = passes(model.float(), text, kernels=False, fused=False)
    assert relative_error(found, exact) < 1.5 * relative_error(plain, exact)


@pytest.mark.parametrize("bits", [4, 8])
def test_routed_experts_in_graphs_are_those_without(bits: int) -> None:
    """Chunks and batches of packed experts: nothing in them waits for the host."""
    from kvpareto.planner.formats.configuration import Configuration
    from kvpareto.planner.models.read_config import read_model
    from kvpareto.runtime.session import Session
    from kvpareto.runtime.weights.random import random_model

    config = {
        "model_type": "qwen3_moe", "hidden_size": 256, "num_hidden_layers": 2, "vocab_size": 512,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
        "moe_intermediate_size": 128, "intermediate_size": 256, "num_experts": 16,
        "num_experts_per_tok": 4, "max_position_embeddings": 2048, "dtype": "bfloat16",
    }  # fmt: skip
    model: Any = random_model(config, bits, "cuda")
    spec, text = read_model(config, "small"), f"w{bits}a16-k8v8-g64+pc64"
    ids = torch.randint(3, 500, (24, 600), generator=torch.Generator().manual_seed(1)).cuda()
    found = []
    for graphs in (True, False):
        how: dict[str, Any] = {"tokens": 640, "batch": 24, "graphs": graphs}
        with Session(model, spec, Configuration.parse(text), **how) as run:
            logits = [run.prefill(ids).clone()]
            logits += [run.forward(ids[:, i : i + 1]).clone() for i in range(3)]
            found.append(torch.cat(logits))
            if graphs:
                assert run.why_eager is None
                assert not run.forward._refused
    assert torch.isfinite(found[0]).all()
    assert torch.equal(*found)


@pytest.mark.parametrize("bits", [4, 8])
def test_gate_and_up_in_one_matrix_are_one_launch(bits: int) -> None:
    from kvpareto.runtime.weights.fused_projections import gated_halves
    from kvpareto.runtime.weights.linear import W4Linear, W8Linear
    from kvpareto.runtime.weights.workspace import Workspace

    make = torch.Generator().manual_seed(4)
    weight = (torch.randn(2 * 512, 256, generator=make) / 16).cuda()
    kind: Any = W4Linear if bits == 4 else W8Linear
    both = kind.from_weight(weight, None, Workspace(weight.numel(), "cuda"))
    x = torch.randn(1, 2, 256, generator=make).to("cuda", torch.bfloat16)
    gate, up = both(x).float().chunk(2, dim=-1)
    found = gated_halves(both, x, tanh=False)
    assert found is not None
    assert relative_error(found.float(), torch.nn.functional.silu(gate) * up) < 1e-2
