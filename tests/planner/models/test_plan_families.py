"""Every family can be planned: memory for each engine, and a latency where a GPU is named."""

import json
from pathlib import Path

import pytest

from kvpareto.cli import run
from tests.planner.models.published_configs import (
    DEEPSEEK_OCR,
    GROK_2,
    HUNYUAN_LARGE,
    LONGCAT_LITE,
    OURO,
    PLAMO_2_1B,
    SALA,
    load,
)
from tests.support.tiny_recent import RECENT

REMOTE = {
    str(config["model_type"]): config
    for config in (DEEPSEEK_OCR, GROK_2, HUNYUAN_LARGE, LONGCAT_LITE, OURO, PLAMO_2_1B, SALA)
}
PUBLISHED = {
    name: load(name) for name in ("gemma-4-12b-unified", "ling-3.0-flash", "recurrentgemma-2b")
}
ALL = {**RECENT, **REMOTE, **PUBLISHED}


@pytest.mark.parametrize("name", ALL)
def test_estimates_hold_for_each_engine(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(ALL[name]), encoding="utf-8")
    for config, engine in (
        ("w16a16-k16v16", "transformers"),
        ("w16a16-k16v16", "transformers-eager"),
        ("w4a16-k8v8+pc512", "kvpareto"),
    ):
        command = ["--json", "estimate", "-m", str(path), "--config", config]
        more = ["--engine", engine, "--context", "2k", "--gpu", "H200"]
        assert run([*command, *more]) == 0
        answer = json.loads(capsys.readouterr().out)
        memory = answer["memory"]
        parts = [memory[part] for part in ("weights", "kv", "activation", "overhead")]
        assert min(parts[:1] + parts[2:]) > 0
        assert memory["total_low"] <= memory["total"] <= memory["total_high"]
        assert answer["ttft_s"] > 0
        assert answer["tpot_s"] > 0


@pytest.mark.parametrize("name", PUBLISHED)
def test_plans_are_made_for_published_models(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(ALL[name]), encoding="utf-8")
    command = ["--json", "plan", "-m", str(path), "--budget", "300GB", "--context", "8k"]
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out)["fits"] is True
