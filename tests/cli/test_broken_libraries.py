"""Half-installed libraries: whatever their import raises, a command says which, and what mends it.

Each stand-in is a package of the library's name, found before the real one, in a process of its
own: what is imported once stays imported.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kvpareto.planner.errors import MissingDependency
from kvpareto.planner.libraries import import_failure, importing
from kvpareto.report.failure import TRACEBACK, failure_of
from tests.support import data_files
from tests.support.gguf_files import LLAMA, llama_tensors, write_gguf

ROOT = Path(__file__).parents[2]
CUDART = "libcudart.so.12: cannot open shared object file"
RUN = ["run", "-m", "recall", "hi"]
LLAMA_CPP = ["verify", "--engine", "llama.cpp", "-m", "small.gguf", "--budget", "1GB"]
HUB = ["plan", "-m", "nobody/nothing", "--budget", "8GB"]
BROKEN = [
    ("torch", f"raise OSError({CUDART!r})", RUN, "torch", f"OSError: {CUDART}"),
    ("transformers", "raise RuntimeError('ABI')", ["calibrate"], "transformers", "RuntimeError"),
    ("sklearn", "from ._lost import x", ["calibrate"], "scikit-learn", "sklearn._lost"),
    ("xllamacpp", f"raise OSError({CUDART!r})", LLAMA_CPP, "xllamacpp", f"OSError: {CUDART}"),
    ("xllamacpp", "import os; os.kill(os.getpid(), 9)", LLAMA_CPP, "xllamacpp", "signal 9"),
    ("huggingface_hub", "raise ValueError('x')", HUB, "huggingface-hub", "ValueError: x"),
]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Write a package of this name and code; the folder that it is found in."""

    def write(name: str, code: str) -> Path:
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "__init__.py").write_text(code + "\n")
        return tmp_path / "site"

    return write


@pytest.mark.parametrize(
    ("name", "code", "command", "distribution", "said"),
    BROKEN,
    ids=[f"{name}-{command[0]}-{i}" for i, (name, _, command, _, _) in enumerate(BROKEN)],
)
def test_a_broken_library_is_named_with_what_mends_it(
    name: str, code: str, command: list[str], distribution: str, said: str,
    stand_in: Callable[[str, str], Path], tmp_path: Path,
) -> None:  # fmt: skip
    place = stand_in(name, code)
    for before in ("sklearn", "torch") * (name == "transformers"):
        stand_in(before, "")  # `calibrate` imports them first
    write_gguf(tmp_path / "small.gguf", LLAMA, llama_tensors())
    environment = {n: v for n, v in os.environ.items() if n != TRACEBACK} | {
        "PYTHONPATH": os.pathsep.join((str(place), str(ROOT.parent))),
        "KVPARETO_HOME": str(tmp_path / "home"),
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "0",
    }
    code_ = "import sys; from kvpareto.cli import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code_, *command, "--json"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert (done.returncode, document["exit_code"], document["missing"]) == (3, 3, name), document
    assert f"{name}, which is installed but cannot be imported: " in document["error"]
    assert said in document["error"]
    assert document["install"].endswith(f" install --force-reinstall {distribution}")
    assert document["install"] in document["hint"]


def test_what_a_removed_library_left_behind_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty folder is a package to Python, without anything in it."""
    (tmp_path / "gptqmodel").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    for use in ("from gptqmodel import GPTQModel", "import gptqmodel; gptqmodel.GPTQModel"):
        with (
            pytest.raises(MissingDependency, match="gptqmodel, which is installed but") as found,
            importing("quantizing", "awq"),
        ):
            exec(use)
        assert "--force-reinstall gptqmodel" in found.value.hint
    sys.modules.pop("gptqmodel")


def test_what_an_older_version_lacks_is_no_fault_of_ours() -> None:
    error = ImportError("cannot import name 'GgufConfig' from 'transformers'", name="transformers")
    found = failure_of(error)
    assert (found.code, found.fault) == (3, False)
    assert "transformers, which is installed but cannot be imported" in found.message


def test_a_library_that_is_not_there_is_missing() -> None:
    with pytest.raises(MissingDependency) as found, importing("drawing figures", "figures"):
        raise ModuleNotFoundError("x", name="gptqmodel.somewhere")
    assert found.value.message == "drawing figures needs gptqmodel, which is not installed"
    assert "[figures]" in found.value.hint


HIDE = """
import importlib.machinery, importlib.metadata, sys
gone, found = sys.argv[1], importlib.machinery.PathFinder.find_spec
listed = importlib.metadata.distribution
def find_spec(name, path=None, target=None):
    return None if name.split(".")[0] == gone else found(name, path, target)
def distribution(name):
    if name == gone:
        raise importlib.metadata.PackageNotFoundError(name)
    return listed(name)
importlib.machinery.PathFinder.find_spec = find_spec
importlib.metadata.distribution = distribution
sys.argv = ["kvpareto", *sys.argv[2:], "--json"]
from kvpareto.__main__ import main
main()
"""
STORIES = str(data_files.STORIES)


@pytest.mark.parametrize(
    ("gone", "command", "asks"),
    [
        ("safetensors", ["run", "-m", STORIES, "hi"], ""),
        ("tokenizers", ["verify", "-m", STORIES, "--budget", "2GB", "--device", "cpu"], ""),
        ("regex", ["calibrate", STORIES, "--device", "cpu"], ": transformers asks for it"),
        ("pydantic_core", ["calibrate", STORIES], ": pydantic asks for it"),
        ("shellingham", ["plan", STORIES, "--budget", "1GB"], ": typer asks for it"),
        ("numpy", ["plan", STORIES, "--budget", "1GB"], ""),
    ],
)
def test_the_library_that_is_missing_is_named_and_not_the_one_that_asks_for_it(
    gone: str, command: list[str], asks: str, tmp_path: Path
) -> None:
    environment = {n: v for n, v in os.environ.items() if n != TRACEBACK} | {
        "KVPARETO_HOME": str(tmp_path), "PYTHONPATH": str(ROOT.parent),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", HIDE, gone, *command], env=environment, capture_output=True,
        text=True, timeout=100, check=False,
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert (done.returncode, document["missing"]) == (3, gone), document
    assert document["error"].endswith(f" needs {gone}, which is not installed{asks}")
    assert document["hint"] == f"run {document['install']}"
    assert gone in document["install"] or "[" in document["install"]


def test_what_a_library_says_is_missing_is_believed_where_it_is_not_there() -> None:
    for text in ("it requires `zork`. You can install it with `pip install zork>=1`", "x"):
        error = ValueError(text)
        error.__cause__ = ModuleNotFoundError("zork", name="zork.part") if text == "x" else None
        assert import_failure(error) is None  # nobody known asks for it
    said = "it requires `{}`. You can install it with `pip install -U {}`"
    found = import_failure(ValueError(said.format("gptqmodel", "gptqmodel")), "running")
    assert found is not None
    assert found.message == "running needs gptqmodel, which is not installed"
    assert import_failure(ValueError(said.format("numpy", "numpy"))) is None


def test_what_was_tried_and_done_without_is_not_blamed() -> None:
    error = OSError("no such file")
    error.__context__ = ModuleNotFoundError("x", name="gptqmodel")
    assert import_failure(error) is None


def test_other_errors_stay_what_they_are() -> None:
    assert import_failure(ModuleNotFoundError("x", name="kvpareto.gone")) is None
    assert import_failure(OSError("no such file")) is None
    assert import_failure(AttributeError("x", obj=os, name="gone")) is None
    with pytest.raises(ZeroDivisionError), importing("run", "runtime"):
        raise ZeroDivisionError
