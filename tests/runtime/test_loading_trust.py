"""What a repository brings is data: its code is run on `--trust-remote-code` and never else; and
what the runtime cannot run is refused before its weights are read."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import FalconConfig, RecurrentGemmaConfig

from kvpareto.calibration.execution.loaded_model import open_model
from kvpareto.cli import run
from kvpareto.planner.errors import BadInput
from kvpareto.runtime import load
from kvpareto.runtime.load_weights import load_weights
from tests.support.models.damaged_models import copy, with_json

CODE = """
import os
with open(os.environ["CANARY"], "a") as trace:
    trace.write("ran")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Words(PreTrainedTokenizerFast): pass
class Settings(LlamaConfig): model_type = "brought"
class Network(LlamaForCausalLM): config_class = Settings
"""
MAP = {"AutoConfig": "brought.Settings", "AutoModelForCausalLM": "brought.Network"}
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "tokenizer": (
        "tokenizer_config.json",
        {"tokenizer_class": "Words", "auto_map": {"AutoTokenizer": [None, "brought.Words"]}},
    ),
    "model": ("config.json", {"model_type": "brought", "auto_map": MAP}),
}


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where code that ran leaves a trace; the answer to any question is yes."""
    found = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(found))
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    return found


def brings_code(folder: Path, kind: str) -> Path:
    copy(folder)
    (folder / "brought.py").write_text(CODE)
    name, values = CHANGES[kind]
    return with_json(folder, name, **values)


COMMANDS = {
    "calibrate": ["--runs", "1", "--context", "256", "--items", "2", "--tasks", "arithmetic"],
    "verify": ["--config", "w16a16-k8v8", "--budget", "2GB", "--context", "64", "--output", "4"],
    "random": ["--config", "w16a16-k8v8", "--budget", "2GB", "--context", "64", "--output", "4",
               "--random-weights"],
}  # fmt: skip


@pytest.mark.parametrize("command", ["calibrate", "verify"])
@pytest.mark.parametrize("kind", CHANGES)
def test_code_is_not_run_whatever_stdin_says(
    kind: str, command: str, canary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = brings_code(tmp_path / "m", kind)
    code = run([command, "-m", str(folder), "--device", "cpu", *COMMANDS[command]])
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert "of m brings code of its own, which is not run" in lines[-2]
    assert "--trust-remote-code" in lines[-1]
    assert not canary.exists()


def test_random_weights_run_no_code_either(
    canary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = brings_code(tmp_path / "m", "model")
    assert run(["verify", "-m", str(folder), "--device", "cpu", *COMMANDS["random"]]) == 2
    assert "transformers cannot build a 'brought' model" in capsys.readouterr().err
    assert not canary.exists()


@pytest.mark.parametrize("kind", CHANGES)
def test_the_flag_runs_it(
    kind: str, canary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    folder = brings_code(tmp_path / "m", kind)
    with load(folder, "w16a16-k8v8", context=16, output=4, trust_remote_code=True) as found:
        assert len(found.generate([1, 5], 4, stops=frozenset()).tokens[0]) == 4
    assert canary.exists()


def test_a_known_model_runs_transformers_own_code(canary: Path, tmp_path: Path) -> None:
    folder = copy(tmp_path / "m")
    (folder / "brought.py").write_text(CODE)
    with load(with_json(folder, "config.json", auto_map=MAP), "w16a16-k8v8", context=16) as found:
        assert type(found.model).__module__.startswith("transformers.models.llama")
    assert not canary.exists()


STATES = RecurrentGemmaConfig(
    num_hidden_layers=3, vocab_size=512, hidden_size=64, intermediate_size=96,
    num_attention_heads=4, lru_width=64, attention_window_size=32,
)  # fmt: skip
OWN = FalconConfig(num_hidden_layers=2, vocab_size=512, hidden_size=64, num_attention_heads=4)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (STATES, r"\(recurrent_gemma\): it carries states from token to token"),
        (OWN, r"\(falcon\): its attention is not transformers' exchangeable one"),
    ],
    ids=["recurrent_gemma", "falcon"],
)
def test_what_cannot_run_is_named_before_its_weights_are_read(
    config: Any, says: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))  # and no weights at all
    with pytest.raises(BadInput, match=says):
        load(tmp_path, "w16a16-k8v8", context=16, output=4, device="cpu")
    with pytest.raises(BadInput, match=says):
        load(tmp_path, "w16a16-k8v8", context=16, output=4, device="cpu", random_weights=True)


def test_transformers_runs_what_the_runtime_cannot(tmp_path: Path) -> None:
    from transformers import FalconForCausalLM

    FalconForCausalLM(OWN).save_pretrained(tmp_path)
    with open_model(str(tmp_path), 16, device="cpu", packed_cache=False) as found:
        assert type(found.model).__name__ == "FalconForCausalLM"


def test_weights_are_the_same_however_they_are_loaded() -> None:
    """calibrate, verify and Python load in one place: w8 rounds the same numbers."""
    pytest.importorskip("triton")
    source, where = str(Path(__file__).parents[1] / "data" / "stories260K-hf"), torch.device("cpu")
    direct = load_weights(source, 8, where).model.state_dict()
    with open_model(source, 8, device="cpu") as opened:
        again = opened.model.state_dict()
        assert direct.keys() == again.keys()
        assert all(torch.equal(direct[name], again[name]) for name in direct if "words" in name)
        assert any("words" in name for name in direct)
