"""The stand-in of vLLM as a fixture."""

from pathlib import Path

import pytest

from tests.calibration.vllm.stand_in import Engine


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    return Engine(monkeypatch, tmp_path / "stand-in")
