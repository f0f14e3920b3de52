"""Every document is what its JSON Schema says, and no more."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kvpareto.cli import run
from kvpareto.report.records.schemas import OPEN, RECORDS, json_schema, kind_of

ROOT = Path(__file__).parents[2]
QWEN = ["-m", "Qwen/Qwen3-8B", "--offline"]

LLAMA_CPP = ["plan", *QWEN, "--gpu", "4090", "--engine", "llama.cpp"]
VLLM = ["--engine", "vllm", "--gpu", "2xH100", "--users", "4", "--context", "2k,8k:0.9,0.1"]
SGLANG = ["plan", *QWEN, "--engine", "sglang", "--gpu", "H200", "--snippet", "docker"]
ANY = ["plan", *QWEN, "--engine", "any", "--gpu", "4090", "--gpus", "1", "--context", "8k"]
LINES = {
    "plan": [
        ["plan", *QWEN, "--budget", "12GB"],
        ["plan", *QWEN, "--gpu", "4090"],
        LLAMA_CPP,
        ["plan", *QWEN, *VLLM],
        SGLANG,
        ANY,
    ],
    "max_context": [["plan", *QWEN, "--budget", "8GB", "--max-context"]],
    "estimate": [
        ["estimate", *QWEN, "--config", "w4a16-k4v4-g64+pc256", "--gpu", "4090"],
        ["estimate", *QWEN, "--config", "w16a16-k16v16", "--engine", "transformers"],
        ["estimate", *QWEN, "--config", "wQ4_K_M-kq8_0vq8_0", "--engine", "llama.cpp"],
        ["estimate", *QWEN, "--config", "wfp8-kfp8vfp8", *VLLM],
    ],
    "profiles_list": [["profiles", "list"]],
    "profiles_show": [["profiles", "show", "Qwen/Qwen3-8B"], ["profiles", "show", "4090"]],
    "failure": [
        ["plan", *QWEN, "--budget", "1GB"],
        ["plan", *QWEN],
        ["plan", "--zork"],
        ["plan", "-m", "Qwen/Qwen3-14B", "--budget", "12GB", "--context", "16k"],
    ],
    "text": [["--version"], ["plan", "--help"]],
}


def printed(capsys: pytest.CaptureFixture[str], line: list[str]) -> dict[str, Any]:
    run([*line, "--json"])
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "line"), [(name, line) for name, lines in LINES.items() for line in lines]
)
def test_documents_are_as_described(
    name: str, line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    document = printed(capsys, line)
    assert kind_of(document) == name
    jsonschema.validate(document, json_schema(name))


def test_a_field_that_nobody_described_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    document = printed(capsys, LINES["plan"][0])
    document["recommended"]["memory"]["secret"] = 1
    with pytest.raises(jsonschema.ValidationError, match="secret"):
        jsonschema.validate(document, json_schema("plan"))
    del document["recommended"]["memory"]["secret"], document["budget"]
    with pytest.raises(jsonschema.ValidationError, match="budget"):
        jsonschema.validate(document, json_schema("plan"))


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_the_shipped_schema_is_the_types_own(name: str) -> None:
    shipped = json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text("utf-8"))
    assert shipped == json_schema(name)
    assert (shipped.get("additionalProperties") is False) == (name not in OPEN)
    jsonschema.Draft202012Validator.check_schema(shipped)
