"""What a chunk over packed latents allocates, counted on the meta device: the planner's count."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.activation import kvpareto_engine
from kvpareto.planner.memory.activation.forward_step import Attend, ForwardStep
from kvpareto.planner.memory.activation.live_tensors import LiveTensors
from kvpareto.planner.memory.activation.packed_latents import packed_latents
from kvpareto.planner.models.spec import LatentAttention
from kvpareto.planner.workload import Workload
from kvpareto.runtime import latent as plain
from kvpareto.runtime.cache.layer_state import Clock
from kvpareto.runtime.kernels import latent
from tests.support.oracle.tracker import counting

MIXERS = {
    "deepseek-v2-lite": LatentAttention(16, None, 512, 128, 64, 128),
    "glm-4.7-flash": LatentAttention(20, 768, 512, 192, 64, 256),
    "deepseek-v3": LatentAttention(128, 1536, 512, 128, 64, 128),
}


@pytest.mark.parametrize(("past", "new"), [(0, 512), (0, 9000), (4096, 1024), (20000, 4096)])
@pytest.mark.parametrize("name", MIXERS)
def test_a_chunk_takes_what_is_planned(
    name: str, past: int, new: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixer = MIXERS[name]
    heads, width = mixer.query_heads, mixer.nope_dim + mixer.value_dim
    like = {"dtype": torch.bfloat16, "device": "meta"}
    monkeypatch.setattr(
        latent,
        "write_out",
        lambda side, _, first, count, dtype: torch.empty(1, count, side.dim, **like),
    )
    clock = Clock(1, torch.device("meta"))
    clock.host = past + new
    key, value = (SimpleNamespace(dim=dim) for dim in (mixer.kv_rank, mixer.rope_dim))
    state = SimpleNamespace(clock=clock, key=key, value=value)
    project = torch.nn.Linear(mixer.kv_rank, heads * width, bias=False, **like)
    up = plain.Expansion(project, mixer.nope_dim, mixer.value_dim)
    query = torch.empty(1, heads, new, mixer.nope_dim + mixer.rope_dim, **like)
    with counting() as counter:
        for given in (query, project.weight):
            counter.adopt(given)
        before = counter.live
        counter.reset_peak()
        mixed = latent.expanded(query, state, up, 0.1)  # type: ignore[arg-type]
        ordered = mixed.transpose(1, 2).contiguous()
        del mixed
        held, peak = counter.live - before, counter.peak - before
        del ordered
    live = LiveTensors()
    step = ForwardStep(1, new, past, 0, 2, 2048, attend=Attend.PACKED, capacity=past + new)
    assert packed_latents(live, mixer, step) == held
    assert live.peak == pytest.approx(peak, rel=0.02)


def test_captured_chunks_hand_queries_over_in_places() -> None:
    """Of 16 heads, 192 channels a query and 128 a result, 1,024 tokens, in 16 bits."""
    spec = load_model("deepseek-ai/DeepSeek-V2-Lite-Chat", offline=True)
    config, few, many = Configuration(chunk=1024), Workload(8191, 1), Workload(8192, 1)
    assert not kvpareto_engine.in_pieces(spec, few, 1024)
    assert kvpareto_engine.in_pieces(spec, many, 1024)
    assert not kvpareto_engine.in_pieces(spec, Workload(65_536, 1), 2048)
    places = 2 * 1024 * 16 * (192 + 128)
    with_them, without = (kvpareto_engine.scratch(spec, config, x, 1024) for x in (many, few))
    assert with_them - without == places
