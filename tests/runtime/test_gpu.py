"""On a GPU: kernels against the reference in whole models, and graphs against eager passes."""

import copy
from typing import Any

import pytest
import torch

from kvpareto.calibration.execution.memory_cap import DeviceMemory
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.memory.overhead import workspace
from tests.support.models.gpu_models import gpu_model, prompt
from tests.support.runtime_builders import relative_error, session

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

FORMATS = (
    "w16a16-k16v16",
    "w16a16-k8v8-g64",
    "w16a16-k4v4-g64",
    "w16a16-k4v4-g32+smooth+rot",
    "w16a16-k2v2-g32+sink4+res32",
    "w16a16-k4v4-kc+res64",
    "w16a16-k4v4-pb16-g32",
    "w16a16-k8v8-pt",
    "w16a16-k8v8-pt+sink4+res32",
)


def logits_of(model: Any, text: str, **options: Any) -> torch.Tensor:
    """Logits of a prompt's last token and of 40 more, [41, V], float32."""
    ids = prompt(437)
    with session(model, text + "+pc64", tokens=500, **options) as run:
        found = [run.prefill(ids).clone()]
        found += [run.forward(ids[:, i : i + 1]).clone() for i in range(40)]
    return torch.cat(found).float()


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_kernels_and_graphs_are_as_true_as_the_reference(family: str, text: str) -> None:
    """In bfloat16 a last bit decides some codes, so two right ways differ by what few-bit codes
    are worth. The measure is how far each is from the float32 model on the reference."""
    model = gpu_model(family)
    plain = {"graphs": False, "fused": False, "kernels": False}
    truth = logits_of(copy.deepcopy(model).float(), text, **plain)
    reference = relative_error(logits_of(model, text, **plain), truth)
    assert relative_error(logits_of(model, text), truth) < 1.2 * reference


@pytest.mark.parametrize("form", ["k4v4-g32", "k8v8-pt+res32"])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt_oss", "qwen3"])
def test_a_captured_step_writes_what_an_eager_one_writes(family: str, form: str) -> None:
    model, ids = gpu_model(family), prompt(150)
    text = f"w16a16-{form}+pc64"
    with session(model, text, tokens=250, graphs=False) as run:
        eager = run.generate(ids, 60, stops=frozenset()).tokens
    with session(model, text, tokens=250) as run:
        captured = run.generate(ids, 60, stops=frozenset()).tokens
        assert run.generate(ids, 60, stops=frozenset()).tokens == captured  # graphs are reused
        if family != "gpt_oss":  # its experts pick rows on the host
            assert run.why_eager is None
    assert captured == eager


@pytest.mark.parametrize("text", ["w16a16-k4v4-g32", "w16a16-k8v4-kc+res64+smooth+rot"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])
def test_chunks_captured_in_pieces_write_what_eager_ones_write(family: str, text: str) -> None:
    model, ids = gpu_model(family), prompt(700)
    with session(model, f"{text}+pc64", tokens=800, graphs=False) as run:
        eager = [run.prefill(ids).clone(), run.forward(ids[:, :1]).clone()]
    with session(model, f"{text}+pc64", tokens=800) as run:
        for _ in range(2):  # the second prompt uses the first one's graphs
            pieces = [run.prefill(ids).clone(), run.forward(ids[:, :1]).clone()]
            assert {1, 64} == set(run.forward._graphs)
            assert all(map(torch.equal, pieces, eager))


def test_a_padded_batch_equals_each_sequence_alone() -> None:
    model = gpu_model("llama")
    rows = [prompt(n)[0].tolist() for n in (150, 31, 1)]
    text = "w16a16-k8v8-g32+pc64"
    with session(model, text, tokens=170, batch=3) as run:
        together = run.prefill(rows).clone()
    for index, row in enumerate(rows):
        with session(model, text, tokens=170) as run:
            assert relative_error(together[index : index + 1], run.prefill([row])) < 3e-2


@pytest.mark.parametrize("text", ["w16a16-k16v16", "w16a16-k4v4-g32+rot+pc64"])
def test_all_passes_share_one_workspace_of_the_library(text: str) -> None:
    """Captured, eager, and rotations between pieces: cuBLAS keeps one for each stream."""
    model, ids = gpu_model("qwen2"), prompt(700)
    memory = DeviceMemory(torch.device("cuda"))
    memory.settle()
    with session(model, text, tokens=800) as run:
        run.generate(ids, 5, stops=frozenset())  # 700 tokens are no whole number of chunks
        name = torch.cuda.get_device_name()
        spec = run.spec
        torch.cuda.synchronize()
        assert memory.workspace() == workspace(spec, find_gpu(name))


def test_memory_is_given_back() -> None:
    model = gpu_model("llama")
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(2):
        with session(model, "w16a16-k4v4-g64+pc64", tokens=500) as run:
            run.generate(prompt(300), 10)
            assert torch.cuda.memory_allocated() > before
    del run
    torch.cuda.synchronize()
    # what stays is a library's own workspace, taken at its first call
    assert torch.cuda.memory_allocated() - before < 50_000_000
