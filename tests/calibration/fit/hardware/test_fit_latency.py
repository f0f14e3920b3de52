"""Times and overheads fitted to runs: known coefficients are found again, and a plan uses them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kvpareto.calibration.fit.hardware.engine_runs import RunRow, of_records
from kvpareto.calibration.fit.hardware.gpu import contexts, document, refit, slacks
from kvpareto.calibration.fit.hardware.latency import COSTS, RATES, entry, fit
from kvpareto.calibration.records.record_file import Environment, Memory, Record, RecordFile
from kvpareto.planner.accuracy.calibrations import META, fingerprint, folder_of
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.measured import forget, path_of
from kvpareto.planner.latency.efficiency import Coefficients, shipped
from kvpareto.planner.latency.interval import profile_of
from kvpareto.planner.latency.job import ConfigurationAxes, job_of
from kvpareto.planner.latency.predict import predict
from kvpareto.planner.latency.roofline import seconds
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.memory.overhead import context_provenance
from kvpareto.planner.user_data import ENVIRONMENT
from kvpareto.planner.workload import Workload

GPU = find_gpu("RTX 4090")
MODELS = ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-3B-Instruct", "google/gemma-3-4b-it")
CONFIGS = (
    "w4a16-k4v4-g64+pc1024", "w16a16-k16v16+pc2048", "w8a16-k8v8", "w4a16-k2v2-g32+pc256",
    "w4a16-k4v4-kc-g64+pc512", "w16a16-k4v4-g64+res128+pc4096", "w4a16-k8v4-g64+rot+pc1024",
    "w16a16-k16v16", "w8a16-k8v8-pt+pc1024",
)  # fmt: skip
SPEC = load_model(MODELS[0], offline=True)
CONTEXTS = (2048, 8192, 32_768)
START = shipped(KVPARETO)


def made_up(
    coefficients: Coefficients, noise: float, models: tuple[str, ...] = MODELS
) -> list[RunRow]:
    """Runs as a GPU of these coefficients would give them."""
    rng, rows = np.random.default_rng(7), []
    for model in models:
        spec = load_model(model, offline=True)
        for text in CONFIGS:
            for tokens in CONTEXTS:
                config, workload = Configuration.parse(text), Workload(tokens, 16)
                size = kv_bytes(spec, config, workload, KVPARETO).total
                job = job_of(spec, workload, ConfigurationAxes.of(config, size))
                found = seconds(job, GPU, coefficients)
                scale = np.exp(rng.normal(0, noise, 2))
                times = float(found.ttft.item() * scale[0]), float(found.tpot.item() * scale[1])
                rows.append(
                    RunRow(model, spec, config, workload, "NVIDIA GeForce RTX 4090", *times)
                )
    return rows


@pytest.fixture(scope="module")
def slower() -> Coefficients:
    """A card that is in every respect some way from the shipped coefficients."""
    rng = np.random.default_rng(7)
    changed = {
        name: float(min(getattr(START, name) * np.exp(rng.normal(-0.2, 0.2)), 0.98))
        for name in RATES
    }
    changed |= {name: getattr(START, name) * float(np.exp(rng.normal(0.3, 0.3))) for name in COSTS}
    return replace(START, **changed)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    forget()
    return tmp_path


def test_known_coefficients_are_found_again(slower: Coefficients) -> None:
    fitted = fit(made_up(slower, 0.02), GPU, START)
    for name in ("stream", "matmul", "attention_packed", "streamed", "packed_4"):
        found, true = getattr(fitted.coefficients, name), getattr(slower, name)
        assert found == pytest.approx(true, rel=0.15), name
    # Models left out in turn are predicted as well as the noise lets them.
    assert fitted.by == "model"
    assert fitted.held_out.median(0) < 0.05
    assert fitted.held_out.median(1) < 0.04
    # The start alone is far off, so there was something to find.
    unfitted = made_up(START, 0.0)
    gap = [a.ttft_s / b.ttft_s for a, b in zip(made_up(slower, 0.0), unfitted, strict=True)]
    assert np.median(np.abs(np.array(gap) - 1)) > 0.15


def test_an_outlier_does_not_pull_the_fit(slower: Coefficients) -> None:
    rows = made_up(slower, 0.01, MODELS[:1])
    spoilt = [replace(row, tpot_s=5 * row.tpot_s) if i == 4 else row for i, row in enumerate(rows)]
    clean, robust = (fit(some, GPU, START).coefficients for some in (rows, spoilt))
    assert robust.stream == pytest.approx(clean.stream, rel=0.03)


def test_rates_stay_within_the_datasheet() -> None:
    rows = [
        replace(row, ttft_s=row.ttft_s / 20, tpot_s=row.tpot_s / 20)
        for row in made_up(START, 0.0, MODELS[:1])
        if row.ttft_s is not None and row.tpot_s is not None
    ]
    found = fit(rows, GPU, START).coefficients
    assert all(getattr(found, name) <= 1 for name in RATES)


def test_a_plan_on_a_measured_gpu_uses_its_coefficients(home: Path, slower: Coefficients) -> None:
    rows = made_up(slower, 0.02, MODELS[:1])
    spec, config, workload = rows[0].spec, rows[0].config, rows[0].workload
    before = predict(spec, config, workload, KVPARETO, GPU)
    written = document(rows, GPU)
    assert written is not None
    path = path_of(GPU.name)
    assert path.parent == home / "hardware"
    path.parent.mkdir()
    path.write_text(json.dumps(written))
    forget()
    after = predict(spec, config, workload, KVPARETO, GPU)
    assert before is not None
    assert after is not None
    assert after.kind == "calibrated on this machine: 27 runs of 1 model"
    assert after.ttft_s == pytest.approx(rows[0].ttft_s, rel=0.1)
    assert after.ttft_high / after.ttft_low < 0.7 * before.ttft_high / before.ttft_low
    # Other engines, and other GPUs, are what they were.
    assert profile_of(TRANSFORMERS, GPU, SPEC).kind.startswith("roofline")
    assert "calibrated" not in profile_of(KVPARETO, find_gpu("H200"), SPEC).kind


def test_overheads_measured_here_stand_in_for_estimates(home: Path) -> None:
    peak = 20 * 10**9
    rows = [
        replace(
            row,
            context_bytes=600_000_000 + i,
            allocated_peak=peak,
            reserved_peak=peak + i * 10**7,
        )
        for i, row in enumerate(made_up(START, 0.0, MODELS[:1]))
    ]
    found = slacks(rows)
    assert found is not None
    assert 0 < found[0] < found[2]
    written = document(rows, GPU)
    assert written is not None
    path_of(GPU.name).parent.mkdir()
    path_of(GPU.name).write_text(json.dumps(written))
    forget()
    there = KVPARETO.context(GPU)
    assert (there.expected, context_provenance(GPU)) == (600_000_013, "measured on this machine")
    # every format that is compiled adds to it: the high end is further out
    assert 0.95 * 600e6 < there.low < there.expected < 1.05 * 600e6 < there.high < 1.1 * 600e6
    estimated = estimate(rows[0].spec, rows[0].config, rows[0].workload, KVPARETO, GPU)
    # weights, what comes and goes, its slack as found, and the context
    moving = estimated.allocated_peak - estimated.weights
    expected = estimated.allocated_peak + int(moving * found[0]) + there.expected
    assert estimated.total == pytest.approx(expected, abs=2)


def test_few_rows_say_nothing_of_overheads() -> None:
    rows = [replace(row, context_bytes=5) for row in made_up(START, 0.0, MODELS[:1])[:2]]
    assert contexts(rows) is None
    assert slacks(rows) is None
    assert document(rows, GPU) is None


def test_a_file_of_an_older_release_lacks_what_is_new(home: Path) -> None:
    path = path_of(GPU.name)
    path.parent.mkdir()
    there = {end: {"card": 1.0, "host": 1.0, "plan": 0.0} for end in ("low", "high")}
    entry = {"coefficients": {"matmul": 0.31}, "there": there | {"kind": "fitted here"}}
    path.write_text(json.dumps({"schema": 1, "gpu": GPU.name, "engines": {"kvpareto": entry}}))
    forget()
    found = profile_of(KVPARETO, GPU, SPEC).coefficients
    assert found == replace(shipped(KVPARETO), matmul=0.31)


def test_a_damaged_file_is_said(home: Path) -> None:
    path = path_of(GPU.name)
    path.parent.mkdir()
    for text in ("{", '{"schema": 1, "gpu": "another"}'):
        path.write_text(text)
        forget()
        with pytest.raises(BadInput, match="damaged"):
            profile_of(KVPARETO, GPU, SPEC)
    path.write_text(json.dumps({"schema": 1, "gpu": GPU.name, "engines": {"kvpareto": {}}}))
    forget()
    with pytest.raises(BadInput, match="damaged"):
        profile_of(KVPARETO, GPU, SPEC)
    path.write_text(json.dumps({"schema": 1, "gpu": GPU.name, "memory": {"context": [1, 2]}}))
    forget()
    with pytest.raises(BadInput, match="damaged"):
        KVPARETO.context(GPU)


def test_an_entry_is_what_the_planner_reads(slower: Coefficients) -> None:
    rows = made_up(slower, 0.02, MODELS[:1])
    found = entry(fit(rows, GPU, START), rows, "somehow")
    assert json.loads(json.dumps(found)) == found
    assert set(found["coefficients"]) == set(Coefficients.__slots__)
    assert found["held_out"]["rows"] == len(rows)
    assert found["there"]["low"]["card"] < 1 < found["there"]["high"]["card"]


# --- from a calibration's rows ------------------------------------------------------------------


def record(row: RunRow, gpu: str | None, **more: object) -> Record:
    return Record(
        **{
            "model": row.model,
            "fingerprint": fingerprint(row.spec),
            "config": str(row.config),
            "task": "divergence",
            "kind": "likelihood",
            "context": row.workload.context,
            "seed": 0,
            "outcome": "ok",
            "memory": Memory(weights=1, kv=1, allocated=10, peak=12),
            "ttft_s": row.ttft_s,
            "tpot_s": row.tpot_s,
            "environment": Environment(gpu=gpu, python="3.12", kvpareto="0"),
            "started": "",
            "ended": "",
            **more,
        }
    )


def test_a_calibration_leaves_its_gpu_measured(home: Path, slower: Coefficients) -> None:
    rows = made_up(slower, 0.02, MODELS[:1])[:12]
    spec = rows[0].spec
    folder = folder_of(spec)
    folder.mkdir(parents=True)
    (folder / META).write_text("{}")
    notices: list[str] = []
    assert refit(None, notices.append) is None  # a CPU
    with RecordFile(folder) as file:
        for row in rows:
            file.append(record(row, row.gpu))
            file.append(record(row, "NVIDIA H200", seed=1))  # another machine's, imported
    assert refit("An Unknown GPU", notices.append) is None
    assert "not among the known GPUs" in notices.pop()
    path = refit(rows[0].gpu, notices.append)
    assert path == path_of(GPU.name)
    assert profile_of(KVPARETO, GPU, SPEC).kind.endswith("12 runs of 1 model")
    assert not notices


def test_rows_of_other_runs_are_left_out() -> None:
    (row, *_) = made_up(START, 0.0, MODELS[:1])
    good = record(row, row.gpu, details={"output": 128.0, "batch": 2.0, "reserved_peak": 99.0})
    rows = [
        good,
        good,  # a task's row repeats the seconds of its configuration
        record(row, None),  # on a CPU
        record(row, row.gpu, outcome="crashed"),
        record(row, row.gpu, ttft_s=None),
        record(row, row.gpu, fingerprint="of another config"),
    ]
    (found,) = of_records(rows, row.spec)
    assert found.workload == Workload(row.workload.context, 128, batch=2)
    assert (found.allocated_peak, found.reserved_peak) == (12, 99)
