"""A spread of a calibration's candidates: which, and what a file of them says."""

import json
from pathlib import Path

import pytest

from kvpareto.calibration.evidence.replayed_models import SPREADS
from kvpareto.calibration.grid import spread
from kvpareto.calibration.grid.spread import lines_of, main, read_spread, spread_of
from kvpareto.calibration.records.record_file import Record
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model

SMOLLM2 = SPREADS["HuggingFaceTB/SmolLM2-135M-Instruct"]
FORMATS = ("w16a16-k16v16", "w16a16-k4v4", "w16a16-k2v8-kc64")


def test_each_pair_of_bits_comes_before_any_comes_again() -> None:
    chosen = spread_of(load_model("recall", offline=True), 1024, None)
    assert len(chosen) == len(set(chosen)) == spread.MOST
    assert all(config.chunk is None for config in chosen)
    first = [c for c in chosen[5:25] if c.weight_bits == 16]
    pairs = [(c.k_bits, c.v_bits) for c in first]
    assert len(set(pairs)) == len(pairs) == 15  # of 16; 16 bits of both are no candidate
    four = sum(config.weight_bits == 4 for config in chosen)
    assert 0.2 < four / len(chosen) < 0.3


def test_what_is_measured_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command on a CPU: text and a task of three configurations."""
    chosen = [Configuration.parse(text) for text in FORMATS[1:]]
    monkeypatch.setattr(spread, "spread_of", lambda *_: chosen)
    out = tmp_path / "rows.jsonl"
    asked = ["recall", "--name", "some", "--out", str(out), "--context", "256", "--items", "2"]
    main([*asked, "--tasks", "needle", "--device", "cpu"])
    found = read_spread(out, "key")
    assert found.model == "some"
    assert found.attention is not None
    assert len(found.attention.flat) == 8 * 150  # layers; formats of keys and of values
    rows = [(str(config), row.task) for config, row in found.rows]
    assert rows == [(text, task) for text in FORMATS[1:] for task in ("divergence", "needle")]
    assert {row.model for _, row in found.rows} == {"key"}


def test_what_ships_says_of_what_file_it_is() -> None:
    for hub_id, path in SPREADS.items():
        head = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
        assert head["model"] == head["source"]["model"] == head["probe"]["model"] == hub_id
        assert len(head["source"]["sha256"]) == 64


def test_runs_that_failed_leave_no_line() -> None:
    head = json.loads(SMOLLM2.read_text(encoding="utf-8").splitlines()[0])
    failed = {"task": "divergence", "outcome": "out_of_memory"}
    probe = Record.model_validate(head["probe"])
    assert len(list(lines_of("name", None, [probe, probe.model_copy(update=failed)]))) == 1
