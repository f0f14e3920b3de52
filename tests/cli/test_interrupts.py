"""Ctrl-C at any moment of a command: one whole document, or one line and exit code 130."""

import json
import os
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import pytest

import kvpareto
from tests.support.command_lines import (
    QWEN,
    STORIES,
)


def command(*arguments: str, **environment: str) -> dict[str, Any]:
    return {
        "args": [sys.executable, "-m", "kvpareto", *arguments],
        "env": {**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        "text": True,
    }


_SLOW_IMPORT = """
import time
from array import array
try:
    open({mark!r}, "w").close()
    time.sleep(30)
except BaseException:  # what a library does that swallows it
    pass
"""


@pytest.mark.parametrize("as_json", [True, False])
def test_ctrl_c_inside_an_import_ends_the_command(as_json: bool, tmp_path: Path) -> None:
    mark = tmp_path / "importing"
    (tmp_path / "sklearn.py").write_text(_SLOW_IMPORT.format(mark=str(mark)))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    asked = command("calibrate", STORIES, *["--json"] * as_json, PYTHONPATH=path)
    process = subprocess.Popen(**asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not mark.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert (json.loads(out)["exit_code"] == 130) if as_json else out == ""


_CTRL_C_AT = """
import os, signal, sys
from kvpareto import __main__ as entry
from kvpareto.report import output
def at(module, name, when):
    whole = getattr(module, name)
    def cut(*given, **named):
        if when == "before":
            os.kill(os.getpid(), signal.SIGINT)
        found = whole(*given, **named)
        if when == "after":
            os.kill(os.getpid(), signal.SIGINT)
        return found
    setattr(module, name, cut)
{patch}
sys.argv = ["kvpareto", *{arguments!r}]
entry.main()
"""


@pytest.mark.parametrize(
    ("patch", "is_whole"),
    [
        ("from kvpareto import api; at(api, 'plan', 'before')", False),
        ("from kvpareto.cli import command_line; at(command_line, '_call', 'after')", False),
        ("at(output, 'to_json', 'before')", True),
        ("at(output, 'print_json', 'after')", True),
        ("from kvpareto.cli import app; at(app, 'run', 'after')", True),
    ],
    ids=["planning", "planned", "writing", "written", "leaving"],
)
def test_ctrl_c_leaves_one_whole_document(patch: str, is_whole: bool) -> None:
    arguments = ["plan", QWEN, "--budget", "12GB", "--offline", "--json"]
    code = _CTRL_C_AT.format(patch=patch, arguments=arguments)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stderr.splitlines()[:1] == ["interrupted"]
    assert found.returncode == 130
    document = json.loads(found.stdout)
    assert ("recommended" in document) if is_whole else document["exit_code"] == 130


def test_ctrl_c_of_a_command_that_closes_something_is_a_failure() -> None:
    patch = "from kvpareto.calibration import calibrate as c; at(c, 'load_model', 'before')"
    code = _CTRL_C_AT.format(patch=patch, arguments=["calibrate", STORIES, "--json"])
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (130, "interrupted\n")
    assert json.loads(found.stdout)["error"] == "interrupted"


_FINALIZED = """
class Closed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
"""


@pytest.mark.parametrize("lasting", ["", "while True: time.sleep(0.01)"], ids=["once", "waiting"])
def test_ctrl_c_in_a_finalizer_is_not_lost(lasting: str) -> None:
    """Python drops what is raised there."""
    patch = (
        "import time\nfrom kvpareto.calibration import calibrate as c\n" + _FINALIZED
        + "def load(*a, **k):\n    Closed()\n    " + (lasting or "time.sleep(5)")
        + "\nc.load_model = load"
    )  # fmt: skip
    code = _CTRL_C_AT.format(patch=patch, arguments=["calibrate", STORIES, "--json"])
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (130, "interrupted\n")
    assert json.loads(found.stdout)["error"] == "interrupted"


def test_ctrl_c_while_the_interpreter_is_taken_apart_changes_nothing() -> None:
    patch = "import types; sys.modules['torch'] = types.ModuleType('torch')\n" + _FINALIZED
    code = _CTRL_C_AT.format(
        patch=patch + "sys.modules['torch'].last = Closed()",
        arguments=["profiles", "show", "H200", "--json"],
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
    assert json.loads(found.stdout)["name"] == "NVIDIA H200"


def _wait_until_full(pipe: Any) -> None:
    """Until a write into `pipe` waits for a reader, whatever the machine's load."""
    import fcntl
    import termios

    held, size = array("i", [0]), fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
    deadline = time.monotonic() + 60
    while held[0] < size:
        assert time.monotonic() < deadline, f"{held[0]} of {size} bytes"
        time.sleep(0.01)
        fcntl.ioctl(pipe, termios.FIONREAD, held)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much a pipe holds")
def test_ctrl_c_while_a_pipe_is_full_cuts_nothing() -> None:
    patch = "at(output, 'to_json', 'after')"
    code = _CTRL_C_AT.format(
        patch=patch, arguments=["plan", QWEN, "--budget", "24GB", "--offline", "--json"]
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _wait_until_full(process.stdout)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert "recommended" in json.loads(out)


def test_ctrl_c_is_taken_over_before_anything_else_is_imported() -> None:
    code = "import os, sys; had = set(sys.modules); import kvpareto.interrupt; " \
        "print(sorted(set(sys.modules) - had))"  # fmt: skip
    # -S: what an environment's own files import at its start is not ours
    where = os.environ | {"PYTHONPATH": str(Path(kvpareto.__file__).parents[1])}
    found = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env=where
    )
    assert found.stdout.strip() == str(["__future__", "atexit", "kvpareto", "kvpareto.interrupt"])


_CTRL_C_BEFORE = """
import sys
class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == "kvpareto.interrupt":
            sys.meta_path.remove(self)
            raise KeyboardInterrupt
sys.meta_path.insert(0, Pressed())
sys.argv = ["kvpareto", "plan", *sys.argv[1:]]
import kvpareto.__main__
"""


@pytest.mark.parametrize("word", ["--json", "--json=1", "-m"])
def test_ctrl_c_before_it_is_taken_over_is_a_document_too(word: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", _CTRL_C_BEFORE, word], capture_output=True, text=True
    )
    assert (found.returncode, found.stderr) == (130, "interrupted\n")
    assert (found.stdout == "") if word == "-m" else json.loads(found.stdout)["exit_code"] == 130
