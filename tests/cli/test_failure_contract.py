"""One contract for every end of every command: hundreds of command lines, and what they share."""

import ast
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kvpareto
from kvpareto.cli import run
from kvpareto.planner import install, user_data
from kvpareto.planner.errors import MissingDependency, NothingFits
from kvpareto.planner.units import budget_for, parse_bytes
from kvpareto.report.failure import TRACEBACK, failure_of
from kvpareto.report.output import to_json
from tests.support.command_contract import contract, run_here
from tests.support.command_lines import HEAVY, QWEN, STORIES, lines, write_things


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("is_light", [False, True], ids=["full", "light"])
def test_every_command_line_ends_as_it_should(
    is_light: bool,
    as_json: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv(TRACEBACK, raising=False)
    monkeypatch.chdir(tmp_path)
    for name in HEAVY if is_light else ():
        monkeypatch.setitem(sys.modules, name, None)
    found = lines(write_things(tmp_path))
    assert len(found) >= 200
    wrong = []
    for line in found:
        if line.slow and not is_light:
            continue  # tests/stress/command_lines.py measures
        outcome = run_here(line, lambda: capsys.readouterr(), as_json=as_json)
        said = contract(line, outcome, as_json=as_json, is_light=is_light)
        wrong += [(line.arguments, said)] if said else []
    assert wrong == [], "\n".join(map(str, wrong))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "fifo").is_fifo()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


HINTED = {"BadConfig", "BadInput", "MissingDependency", "NothingFits"}


def test_every_mistake_that_is_raised_has_a_hint() -> None:
    root, lacking, count = Path(kvpareto.__file__).parent, [], 0
    for room in ("planner", "calibration", "runtime", "report", "cli"):
        for path in (root / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in HINTED:
                    continue
                given = [*node.args, *node.keywords]
                count += 1
                if len(given) < 2 and not any(isinstance(one, ast.Starred) for one in given):
                    lacking.append(f"{path.name}:{node.lineno}")
    assert count > 300
    assert not lacking


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = run([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("budget", ["7GB", "8GB"])
def test_what_a_failure_hints_at_then_fits(budget: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plan", QWEN, "--context", "100k", "--batch", "2"]
    code, found = failure(capsys, *asked, "--budget", budget)
    assert (code, found["fits"], found["exit_code"]) == (1, False, 1)
    assert found["budget"] == parse_bytes(budget)
    assert found["missing_bytes"] == found["needed_bytes"] - found["budget"] > 0
    would = found["would_fit"]
    assert would["budget"] in found["hint"]
    assert run([*asked, "--budget", would["budget"]]) == 0
    if would["context"] is not None:
        shorter = ["--context", str(would["context"])]
        assert run([*asked, "--budget", budget, *shorter]) == 0
    else:
        assert budget == "7GB"


@pytest.mark.parametrize("size", [1, 999, 7_684_999_999, 7_680_000_000, 10**12 + 1, 1234])
def test_a_budget_for_a_size_holds_it_and_little_more(size: int) -> None:
    held = parse_bytes(budget_for(size))
    assert size <= held < size * 1.01 + 10


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("12", "write 12GB"), ("22.5", "write 22.5GB"), ("24", "write 24GB"),
     ("12884901889", "write 12884901889B, or 12.89GB")],
)  # fmt: skip
@pytest.mark.parametrize("command", ["plan", "verify"])
def test_a_size_without_a_unit_is_asked_back(
    command: str, typed: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    code, found = failure(capsys, command, STORIES, "--budget", typed)
    assert (code, found["hint"]) == (2, hint)


def test_json_holds_no_infinity_and_nothing_a_terminal_obeys() -> None:
    text = to_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": "\x1b[31m\x9b\u202e\udcffé"})
    assert text.isprintable() or text[:-1].isprintable()
    assert json.loads(text) == {"a": None, "b": [None, 1.5], "c": "\x1b[31m\x9b\u202e\udcffé"}


def test_help_and_version_are_documents_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Usage" in failure(capsys, "plan", "--help")[1]["text"]
    assert failure(capsys, "--version")[1]["text"].startswith("kvpareto ")


def test_a_fault_is_called_one_and_its_place_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failure_of(ZeroDivisionError("x")).fault
    assert not failure_of(NothingFits("x")).fault
    assert failure_of(ModuleNotFoundError("x", name="scipy.optimize")).code == 3
    assert failure_of(ModuleNotFoundError("x", name="elsewhere")).fault
    monkeypatch.setattr("kvpareto.report.profiles.list_document", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(["profiles", "list"])
    monkeypatch.delenv(TRACEBACK)
    assert run(["profiles", "list"]) == 2


@pytest.mark.parametrize(
    "line",
    [
        ["plan", "-m", QWEN, "--budget", "12GB", "--save", "a\0b"],
        ["report", "a\0b", "-o", "x.html"],
        ["profiles", "import", "a\0b"],
        ["verify", "--plan", "a\0b"],
        ["run", "-m", "recall", "--batch", "a\0b"],
    ],
    ids=lambda line: line[0],
)
def test_a_path_that_no_system_has_is_no_fault(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = failure(capsys, *line)
    assert (code, found["hint"]) == (2, "type the path again")


def test_details_travel_with_the_error() -> None:
    found = failure_of(MissingDependency("m", "h", {"install": "pip"})).document()
    assert found["install"] == "pip"
    assert found["exit_code"] == 3


class TestInstallCommand:
    """The printed command names where this installation came from."""

    def _named(self, monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any] | None) -> str:
        class Installed:
            requires = ('torch>=2.11; extra == "runtime"', "numpy",
                        'kvpareto[runtime]; extra == "calibrate"',
                        'scikit-learn>=1.5; extra == "calibrate"')  # fmt: skip

            def read_text(self, name: str) -> str | None:
                assert name == "direct_url.json"
                return None if origin is None else json.dumps(origin)

        monkeypatch.setattr(install, "_checkout", lambda: None)
        monkeypatch.setattr("importlib.metadata.distribution", lambda name: Installed())
        return install.install_command("calibrate").split(" install ", 1)[1]

    def test_checkout(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        root = tmp_path / "checkout"
        root.mkdir()
        monkeypatch.setattr(install, "_checkout", lambda: root)
        monkeypatch.chdir(root)
        assert install.install_command("calibrate").endswith('pip install ".[calibrate]"')
        monkeypatch.chdir(tmp_path)
        assert install.install_command("runtime").endswith(f'pip install "{root}[runtime]"')

    def test_index(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self._named(monkeypatch, None) == '"kvpareto[calibrate]"'

    def test_folder_and_wheel(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        url = tmp_path.as_uri()
        assert self._named(monkeypatch, {"url": url}) == f'"{tmp_path}[calibrate]"'
        (tmp_path / "k.whl").touch()
        there = self._named(monkeypatch, {"url": f"{url}/k.whl"})
        assert there == f'"kvpareto[calibrate] @ {url}/k.whl"'

    def test_a_place_that_is_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gone = self._named(monkeypatch, {"url": "file:///nowhere/kvpareto"})
        assert gone == '"torch>=2.11" "scikit-learn>=1.5"'

    def test_repository(self, monkeypatch: pytest.MonkeyPatch) -> None:
        origin = {"url": "https://x/k.git", "vcs_info": {"vcs": "git"}}
        assert self._named(monkeypatch, origin) == '"kvpareto[calibrate] @ git+https://x/k.git"'


def test_a_user_without_a_home_can_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("KVPARETO_HOME", "XDG_DATA_HOME", "HF_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(Path, "expanduser", lambda self: nobody() if "~" in str(self) else self)
    assert run(["plan", QWEN, "--budget", "12GB", "--gpu", "H200"]) == 0
    assert run(["profiles", "list"]) == 0
    capsys.readouterr()
    code, found = failure(capsys, "calibrate", STORIES, "--device", "cpu")
    assert (code, found["error"]) == (2, "this user has no home folder")
    assert user_data.ENVIRONMENT in found["hint"]


@pytest.mark.parametrize("words", [["plan", QWEN, "--budget", "12GB"], ["plan", "--help"]])
@pytest.mark.parametrize("where", [">&-", '| (exec <&-); exit "${PIPESTATUS[0]}"'])
def test_a_stdout_that_nobody_reads_is_no_failure(words: list[str], where: str) -> None:
    shell = f"{sys.executable} -m kvpareto {shlex.join(words)} {where}"
    ended = subprocess.run(["bash", "-c", shell], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_full_disk_is_called_one() -> None:
    failure = failure_of(OSError(28, "No space left on device"))
    assert (failure.message, failure.code) == ("the disk is full", 2)
    assert "make room" in failure.hint


@pytest.mark.parametrize(("flag", "says"), [("-OO", "without -OO"), ("-O", "--force-reinstall")])
def test_a_library_that_lacks_its_docstrings_is_not_installed_again(flag: str, says: str) -> None:
    code = (
        "from kvpareto.planner.libraries import broken_library;"
        "print(broken_library('transformers', 'No `Args` section').hint)"
    )
    done = subprocess.run([sys.executable, flag, "-c", code], capture_output=True, text=True)
    assert says in done.stdout
