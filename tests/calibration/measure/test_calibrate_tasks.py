"""What a calibration measures on: a haystack of the user's, the harness's tasks, unseen models."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from kvpareto.calibration.design.options import CalibrationOptions
from kvpareto.calibration.measure import bench as bench_module
from kvpareto.calibration.measure.bench import Bench
from kvpareto.calibration.measure.layer_sensitivity import Sensitivity
from kvpareto.calibration.measure.prompts import PromptTexts
from kvpareto.calibration.measure.read_attention import can_read
from kvpareto.calibration.measure.runtime_trial import RuntimeTrial
from kvpareto.calibration.records.record_file import (
    DIVERGENCE,
    LAYERS,
    ROWS,
    WINDOW,
    Record,
    read_records,
)
from kvpareto.cli import run
from kvpareto.planner.accuracy import calibrations
from kvpareto.planner.accuracy import predict as accuracy
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from tests.calibration.tasks.harness import local_tasks as local_tasks
from tests.calibration.tasks.harness import needs_harness, third_party
from tests.support.data_files import STORIES

ITEMS = 4
COMMAND = ["calibrate", "--context", "256", "--items", str(ITEMS), "--runs", "2", "--device", "cpu"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def rows(home: Path) -> list[Record]:
    (path,) = home.glob(f"calibrations/*/{ROWS}")
    return read_records(path)


@needs_harness
@third_party
def test_the_harness_is_measured_beside_our_tasks(home: Path, local_tasks: Path) -> None:
    names = "arithmetic,lm_eval:story_choice.yaml,story_next.yaml"
    assert run([*COMMAND, "-m", str(STORIES), "--tasks", names]) == 0
    found = {(r.config, r.task): r for r in rows(home) if r.task not in (LAYERS, DIVERGENCE)}
    plain = found["w16a16-k16v16", "lm_eval:story_choice"]
    packed = found["w16a16-k8v8", "lm_eval:story_choice"]
    assert plain.items == (1.0, 1.0, 1.0, 1.0)  # the first four of five
    assert packed.reference == plain.score
    assert packed.retention == 1.0
    assert packed.kind == "likelihood"
    assert 4 < packed.details[WINDOW] < 60  # its prompts are as long as they are
    assert len(found["w16a16-k8v8", "lm_eval:story_next"].items) == 3  # there are no more
    assert found["w16a16-k8v8", "lm_eval:story_next"].kind == "reasoning"
    assert ("w16a16-k16v16", "arithmetic") in found


def test_without_the_harness_its_install_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("lm_eval", "lm_eval.tasks"):
        monkeypatch.setitem(sys.modules, part, None)
    assert run([*COMMAND, "-m", str(STORIES), "--tasks", "needle,lm_eval:gsm8k"]) == 3
    assert "[harness]" in capsys.readouterr().err
    assert not home.exists()


@needs_harness
@third_party
@pytest.mark.parametrize("name", ["gsm9k.yaml", "story_lost.yaml"])
def test_an_unknown_task_of_the_harness_is_one_line(
    name: str, home: Path, local_tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*COMMAND, "-m", str(STORIES), "--tasks", f"lm_eval:{name}"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"error: the harness has no task called '{name}'"
    assert hint.startswith("hint: ")
    assert not home.exists()


def test_facts_are_hidden_in_the_users_own_text(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "own.txt"
    text.write_text("Zebras ate the marmalade. A kettle sang. The moon was square.")
    asked = [*COMMAND, "-m", str(STORIES), "--tasks", "arithmetic", "--haystack", str(text)]
    assert run([*asked, "--runs", "1"]) == 1  # no quantized configuration, so no fit
    before = rows(home)
    text.write_text("Zebras ate the marmalade.")
    assert run([*asked, "--resume"]) == 2
    assert "another --haystack" in capsys.readouterr().err
    text.unlink()
    assert run([*asked, "--resume"]) == 2
    assert "cannot read" in capsys.readouterr().err
    assert rows(home) == before


def test_the_bench_asks_its_items_in_the_haystack() -> None:
    from kvpareto.calibration.tasks.haystack import sentences_of

    own = sentences_of("Zebras ate the marmalade. The moon was square.")
    material = PromptTexts((256,), ("arithmetic",), 2, 0, haystack=own)
    bench = Bench(str(STORIES), load_model(str(STORIES)), material, device="cpu")
    try:
        assert "marmalade" in bench.prompts.items("arithmetic", 256)[0].text
        assert bench.fitting_tasks(256) == ["arithmetic"]
        assert bench.fitting_tasks(64) == []
    finally:
        bench.close()


@pytest.mark.parametrize(("room", "tried"), [(2, [8, 4, 2]), (0, [8, 4, 2, 1])])
def test_memory_that_runs_out_halves_the_prompts_at_once(
    room: int, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until there is room for them; what is no lack of memory, or one prompt's, is not hidden."""
    asked: list[int] = []

    def opened(base: Any, config: Configuration, tokens: int, batch: int) -> None:
        asked.append(batch)
        if len(asked) > len(tried):
            pytest.fail(f"asked again: {asked}")
        raise MemoryError if batch > room else ValueError("another fault")

    monkeypatch.setattr(bench_module, "_session", opened)
    material = PromptTexts((64,), ("arithmetic",), 8, 0)
    bench = Bench(str(STORIES), load_model(str(STORIES)), material, device="cpu")
    try:
        with pytest.raises(ValueError if room else MemoryError):
            bench.batched(Configuration(), 64)
    finally:
        bench.close()
    assert asked == tried


SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16, "sliding_window": 32, "layer_types": None},
}


@pytest.mark.parametrize("family", SHAPES)
def test_a_model_never_seen_is_calibrated(
    family: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / f"new-{family}"
    fields = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **SHAPES[family],
    }
    config = CONFIG_MAPPING[family](**{k: v for k, v in fields.items() if v is not None})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(STORIES).save_pretrained(folder)
    assert run([*COMMAND, "-m", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["configurations"] == 2
    spec = load_model(str(folder))
    found = accuracy.predict(spec, Configuration(k_bits=4, v_bits=4), 256)
    assert found.provenance == "calibrated"
    (layers,) = [r for r in rows(home) if r.task == LAYERS]
    assert all(cost > 0 for cost in layers.items[: 2 * 3])
    probed = Sensitivity.of([layers])
    assert probed is not None
    assert len(probed.keys) == len(probed.values) == 3
    assert (probed.attention is not None) == can_read(spec)
    assert calibrations.folder_of(spec).is_dir()


def test_recall_is_calibrated_where_no_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[CalibrationOptions] = []

    def calibrate(options: CalibrationOptions) -> dict[str, Any]:
        asked.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("kvpareto.calibration.calibrate.calibrate", calibrate)
    assert run(["calibrate"]) == 130
    assert asked[0].model is None


def test_a_text_that_ends_before_the_context_is_timed_at_the_context() -> None:
    """A row's seconds are of prompts of its context, whatever its text was read in windows of."""
    timed = []

    class Timed:
        device = torch.device("cpu")

        def steps(self, ids: torch.Tensor, *_: object, **__: object) -> Iterator[list[int]]:
            timed.append(tuple(ids.shape))
            yield [0]

        def memory(self) -> SimpleNamespace:
            return SimpleNamespace(allocated=None, peak=None)

    prompts = SimpleNamespace(windows=lambda context: torch.zeros(2, 100, dtype=torch.int64))
    bench: Any = SimpleNamespace(prompts=prompts)
    session: Any = Timed()
    trial = RuntimeTrial(bench, session, session, 256, 0)
    trial.speed()
    assert trial.window() == 100
    assert timed == [(1, 256)]
