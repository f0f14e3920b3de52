"""A saved plan, and a receipt beside it, made once."""

import json
from pathlib import Path
from typing import Any

import pytest

from kvpareto.cli import run

SMALL = "HuggingFaceTB/SmolLM2-1.7B-Instruct"


@pytest.fixture(scope="session")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    asked = ["plan", "-m", "Qwen/Qwen3-8B", "--budget", "12GB", "--context", "16k"]
    assert run([*asked, "--gpu", "4090", "--offline", "--save", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def placed_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan that leaves layers in host memory."""
    path = tmp_path_factory.mktemp("placed") / "plan.json"
    asked = ["plan", "-m", SMALL, "--gpu", "4060", "--budget", "1500MB", "--ram", "8GB"]
    rest = ["--context", "4k", "--engine", "llama.cpp", "--offline", "--save", str(path)]
    assert run([*asked, *rest]) == 0
    return path


@pytest.fixture(scope="session")
def plan_document(plan_file: Path) -> dict[str, Any]:
    return json.loads(plan_file.read_text(encoding="utf-8"))


@pytest.fixture
def receipt_file(tmp_path: Path) -> Path:
    def term(name: str, unit: str, predicted: float, measured: float | None) -> dict[str, Any]:
        ends = {"low": 0.9 * predicted, "high": 1.1 * predicted}
        judged = {"measured": measured, "side": "inside" if measured else None}
        return {"name": name, "unit": unit, "predicted": predicted, **ends, **judged, "note": None}

    path = tmp_path / "receipt.json"
    receipt = {
        "schema": 1,
        "config": "w4a16-k8v8+pc512",
        "context": 16384,
        "verdict": "Verified.",
        "terms": [
            term("weights", "bytes", 6e9, 6.1e9),
            term("total", "bytes", 9e9, None),
            term("ttft", "seconds", 2.0, 2.1),
        ],
    }
    path.write_text(json.dumps(receipt), encoding="utf-8")
    return path
