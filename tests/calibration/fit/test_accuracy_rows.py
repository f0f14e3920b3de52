"""Published rows: cleaned repeatably, each with its source, none dropped without a reason."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from kvpareto.calibration.fit.accuracy_rows import AccuracyRow, read_rows, write_rows
from kvpareto.calibration.fit.published import FOLDER, RAW, clean
from kvpareto.calibration.fit.published_more import FILES
from kvpareto.calibration.fit.published_sources import BITS
from kvpareto.planner.accuracy.formula import span
from kvpareto.planner.accuracy.task_kinds import EXAMS, task_group


@pytest.fixture(scope="module")
def rows() -> list[AccuracyRow]:
    return read_rows(FOLDER / "accuracy.csv")


def test_the_shipped_rows_are_what_cleaning_the_raw_tables_gives(tmp_path: Path) -> None:
    kept, _ = clean()
    write_rows(tmp_path / "again.csv", kept)
    assert (tmp_path / "again.csv").read_text() == (FOLDER / "accuracy.csv").read_text()


def test_every_raw_row_is_kept_or_has_a_reason() -> None:
    kept, excluded = clean()
    raw = 0
    for name in (*RAW, *FILES):
        with (FOLDER / name).open(newline="", encoding="utf-8") as file:
            raw += sum(1 for _ in csv.DictReader(file))
    assert len(kept) + len(excluded) == raw == 444 + 752 + 686 + 562
    assert all(len(e.reason) > 10 for e in excluded)
    with (FOLDER / "excluded.csv").open(newline="", encoding="utf-8") as file:
        assert [line["reason"] for line in csv.DictReader(file)] == [e.reason for e in excluded]


def test_every_row_names_its_source_and_is_in_range(rows: list[AccuracyRow]) -> None:
    for row in rows:
        assert row.source
        assert row.provenance == "published"
        assert 0 <= row.retention < 1.2
        assert (
            0.001 < row.sd < 0.17
        )  # the largest: 0.165, 164 problems of which Gemma-7B solves 12 %
        assert 0 < row.weight <= 1


def test_reading_gives_back_what_was_written(rows: list[AccuracyRow], tmp_path: Path) -> None:
    odd = replace(
        rows[0],
        protected_layers=(0, 27),
        protected_bits=8.0,
        smoothing=True,
        provenance="calibrated",
    )
    write_rows(tmp_path / "rows.csv", [odd, *rows])
    assert read_rows(tmp_path / "rows.csv") == [odd, *rows]


@pytest.mark.parametrize(
    ("model", "task", "bits", "retention", "weight"),
    [
        # KVTuner: 0.0078 of 0.7755, a transcription
        ("qwen2.5-7b", "gsm8k_fewshot_cot_avg", (4, 4), 0.0078 / 0.7755, 0.5),
        # transformers#35185: 0 of 98, first-hand
        ("qwen2.5-7b", "120-case action routing (exact match)", (4, 4), 0.0, 1.0),
        # KIVI docs: 80.83 of 89.33
        ("mistral-7b-v0.2", "longbench_PassageRetrieval", (2, 2), 80.83 / 89.33, 1.0),
        # perplexity 7.52 -> 9410 is a retention of 7.52 / 9410
        ("qwen2.5-7b", "wikitext-2", (3, 3), 7.52 / 9410, 0.5),
        # fp4 is a mapped format
        ("gpt-oss-120b", "aime25", (3.6, 3.6), 0.3533 / 0.7533, 0.5),
    ],
)
def test_a_row_by_hand(
    rows: list[AccuracyRow],
    model: str,
    task: str,
    bits: tuple[float, float],
    retention: float,
    weight: float,
) -> None:
    found = [r for r in rows if (r.model, r.task, (r.k_bits, r.v_bits)) == (model, task, bits)]
    assert len(found) == 1
    assert found[0].retention == pytest.approx(retention, rel=1e-5)
    assert found[0].weight == weight


def test_short_answers_are_a_kind_of_their_own(rows: list[AccuracyRow]) -> None:
    """Ratings without a chain of thought, a yes or no after a short one, and exams' letters."""
    short = {task_group(row.task) for row in rows if row.kind == "short_reasoning"}
    assert short == {"eq", "strategyqa", "mmlu-pro", *EXAMS}
    assert {task_group(row.task) for row in rows if row.kind == "likelihood"} >= {"arc-easy"}
    assert all(row.kind == "reasoning" for row in rows if row.task.startswith("gsm8k"))


def test_which_prompts_were_attended_in_16_bits(rows: list[AccuracyRow]) -> None:
    assert all(row.exact_prompt for row in rows if row.residual)
    of = {row.source.split("@")[0] for row in rows if row.exact_prompt and not row.residual}
    assert {"Concyclics/LogQuantKV", "crack666/kv-cache-quantization"} <= of
    assert "thu-nics/qllm-eval" not in of  # quantized inside of the forward pass
    assert not any(row.exact_prompt for row in rows if not row.quantizes_cache)


def test_which_keys_are_floats(rows: list[AccuracyRow]) -> None:
    floats = [row for row in rows if row.float_keys]
    assert {row.k_bits for row in floats} == {5.0, 6.0}
    assert not any(row.rotate_k for row in floats)


def test_which_side_is_rotated(rows: list[AccuracyRow]) -> None:
    table = [r for r in rows if "Table 11" in r.source and r.model == "llama-3.1-8b"]
    sides = [(r.rotate_k, r.rotate_v) for r in table[::4]]
    assert sides == [(True, True), (True, False), (False, True), (False, False)]
    one_sided = [
        r for r in rows if r.task == "GPQA" and r.model == "qwen3-4b" and r.retention > 0.5
    ]
    assert [(r.rotate_k, r.rotate_v) for r in one_sided] == [(True, False)]


def test_sampling_error_by_hand(rows: list[AccuracyRow]) -> None:
    row = next(r for r in rows if r.model == "llama-3.1-8b" and r.task == "gsm8k")
    # 76 % of 1,319 items, paired with correlation 0.7
    expected = math.sqrt(2 * 0.3 * 0.76 * 0.24 / 1319) / 0.76
    assert row.sd == pytest.approx(expected, rel=1e-4)


def test_an_unknown_kind_is_refused(rows: list[AccuracyRow]) -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        replace(rows[0], kind="vibes")
    with pytest.raises(ValueError, match="unknown provenance"):
        replace(rows[0], provenance="guessed")


def test_spans_are_those_of_normal_samples() -> None:
    for power in (5, 6, 7, 13, 20):
        n = 2**power
        exact = 2 * quad(lambda x, n=n: 1 - norm.cdf(x) ** n - norm.sf(x) ** n, 0, 9, limit=200)[0]
        assert span(np.array([float(n)]))[0] == pytest.approx(exact, rel=1e-3)


def test_float_formats_are_entered_as_the_grid_with_the_same_error() -> None:
    values = np.random.default_rng(0).standard_normal(160_000)
    step = 2.0 ** (np.floor(np.log2(np.abs(values))) - 3)  # three bits of mantissa
    fp8 = np.sqrt(np.mean((np.round(values / step) * step - values) ** 2))
    levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    blocks = values.reshape(-1, 16)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 6
    nearest = levels[np.abs(np.abs(blocks / scale)[..., None] - levels).argmin(axis=-1)]
    fp4 = np.sqrt(np.mean((np.sign(blocks) * nearest * scale - blocks) ** 2))
    for error, spanned, name in ((fp8, 6.0, "fp8"), (fp4, 3.532, "fp4")):
        bits = math.log2(spanned / math.sqrt(12) / error + 1)
        assert bits == pytest.approx(BITS[name], abs=0.06)
