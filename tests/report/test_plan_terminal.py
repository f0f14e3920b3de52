"""A plan on terminals of every width: the answer first, configurations whole, readable marks."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from kvpareto.cli import run
from kvpareto.planner.units import format_bytes
from kvpareto.report.answer import print_answer
from kvpareto.report.frontier import print_frontier
from kvpareto.report.layout.folding import shell_lines
from kvpareto.report.lines import KEPT, together
from kvpareto.report.marks import encodable
from kvpareto.report.numbers import percent, seconds
from kvpareto.report.output import print_tables
from kvpareto.report.terminal import (
    print_estimate,
    print_longest,
    print_plan,
    print_plan_details,
)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    asked = ["plan", "-m", "Qwen/Qwen3-8B", "--budget", "12GB", "--context", "16k"]
    assert run([*asked, "--gpu", "4090", "--offline", "--save", str(path)]) == 0
    return json.loads(path.read_text(encoding="utf-8"))


def shown(document: dict[str, Any], width: int, printer: Any = print_plan, **how: Any) -> list[str]:
    console = Console(width=width, force_terminal=True, no_color=True, highlight=False)
    with console.capture() as captured:
        printer(document, console, **how)
    return Text.from_ansi(captured.get()).plain.replace(KEPT, " ").splitlines()


def test_at_80_columns_the_answer_is_all_and_has_ten_lines_at_most(
    document: dict[str, Any],
) -> None:
    lines = shown(document, 80, print_answer, more=True)
    best = document["recommended"]["config"]
    assert len([line for line in lines if line[:1] != " "]) <= 10
    assert any(best in line and "Recommended" in line for line in lines)
    assert any("of 12.00 GB" in line for line in lines)
    assert "the weakest generated kind" in " ".join(map(str.strip, lines))
    assert any("TTFT" in line and "TPOT" in line for line in lines)
    text = "\n".join(line[13:].rstrip("\\").strip() for line in lines)
    for one in document["commands"]:
        assert one["command"] in text.replace("\n", " ")


def test_a_narrow_terminal_hides_the_rest_and_says_where_it_is(document: dict[str, Any]) -> None:
    assert "Frontier" not in "\n".join(shown(document, 80))
    assert "--details" in "\n".join(shown(document, 80))
    assert "Frontier" in "\n".join(shown(document, 120))


def test_long_output_ends_with_the_configuration(
    document: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    print_tables(document, "terminal", "print_plan_details")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == ["Recommended", document["recommended"]["config"]]
    print_tables(document["recommended"] | {"warnings": []}, "terminal", "print_estimate")
    assert "Recommended" not in capsys.readouterr().out


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_configurations_are_whole_at_every_width(document: dict[str, Any], width: int) -> None:
    text = shown(document, width, print_frontier)
    for config in document["shown"]:
        assert any(config in line for line in text)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_columns_are_left_out_rather_than_folded(document: dict[str, Any], width: int) -> None:
    longest = max(map(len, document["shown"]))
    lines = shown(document, width, print_frontier)
    table = lines[1 : 2 + len(document["shown"])]
    assert max(map(len, table)) <= max(width, longest + 2)
    assert ("TPOT" in table[0]) == (width == 120)


def test_what_is_beyond_the_budget_is_named_so(document: dict[str, Any]) -> None:
    lines = shown(document, 120, print_frontier)
    by_config = {point["config"]: point for point in document["frontier"]}
    for config in document["shown"]:
        point = by_config.get(config, document["recommended"])
        fits = point["memory"]["total_high"] <= document["budget"]
        (line,) = [line for line in lines if config in line.split()]
        assert ("fits" in line.split(), "beyond" in line.split()) == (fits, not fits)


def test_every_mark_has_a_plainer_one() -> None:
    marks = "█░┊│└─╎…±→≤≥×"
    for encoding in ("ascii", "cp1252"):
        plain = encodable(marks, encoding)
        assert len(plain) == len(marks)
        assert "?" not in plain
        plain.encode(encoding)
    assert encodable(marks, "utf-8") == marks
    assert encodable("语", "ascii") == "?"
    assert encodable("█", "no-such-encoding") == "█"


def test_a_pipe_is_neither_wrapped_nor_padded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    asked = ["plan", "-m", "Qwen/Qwen3-8B", "--budget", "12GB", "--offline"]
    assert run(asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if line != line.rstrip()]
    assert any(len(line) > 100 and line.startswith("  -  ") for line in lines)


@pytest.mark.parametrize("width", [40, 50, 59])
def test_a_servers_terms_stay_within_a_narrow_terminal(width: int) -> None:
    import kvpareto

    document: Any = kvpareto.plan(
        "Qwen/Qwen3-8B", engine="vllm", gpu="2xH100", users=16, context="16k", offline=True
    )
    lines = shown(document, width, print_plan_details)
    terms = lines[
        lines.index(next(x for x in lines if x.startswith("budget"))) : lines.index("Why")
    ]
    assert max(map(len, terms)) <= width
    beside = [line for line in terms if line.lstrip().startswith("outside torch")]
    assert len(beside) == 1
    assert beside[0].endswith("MB")  # a value stands beside its name


def test_what_is_unknown_is_told_as_bounds() -> None:
    import kvpareto

    document: Any = kvpareto.plan(
        "deepseek-ai/DeepSeek-V2-Lite-Chat",
        engine="vllm", gpu="H200", users=450, context="16k", max_loss="20%", offline=True,
    )  # fmt: skip
    kept = document["recommended"]["accuracy"]
    assert kept["provenance"] == "unknown"
    (line,) = [x for x in shown(document, 120, print_plan) if x.startswith("Retention")]
    assert f"{percent(kept['low'])} to {percent(kept['high'])}, bounds alone" in line


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_longest_contexts_have_whole_configurations(width: int) -> None:
    import kvpareto

    document: Any = kvpareto.max_context("Qwen/Qwen3-8B", budget="8GB", offline=True)
    lines = shown(document, width, print_longest)
    for row in document["max_context"]:
        assert any(row["config"] in line for line in lines)
    assert len(lines) < 4 * len(document["max_context"]) + 18
    best, *others = document["max_context"]
    answer, rest = "\n".join(lines).split("Alternatives")
    assert f"{best['max_context']:,} tokens with" in answer
    assert best["config"] in answer
    assert best["config"] not in rest.splitlines()
    assert all(best["max_context"] >= other["max_context"] for other in others)


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_commands_are_broken_where_a_shell_takes_them(document: dict[str, Any], width: int) -> None:
    command = document["commands"][1]["command"]
    lines = shell_lines(command, width)
    assert [line[-2:] for line in lines[:-1]] == [" \\"] * (len(lines) - 1)
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == shlex.split(command)
    config = shlex.quote(document["recommended"]["config"])
    beside = "--config " if width >= 40 else ""  # an option that is wider with its value than all
    assert any(beside + config in line for line in lines)
    assert shell_lines("say 'it is", 4) == ["say 'it is"]


def test_a_number_keeps_its_unit_at_a_fold() -> None:
    said = "22.27 GB of 24.73 GB, at most 65.9 ms; 99.1 % of 3 users, 8 sold, 12 s"
    kept = together(said).split(" ")
    assert kept[0] == f"22.27{KEPT}GB"
    assert f"99.1{KEPT}%" in kept
    assert kept[-5:] == ["3", "users,", "8", "sold,", f"12{KEPT}s"]


@pytest.mark.parametrize("config", ["w16a16-k16v16", "w4a16-k4v4-g64+pc256"])
def test_terms_are_whole_at_80_columns(config: str) -> None:
    import kvpareto

    document: Any = kvpareto.estimate("Qwen/Qwen3-8B", config, gpu="4090", offline=True)
    text = "\n".join(shown(document, 80, print_estimate))
    memory = document["memory"]
    for term in ("weights", "kv", "activation", "overhead", "total"):
        assert f" {format_bytes(memory[term])} " in text.replace("\n", " \n")
    assert "…" not in text


def test_terms_fit_a_terminal_of_40_columns() -> None:
    import kvpareto

    asked = {"context": "32k", "gpu": "4090", "offline": True}
    document: Any = kvpareto.estimate("Qwen/Qwen3-8B", "w4a16-k4v4-g64+pc256", **asked)
    lines = shown(document, 40, print_estimate)
    text = "\n".join(lines)
    low, high = document["latency"]["ttft_low_s"], document["latency"]["ttft_high_s"]
    assert f"    {seconds(low)} to {seconds(high)} (" in text
    assert len([line for line in lines if line.startswith(" ")]) < 34


def test_kinds_of_tasks_that_keep_the_same_are_one_row(document: dict[str, Any]) -> None:
    kept = {"retention": 0.991, "low": 0.98, "high": 0.995}
    tasks = {"reasoning": kept, "retrieval": dict(kept), "reading": kept | {"low": 0.97}}
    best = json.loads(json.dumps(document["recommended"]))
    best["accuracy"] |= {"tasks": tasks, "task": "retrieval"}
    text = "\n".join(shown(document | {"recommended": best}, 200))
    assert re.search(r"reasoning +99.1 % +98.0 % to 99.5 %, shown above; retrieval too *\n", text)
    assert re.search(r"\n +reading +99.1 % +97.0 % to 99.5 % *\n", text)


def test_a_lower_end_of_another_kind_is_named(document: dict[str, Any]) -> None:
    best = json.loads(json.dumps(document["recommended"]))
    tasks = {
        "reasoning": {"retention": 0.984, "low": 0.972, "high": 0.99},
        "long_reasoning": {"retention": 0.985, "low": 0.961, "high": 0.991},
        "retrieval": {"retention": 0.999, "low": 0.9996, "high": 1.0},
    }
    best["accuracy"] |= {"tasks": tasks, "task": "reasoning"}
    best["accuracy"] |= {"retention": 0.984, "low": 0.961, "high": 0.99}
    text = "\n".join(shown(document | {"recommended": best}, 200))
    assert (
        "98.4 %, at least 96.1 % (reasoning, the weakest generated kind, at least that of" in text
    )
    assert re.search(r"\n +reasoning +98.4 % +97.2 % to 99.0 %, the prediction above *\n", text)
    assert re.search(r"\n +long reasoning +98.5 % +96.1 % to 99.1 %, the lower end above *\n", text)
    assert re.search(r"\n +retrieval +99.9 % +99.9 % to 100.0 % *\n", text)


def test_a_kind_below_the_weakest_generated_one_is_named(document: dict[str, Any]) -> None:
    best = json.loads(json.dumps(document["recommended"]))
    tasks = {
        "reasoning": {"retention": 0.984, "low": 0.96, "high": 0.99},
        "short_reasoning": {"retention": 0.981, "low": 0.97, "high": 0.99},
        "reading": {"retention": 0.98396, "low": 0.97, "high": 0.99},
        "likelihood": {"retention": 0.99, "low": 0.88, "high": 1.0},
    }
    best["accuracy"] |= {"tasks": tasks, "task": "reasoning"}
    best["accuracy"] |= {"retention": 0.984, "low": 0.96, "high": 0.99}
    lines = shown(document | {"recommended": best}, 200, print_answer, more=False)
    (said,) = (line for line in lines if line.startswith("Retention"))
    assert said.endswith("; short reasoning keeps 98.1 %; likelihood may keep less")
    asked = {"recommended": best, "task": "reasoning"}
    lines = shown(document | asked, 200, print_answer, more=False)
    assert not any("keeps" in line for line in lines if line.startswith("Retention"))


@pytest.mark.parametrize("width", range(60, 100, 3))
def test_numbers_stay_with_their_units_in_lists(document: dict[str, Any], width: int) -> None:
    lines = shown(document, width, print_plan_details)
    assert not [line for line in lines if re.match(r" +(%|[kMGT]?B|m?s|tokens)\b", line)]
    assert not [line for line in lines if re.match(r" +%", line)]


def test_times_of_a_line_have_one_unit(document: dict[str, Any]) -> None:
    best = json.loads(json.dumps(document["recommended"]))
    best |= {"tpot_s": 0.0463}
    best["latency"] |= {"tpot_low_s": 0.02, "tpot_high_s": 0.12}
    text = "\n".join(shown(document | {"recommended": best}, 200))
    assert "TPOT 46.3 ms, at most 120.0 ms" in text
    assert "20.0 ms to 120.0 ms (" in text


def test_a_token_of_the_cache_is_of_one_sequence(document: dict[str, Any]) -> None:
    best = json.loads(json.dumps(document["recommended"])) | {"kv_bytes_per_token": 4_194_304}
    text = "\n".join(shown(document | {"recommended": best, "batch": 32}, 200))
    assert " 131,072 bytes a token of each sequence" in text
    one = "\n".join(shown(document | {"recommended": best}, 200))
    assert " 4,194,304 bytes a token" in one
    assert "of each sequence" not in one
