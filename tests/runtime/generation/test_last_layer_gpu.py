"""On a GPU: the last layer for one row, by kernels, in graphs, in no more memory."""

from typing import Any

import pytest
import torch

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.runtime.generation import last_layer
from kvpareto.runtime.load_weights import pack_weights
from tests.support.models.gpu_models import LATENT, WIDE, gpu_model, model_of, prompt
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
def test_memory_is_no_more_than_the_whole_layer_s(
    text: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planner counts the layer whole: other layers of its kind are, and the peak is theirs."""
    model = gpu_model("llama")
    pack_weights(model, Configuration.parse(text).weight_bits)
    ids, peaks = torch.randint(3, 97, (batch, 2000)).cuda(), []
    for least in (1, 10**6):
        monkeypatch.setattr(last_layer, "LEAST", least)
        with session(model, text, tokens=2010, batch=batch) as run:
            run.prefill(ids)
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            run.prefill(ids)
            torch.cuda.synchronize()
            peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[0] <= peaks[1]
