"""The page holds the planner's numbers, asks no network, and nothing in it can break out."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

import kvpareto
from kvpareto.cli import run
from kvpareto.report.page.build import MAX_BYTES, build_page
from kvpareto.report.page.data import page_data
from kvpareto.report.records.measuring import Unit
from kvpareto.report.records.schemas import json_schema

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
VLLM_RECEIPTS = sorted(RESULTS.glob("vllm_verify_*.json"))


class _Elements(HTMLParser):
    """Tags with their attributes, and the text of the data element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._inside = tag == "script" and ("id", "data") in attributes

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, text: str) -> None:
        if self._inside:
            self.data += text


def page_of(path: Path) -> _Elements:
    return _Elements(path.read_text(encoding="utf-8"))


@pytest.fixture
def written(plan_file: Path, tmp_path: Path) -> Path:
    output = tmp_path / "report.html"
    assert run(["report", str(plan_file), "-o", str(output)]) == 0
    return output


def test_the_numbers_are_those_of_the_plan(written: Path, plan_document: dict[str, Any]) -> None:
    (plan,) = json.loads(page_of(written).data)["plans"]
    best = plan_document["recommended"]
    answers = next(a for a in plan["answers"] if a["context"] == 16384)
    row = answers["points"][answers["recommended"][plan["budgets"].index(12 * 10**9)]]
    assert row["config"] == plan["recommended"] == best["config"]
    terms = ("weights", "kv", "activation", "overhead", "total", "total_low", "total_high")
    assert {t: row[t] for t in terms} == {t: best["memory"][t] for t in terms}
    assert (row["retention"], row["low"]) == (
        best["accuracy"]["retention"],
        best["accuracy"]["low"],
    )
    assert (row["ttft_s"], row["tpot_s"]) == (best["ttft_s"], best["tpot_s"])
    assert row["ttft_high"] == best["latency"]["ttft_high_s"]
    tasks = best["accuracy"]["tasks"]
    assert row["tasks"]["reasoning"][0] == tasks["reasoning"]["retention"]


def test_each_budget_of_an_engine_that_places_is_a_plan(placed_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    assert run(["report", str(placed_file), "-o", str(output)]) == 0
    (plan,) = json.loads(page_of(output).data)["plans"]
    document = json.loads(placed_file.read_text(encoding="utf-8"))
    answers = next(a for a in plan["answers"] if a["context"] == document["context"])
    for place in (plan["budgets"].index(document["budget"]), 5):
        budget = plan["budgets"][place]
        here = answers["by_budget"][place]
        row = here["points"][here["recommended"]]
        words = {"gpu": "4060", "ram": "8GB", "context": "4k", "engine": "llama.cpp"}
        asked = kvpareto.plan(document["model"], budget=budget, offline=True, **words)
        best = asked["recommended"]
        assert (row["config"], row["total"]) == (best["config"], best["memory"]["total"])
        assert row["host"] == best["placement"]["host"]["total"]
        assert row["command"] == best["placement"]["command"]
        assert (row["ttft_s"], row["tpot_s"]) == (best["ttft_s"], best["tpot_s"])
    assert all(r["fits"] for one in plan["configs"] for r in one["over_contexts"])
    chunks = [row["chunk"] for row in plan["configs"][0]["over_chunks"]]
    assert chunks == [128, 256, 512, 1024, 2048]


def test_the_page_is_small_and_refers_to_nothing(written: Path) -> None:
    assert written.stat().st_size <= MAX_BYTES
    tags = page_of(written).tags
    loading = {"src", "srcset", "data", "poster", "background", "action"}
    assert not [(tag, a) for tag, a in tags if loading & a.keys() or tag in ("link", "iframe")]
    policy = next(a["content"] for t, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "connect-src" not in policy


def test_text_of_a_plan_cannot_end_its_element(plan_document: dict[str, Any]) -> None:
    evil = "</script><script>alert(1)</script><!--"
    plan = {**plan_document, "model": evil, "warnings": [evil]}
    page = build_page(page_data([(plan, None)]))
    elements = _Elements(page)
    scripts = [a for tag, a in elements.tags if tag == "script"]
    assert len(scripts) == 4  # the data, two libraries, the page's own
    assert json.loads(elements.data)["plans"][0]["document"]["warnings"] == [evil]
    assert "alert(1)" not in re.sub(r'id="data">.*?</script>|<title>.*?</title>', "", page)


def test_a_folder_whose_name_is_no_utf_8_is_drawn(
    plan_document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "plan.json", tmp_path / "r.html"
    named = {**plan_document, "model": "bad\udcffname"}  # as Python reads such a path
    path.write_text(json.dumps(named), encoding="utf-8")
    assert run(["report", str(path), "-o", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == output.stat().st_size
    assert "<title>bad?name" in output.read_text(encoding="utf-8")


def test_a_plan_whose_model_is_gone_is_drawn_from_itself(
    plan_document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "plan.json", tmp_path / "r.html"
    gone = {**plan_document, "model": "nobody/gone", "model_path": str(tmp_path / "gone")}
    path.write_text(json.dumps(gone), encoding="utf-8")
    assert run(["report", str(path), "-o", str(output)]) == 0
    assert "drawn from the plan alone" in capsys.readouterr().err
    (plan,) = json.loads(page_of(output).data)["plans"]
    assert [a["context"] for a in plan["answers"]] == [16384]
    assert {p["config"] for p in plan["answers"][0]["points"]} == {
        p["config"] for p in [*plan_document["frontier"], plan_document["recommended"]]
    }


def test_receipts_stand_beside_the_plan(
    plan_file: Path, receipt_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "r.html"
    assert run(["report", str(plan_file), str(receipt_file), "-o", str(output)]) == 0
    (receipt,) = json.loads(page_of(output).data)["receipts"]
    assert [(t["name"], t["measured"]) for t in receipt["terms"]] == [
        ("weights", 6.1e9),
        ("total", None),
        ("ttft", 2.1),
    ]


@pytest.mark.parametrize("name", [path.name for path in VLLM_RECEIPTS])
def test_receipts_of_vllm_are_drawn(plan_file: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    receipt = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    output, figures = tmp_path / "r.html", tmp_path / "figures"
    asked = ["report", str(plan_file), str(RESULTS / name), "-o", str(output)]
    assert run([*asked, "--figures", str(figures)]) == 0
    (drawn,) = json.loads(page_of(output).data)["receipts"]
    assert [(t["name"], t["unit"], t["measured"]) for t in drawn["terms"]] == [
        (t["name"], t["unit"], t["measured"]) for t in receipt["terms"]
    ]
    assert (figures / "receipt-1.svg").is_file()


def test_every_unit_of_a_receipt_is_written(written: Path) -> None:
    """The page's script has a way to write each."""
    page = written.read_text(encoding="utf-8")
    (ways,) = re.findall(r"const WRITTEN = \{([^}]*)\b", page)
    assert all(re.search(rf'"?{unit}"?[,:]', ways) for unit in get_args(Unit))


def test_a_term_without_a_prediction_is_no_bar(
    plan_file: Path, receipt_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    receipt = json.loads(receipt_file.read_text(encoding="utf-8"))
    receipt["terms"][0] |= {"predicted": None, "low": None, "high": None}
    receipt_file.write_text(json.dumps(receipt), encoding="utf-8")
    asked = ["report", str(plan_file), str(receipt_file), "-o", str(tmp_path / "r.html")]
    assert run([*asked, "--figures", str(tmp_path / "figures")]) == 0


def test_two_plans_are_compared_when_asked(
    plan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "r.html"
    two = ["report", str(plan_file), str(plan_file), "-o", str(output)]
    assert run(two) == 2
    assert "--compare" in capsys.readouterr().err
    assert not output.exists()
    assert run([*two, "--compare"]) == 0
    assert len(json.loads(page_of(output).data)["plans"]) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[]", "object"),
        ("{}", "is not a plan"),
        ('{"schema": 1, "terms": 3}', "is not a receipt"),
        ('{"schema": 1, "max_context": []}', "--max-context"),
        ('{"schema": 2, "recommended": {}}', "is not a plan: schema"),
    ],
)
def test_other_files_are_one_line(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "x.json", tmp_path / "r.html"
    path.write_text(text, encoding="utf-8")
    assert run(["report", str(path), "-o", str(output)]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert hint.startswith("hint: ")
    assert not output.exists()


def test_nothing_to_draw_and_a_receipt_alone_are_refused(
    receipt_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "r.html")
    assert run(["report", "-o", output]) == 2
    assert "no plan to draw" in capsys.readouterr().err
    assert run(["report", str(receipt_file), "-o", output]) == 2
    assert "a receipt alone" in capsys.readouterr().err
    assert run(["report", str(tmp_path / "none.json"), "-o", output]) == 2


def test_json_says_what_was_written(
    plan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "r.html"
    assert run(["report", str(plan_file), "-o", str(output), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    jsonschema.validate(said, json_schema("report"))
    assert said["report"] == str(output)
    assert said["bytes"] == output.stat().st_size


def test_figures_are_files(plan_file: Path, receipt_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = tmp_path / "figures"
    asked = ["report", str(plan_file), str(receipt_file), "-o", str(tmp_path / "r.html")]
    assert run([*asked, "--figures", str(folder)]) == 0
    names = {path.stem for path in folder.glob("*.svg")}
    assert names == {"frontier", "memory", "retention", "ttft", "tpot", "receipt-1"}
    assert all((folder / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in names)


def test_a_plan_is_not_written_over(plan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = plan_file.read_bytes()
    assert run(["report", str(plan_file), "-o", str(plan_file)]) == 2
    assert "this command reads it" in capsys.readouterr().err
    assert plan_file.read_bytes() == before
