"""The facts copied from transformers' configuration classes are those of the installed version."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_defaults_are_transformers_own() -> None:
    spec = importlib.util.spec_from_file_location(
        "family_defaults", ROOT / "benchmarks" / "family_defaults.py"
    )
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    lines = (
        (ROOT / "planner" / "models" / "families" / "config_defaults.jsonl")
        .read_text("utf-8")
        .splitlines()
    )
    kept = {line["model_type"]: line for line in map(json.loads, lines)}
    assert kept == json.loads(json.dumps(script.all_facts()))
