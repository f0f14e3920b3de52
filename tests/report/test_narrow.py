"""Every command on a narrow terminal: no line that can be broken is wider than it is."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pytest
from rich.console import Console

import kvpareto
from kvpareto.cli import run
from kvpareto.planner.hardware.gpus import list_gpus
from kvpareto.report.layout.folding import shell_lines
from kvpareto.report.layout.tables import rows_that_fit
from kvpareto.report.output import print_tables
from kvpareto.report.profiles import list_document, show_document
from kvpareto.report.verify import print_receipt

WIDTHS = (30, 40, 50, 60)
QWEN = "Qwen/Qwen3-8B"
ASKED: dict[str, Any] = {"gpu": "4090", "context": "8k", "offline": True}
COMMANDS = ["", "plan", "estimate", "calibrate", "verify", "run", "chat", "report", "ui"]
PROFILES = ["", " list", " show", " check", " export", " import"]

ENGINES = ["kvpareto", "transformers", "transformers-eager", "llama.cpp", "vllm", "sglang", "any"]
WHOLE = re.compile(r"[*]? *\S+(?: \\)?")
"""A line that is not to be broken: one word."""
GPUS = {gpu.name for gpu in list_gpus()}
"""Names that are searched for."""


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    for name, value in (("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("COLUMNS", str(request.param))):
        monkeypatch.setenv(name, value)  # a terminal without colours
    return int(request.param)


@cache
def _document(kind: str, engine: str) -> Mapping[str, Any]:
    if kind == "plan":
        return kvpareto.plan(QWEN, engine=engine, **ASKED)
    if kind == "max_context":
        return kvpareto.max_context(QWEN, engine=engine, gpu="4090", offline=True)
    config = "w4a16-k4v4-g64+pc256" if engine == "kvpareto" else "w16a16-k16v16"
    return kvpareto.estimate(QWEN, config, engine=engine, **ASKED)


def _too_wide(text: str, width: int) -> list[str]:
    wide = [x for x in text.splitlines() if len(x) > width and not WHOLE.fullmatch(x)]
    return [x for x in wide if x.strip() not in GPUS]


@pytest.mark.parametrize("command", [*COMMANDS, *(f"profiles{name}" for name in PROFILES)])
def test_help(command: str, width: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert _too_wide(shown, width) == []
    assert "Usage: kvpareto" in shown
    assert "..." not in shown.replace("[ARGS]...", "").replace("FILE...", "")


@pytest.mark.parametrize(
    ("kind", "engine", "printer"),
    [("plan", engine, "print_plan_details") for engine in ENGINES]
    + [("plan", engine, "print_plan") for engine in ("kvpareto", "llama.cpp", "any")]
    + [("max_context", engine, "print_longest") for engine in ("kvpareto", "vllm")]
    + [("estimate", engine, "print_estimate") for engine in ("kvpareto", "vllm")],
)
def test_documents_of_the_planner(
    kind: str, engine: str, printer: str, width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    print_tables(_document(kind, engine), "terminal", printer)
    shown = capsys.readouterr().out
    assert _too_wide(shown, width) == []
    assert "…" not in shown
    if printer == "print_plan_details":
        assert "┊ budget" in shown


@pytest.mark.parametrize("name", [QWEN, "recall", "H100"])
def test_profiles_show(name: str, width: int, capsys: pytest.CaptureFixture[str]) -> None:
    document = show_document(name)
    print_tables(document, "profiles", "print_profile")
    shown = capsys.readouterr().out
    assert _too_wide(shown, width) == []
    for fact in document["facts"]:
        assert f"\n  {fact}" in shown


def test_profiles_list(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    document = list_document()
    print_tables(document, "profiles", "print_list")
    shown = capsys.readouterr().out
    assert _too_wide(shown, width) == []
    for name in (*document["models"], *document["gpus"]):
        assert f"\n  {name}\n" in shown


def _receipt(**changed: Any) -> dict[str, Any]:
    term = {"name": "weights", "unit": "bytes", "note": None, "low": 10**9, "high": 2 * 10**9}
    term |= {"predicted": 14 * 10**8, "measured": 15 * 10**8, "difference": 10**8, "side": "inside"}
    off = {"measured": None, "difference": None, "side": None}
    tpot = {"name": "tpot_p95", "unit": "s", "note": "only the median is predicted"} | off
    task = {"task": "needle-multikey", "items": 8, "score": 0.5, "reference": 0.5, "note": None}
    task |= {"retention": 1.0, "retention_sd": 0.25, "predicted_low": 0.9, "predicted_high": 1}
    kept = {"task": "long_reasoning", "predicted": 0.99, "low": 0.9, "high": 1.0, "level": 0.9}
    return {
        "model": QWEN, "config": "w4a16-k4v4-g32+protect{0,35}:k8v8+pc256", "context": 8192,
        "output": 512, "batch": 1, "engine": "kvpareto", "gpu": None, "budget": 12 * 10**9,
        "verdict": "verified: the weights and the KV cache are as promised", "wrong": [],
        "terms": [term, term | {"name": "total"} | off, term | tpot],
        "tasks": [task | {"side": "inside", "reference_from": "earlier rows"}],
        "retention": kept | {"measured": 1.0, "provenance": "published"},
        "cap": {"margin": None, "how": "on a CPU the tensors of weights and cache are held to it"},
        "corrected": None, "peak_phase": "prefill", "notes": ["quick: the prompt was run once"],
    } | changed  # fmt: skip


def test_receipts(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    one = _receipt()
    print_tables(one, "verify", "print_receipt")
    shown = capsys.readouterr().out
    assert _too_wide(shown, width) == []
    assert one["config"] in shown.split()
    assert "  weights\n    predicted 1.40 GB, measured 1.50" in shown or width < 40
    assert "not measured" in shown
    sweep = {"receipts": [one | {"verified": True}], "unplanned": [], "verdict": "as promised"}
    print_tables(sweep, "verify", "print_sweep")
    assert _too_wide(capsys.readouterr().out, width) == []


def test_calibrations(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"config": "w16a16-k8v8", "context": 256, "task": "needle-multikey", "score": 1.0}
    document = {
        "rows": [row | {"retention": 1.0, "retention_sd": 0.25}], "reason": "one was run",
        "expected_error": 0.05, "expected_everywhere": 0.03,
        "held_out": {"rows": 3, "mae": 0.1, "coverage": 1.0},
        "findings": ["Protected layers that plans now consider: {0,6}"], "fitted": True,
        "folder": "/a/folder/of/calibrations/that/is/longer/than/a/narrow/terminal",
    }  # fmt: skip
    print_tables(document, "calibration", "print_calibration")
    shown = capsys.readouterr().out
    assert _too_wide(shown, width) == []
    assert document["folder"] in shown.splitlines()


def test_a_wide_terminal_has_tables() -> None:
    wide = Console(width=120, color_system=None)
    with wide.capture() as captured:
        print_receipt(_receipt(), wide)
    (heading,) = [x for x in captured.get().splitlines() if "interval" in x]
    assert heading.split() == ["predicted", "measured", "off", "interval"]
    rows: Sequence[Sequence[str]] = [("a", "1"), ("bcd", "2")]
    for columns, lines in ((8, ["     off", "a      1", "bcd    2"]), (7, None)):
        console = Console(width=columns, color_system=None)
        with console.capture() as captured:
            console.print(rows_that_fit(("", "off"), rows, columns))
        expected = lines or ["a", "    off", "    1", "bcd", "    off", "    2"]
        assert [x.rstrip() for x in captured.get().splitlines()] == expected


def test_words_with_quotes_are_broken_between() -> None:
    command = 'kvpareto chat --system "Answer in one sentence." < file'
    assert shell_lines(command, 40) == [
        "kvpareto chat \\", '--system "Answer in one sentence." \\', "< file"
    ]  # fmt: skip


@pytest.mark.parametrize("columns", [30, 45, 79])
def test_mistakes_on_a_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words are not broken, and what is copied from a hint stays on one line."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    lines = [["plan", QWEN, "--offline"], ["plan", QWEN, "--budget", "1GB", "--offline"], ["zork"]]
    for line in lines:
        assert run(line) in (1, 2)
        said = capsys.readouterr().err
        copied = re.findall(r"`[^`]+`|kvpareto plan .*", said)
        whole = [x for x in _too_wide(said, columns) if not any(part in x for part in copied)]
        assert whole == []
        monkeypatch.setattr("sys.stderr.isatty", lambda: False)
        assert run(line) in (1, 2)
        assert said.split() == capsys.readouterr().err.split()
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)


@pytest.mark.parametrize("size", ["0", "-1", "x", "²", "9" * 5000, ""])
def test_what_is_no_size_of_a_terminal_is_forgotten(
    size: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("COLUMNS", "LINES"):
        monkeypatch.setenv(name, size)
    assert run(["profiles", "show", "H200"]) == 0
    assert "…" not in capsys.readouterr().out
