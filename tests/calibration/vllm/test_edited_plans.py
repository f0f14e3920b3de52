"""A saved plan for vLLM or llama.cpp, read by `verify`: its own flags, or one mistake."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from kvpareto.api import plan
from kvpareto.planner.engines.vllm.settings import ServeSettings
from kvpareto.planner.errors import BadInput
from kvpareto.planner.hardware.gpu_names import find_gpu


def _saved(folder: Path, **changes: Any) -> Path:
    """A plan of Qwen3-8B for vLLM as it is saved, with fields changed."""
    document = plan(
        "Qwen/Qwen3-8B", gpu="H100", engine="vllm", users=16, context="8k", offline=True
    )
    path = folder / "plan.json"
    path.write_text(json.dumps({**document, **changes}))
    return path


def test_a_plan_of_another_engine_is_named(tmp_path: Path) -> None:
    from kvpareto.calibration.vllm.asked import VllmOptions, asked_of

    path = _saved(tmp_path, engine="kvpareto")
    with pytest.raises(BadInput, match="a plan for kvpareto"):
        asked_of(VllmOptions(plan=path), find_gpu("H200"))


def test_a_plan_is_started_with_its_own_flags(tmp_path: Path) -> None:
    from kvpareto.calibration.vllm.asked import VllmOptions, asked_of

    path = _saved(tmp_path)
    document = json.loads(path.read_text())
    settings = ServeSettings(9000, "fp8", 4096, 32, 0.9)
    document["recommended"] |= {
        "config": "w16a16-kfp8vfp8",
        "serving": {"flags": settings.flags()},
    }
    path.write_text(json.dumps(document))
    asked = asked_of(VllmOptions(plan=path, offline=True), find_gpu("H200"))
    assert asked.settings == settings
    assert asked.workload.batch == 16
    assert asked.plan_gpu == document["gpu"]


@pytest.mark.parametrize(
    "changes",
    [
        {"model_path": 1}, {"recommended": "x"}, {"recommended": {}}, {"budget": math.nan},
        {"context": "8k"}, {"gpu": 3}, {"engine": []},
    ],
    ids=str,
)  # fmt: skip
def test_an_edited_plan_is_one_mistake(changes: dict[str, Any], tmp_path: Path) -> None:
    from kvpareto.calibration.llama_cpp.verify import LlamaCppOptions, verify
    from kvpareto.calibration.vllm.asked import VllmOptions, asked_of

    with pytest.raises(BadInput, match="is not a plan"):
        asked_of(VllmOptions(plan=_saved(tmp_path, **changes), offline=True), find_gpu("H200"))
    path = _saved(tmp_path, **{"engine": "llama.cpp", **changes})
    with pytest.raises(BadInput, match="is not a plan"):
        verify(LlamaCppOptions(plan=path, offline=True))
