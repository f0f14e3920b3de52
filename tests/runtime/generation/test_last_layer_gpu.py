"""On a GPU: the last layer for one row, by kernels, in graphs, within the memory planned."""

from typing import Any

import pytest
import torch

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.workload import Workload
from kvpareto.runtime.generation import last_layer
from tests.runtime.kernels.test_gpu_layers import LATENT, WIDE, model_of
from tests.runtime.test_gpu import gpu_model, prompt
from tests.support.runtime_builders import relative_error, session

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


def with_and_without(
    model: Any, text: str, ids: Any, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a prompt's last token and of 20 more, with the last layer for one row and whole."""
    found = []
    for least in (1, 10**6):
        monkeypatch.setattr(last_layer, "LEAST", least)
        with session(model, text, tokens=800, **options) as run:
            logits = [run.prefill(ids).clone()]
            next_ids = torch.full((logits[0].shape[0], 1), 7, device="cuda")
            logits += [run.forward(next_ids).clone() for _ in range(20)]
        found.append(torch.cat(logits).float())
    return found[0], found[1]


@pytest.mark.parametrize("chunk", ["", "+pc64", "+pc300"])
@pytest.mark.parametrize("text", ["w16a16-k16v16", "w16a16-k4v4-g32", "w16a16-k8v4-kc+res64"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gemma2", "mixtral"])
def test_the_answer_is_the_whole_layer_s(
    family: str, text: str, chunk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, whole = with_and_without(gpu_model(family), text + chunk, prompt(700), monkeypatch)
    assert relative_error(found, whole) < 1e-2


@pytest.mark.parametrize("kind", ["deepseek_v2", "llama4_text"])
def test_latents_and_local_chunks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(kind, LATENT if kind == "deepseek_v2" else WIDE)
    found, whole = with_and_without(model, "w16a16-k8v8-g64+pc64", prompt(700), monkeypatch)
    assert relative_error(found, whole) < 2e-2


@pytest.mark.parametrize("graphs", [True, False])
def test_sequences_that_are_padding_in_whole_chunks(
    graphs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [prompt(n)[0].tolist() for n in (700, 401, 30)]
    options = {"batch": 3, "graphs": graphs}
    text = "w16a16-k8v8-g32+pc64"
    found, whole = with_and_without(gpu_model("llama"), text, rows, monkeypatch, **options)
    assert relative_error(found, whole) < 1e-2


@pytest.mark.parametrize("text", ["w16a16-k8v8-g64+pc512", "w4a16-k4v4-g64+pc512"])
@pytest.mark.parametrize("batch", [1, 4])
def test_memory_stays_the_planned(text: str, batch: int) -> None:
    """Other layers run whole, so the peak is theirs."""
    from kvpareto.runtime.loading import load

    model = gpu_model("llama")
    config, work = Configuration.parse(text), Workload(context=2000, output=8, batch=batch)
    with load(model, config, context=2000, output=8, batch=batch) as run:
        planned = KVPARETO.activation(run.spec, config, work, find_gpu("H200"))
        ids = torch.randint(3, 97, (batch, 2000)).cuda()
        run.prefill(ids)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = run.memory().weights + run.memory().kv
        run.prefill(ids)
        torch.cuda.synchronize()
        above = torch.cuda.max_memory_allocated() - held
        print(text, batch, "above weights and cache", above, "planned", planned)
    assert above <= 1.01 * planned.prefill_peak + 40e6  # and the library's workspaces
    assert estimate(run.spec, config, work, KVPARETO, None).total > 0
