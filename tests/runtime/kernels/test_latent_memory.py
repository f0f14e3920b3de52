"""What a chunk over packed latents allocates, counted on the meta device: the planner's count."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

from kvpareto.planner.memory.activation.forward_step import Attend, ForwardStep
from kvpareto.planner.memory.activation.live_tensors import LiveTensors
from kvpareto.planner.memory.activation.packed_latents import packed_latents
from kvpareto.planner.models.spec import LatentAttention
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
