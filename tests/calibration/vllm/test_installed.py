"""The vLLM that is installed, its CPU build too: recall's tasks scored through it."""

from importlib.util import find_spec

import pytest

from kvpareto.calibration.vllm.exam import ServedExam
from kvpareto.calibration.vllm.start import run_engine
from kvpareto.planner.engines.vllm.settings import ServeSettings
from kvpareto.planner.load_model import shipped_folder
from kvpareto.planner.workload import Workload


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_recall_answers_through_vllm() -> None:
    """It answers all items of 1,024 tokens under transformers, and ends each answer."""
    folder = str(shipped_folder("recall"))
    names = "needle-multikey,variables,arithmetic"
    exam = ServedExam(folder, Workload(1024, 64, 8), names, 4, 1, print, True)
    settings = ServeSettings(1200, max_num_batched_tokens=2048, max_num_seqs=8, enforce_eager=True)
    found = run_engine(
        folder, settings.flags(), vocab=3328, prompts=exam.prompts, answer=exam.answer
    )
    assert found.started, found.error
    assert all(len(a) < most for a, most in zip(found.answers, exam.answer, strict=True))
    scores = {name: score.value for name, score in exam.scores(found).items()}
    assert scores == dict.fromkeys(names.split(","), 1.0)
