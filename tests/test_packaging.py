"""The wheel holds the package and its data, and nothing else.

An editable install hides a folder missing from pyproject's list, so a real wheel is built.
"""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LLAMA = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 11008,
    "vocab_size": 32000,
}
NOT_SHIPPED = {"tests", "benchmarks", "docs", "build", "dist", "setup.py"}
GONE = "kvpareto/report/gone.py"


@pytest.fixture(scope="session")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """File names inside a wheel built from a copy of what git would hand out.

    It is the second one built there: a module in the first is removed between the two.
    """
    source = tmp_path_factory.mktemp("source")
    for name in listed():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    gone = source / GONE.removeprefix("kvpareto/")
    gone.write_text("")
    first = built(source, tmp_path_factory.mktemp("first"))
    assert GONE in first
    gone.unlink()
    return built(source, tmp_path_factory.mktemp("wheel"))


def listed() -> list[str]:
    """Files that git would hand out."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in said.split("\0") if name]


def built(source: Path, out: Path) -> list[str]:
    """File names inside a wheel of `source`."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(out), str(source)], check=True)
    (wheel,) = out.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_a_removed_module_is_in_no_later_wheel(wheel_names: list[str]) -> None:
    assert GONE not in wheel_names


def test_a_plan_is_made_from_a_zip_file(tmp_path: Path) -> None:
    """Data is read through the modules' loaders; models that ship with their weights need
    files."""
    whole = tmp_path / "kvpareto.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        for name in listed():
            if name.split("/")[0] not in NOT_SHIPPED and (ROOT / name).is_file():
                archive.write(ROOT / name, f"kvpareto/{name}")

    def ends(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "kvpareto", *arguments, "--offline"],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(whole)},
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        return done.returncode, done.stderr

    config = tmp_path / "config.json"
    config.write_text(json.dumps({**LLAMA, "model_type": "qwen9"}), encoding="utf-8")
    for words in (
        ["plan", "Qwen/Qwen3-8B", "--gpu", "H100", "--engine", "any"],
        ["plan", "openai/gpt-oss-20b", "--gpu", "4060", "--ram", "32GB", "--engine", "llama.cpp"],
        ["plan", str(config), "--budget", "80GB"],
    ):
        assert ends(*words) == (0, "")
    code, said = ends("plan", "recall", "--budget", "1GB")
    assert code == 2
    assert said.startswith("error: cannot read")


def test_only_kvpareto_is_installed(wheel_names: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith((".dist-info", ".data"))} == {"kvpareto"}
    beside = [name.split(".data/")[1] for name in wheel_names if ".data/" in name]
    assert beside == ["data/share/man/man1/kvpareto.1"]
    inside = {name.split("/")[1] for name in wheel_names if name.startswith("kvpareto/")}
    assert not inside & NOT_SHIPPED


def test_every_module_of_the_tree_is_in_the_wheel(wheel_names: list[str]) -> None:
    modules = {
        f"kvpareto/{path.relative_to(ROOT).as_posix()}"
        for path in ROOT.rglob("*.py")
        if not set(path.relative_to(ROOT).parts[:1]) & NOT_SHIPPED
        and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    }
    assert modules <= set(wheel_names)


def test_every_data_file_of_a_room_is_in_the_wheel(wheel_names: list[str]) -> None:
    """Kernels' sources, the page's files, the index of model types and its defaults."""
    data = {
        f"kvpareto/{path.relative_to(ROOT).as_posix()}"
        for room in ("planner", "runtime", "calibration", "report")
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".json", ".jsonl", ".cu", ".cuh", ".html", ".css", ".js")
    }
    assert "kvpareto/planner/models/families/model_types.json" in data
    assert data <= set(wheel_names)


def test_every_profile_is_in_the_wheel(wheel_names: list[str]) -> None:
    data = {
        f"kvpareto/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / "profiles").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert data <= set(wheel_names)
    assert any(name.startswith("kvpareto/profiles/models/") for name in wheel_names)


def test_the_base_install_is_light() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {requirement.split(">")[0] for requirement in project["dependencies"]}
    assert names <= {"numpy", "pydantic", "typer", "rich", "huggingface_hub", "platformdirs"}
