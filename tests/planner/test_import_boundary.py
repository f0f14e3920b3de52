"""The planner starts in the time Python starts: it never imports torch, transformers or sklearn."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "sklearn", "scipy", "accelerate", "huggingface_hub", "triton")

_PROBE = """
import importlib, pkgutil, sys
{extra}
import kvpareto.planner, kvpareto.cli
for module in pkgutil.walk_packages(kvpareto.planner.__path__, "kvpareto.planner."):
    importlib.import_module(module.name)
print(*sorted({heavy} & sys.modules.keys()))
"""


def heavy_modules_loaded(extra: str = "", cwd: Path | None = None) -> str:
    """Names of heavy modules that a fresh interpreter holds after importing all of the planner."""
    code = _PROBE.format(heavy=set(HEAVY), extra=extra)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=cwd
    )
    return done.stdout.strip()


def test_the_planner_and_the_command_line_import_nothing_heavy(tmp_path: Path) -> None:
    assert heavy_modules_loaded(cwd=tmp_path) == ""


@pytest.mark.parametrize("name", ["torch", "sklearn"])
def test_the_guard_can_fail(name: str, tmp_path: Path) -> None:
    assert name in heavy_modules_loaded(f"import {name}", cwd=tmp_path).split()


_PLAN = """
import sys
from kvpareto import cli
code = cli.run(["plan", "-m", "Qwen/Qwen2.5-7B-Instruct", "--budget", "12GB", "--offline"])
print(code, *sorted(sys.modules), file=sys.stderr)
"""


def test_a_plan_of_a_plain_model_imports_only_what_it_needs(tmp_path: Path) -> None:
    """Each of these takes a hundredth of a cold plan, or several."""
    done = subprocess.run(
        [sys.executable, "-c", _PLAN], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    code, *modules = done.stderr.split()
    assert code == "0"
    assert "kvpareto.planner.search.recommend" in modules
    unneeded = {
        *("pydantic", "huggingface_hub", "tempfile"),
        "kvpareto.cli.calibrate",
        "kvpareto.cli.report_ui",
        "kvpareto.planner.models.quantization.quantization_config",
        "kvpareto.planner.models.hub_get",
        "kvpareto.planner.models.hub_ranges",
        "kvpareto.planner.memory.weight_files",
        "kvpareto.planner.memory.activation.blocks.recurrent",
        "kvpareto.planner.search.placed.table",
        "kvpareto.planner.search.infeasible",
        "kvpareto.planner.formats.gguf_types",
    }
    assert not unneeded & set(modules)


_VERIFY = """
import sys
from kvpareto import cli
code = cli.run(["verify", "--engine", "llama.cpp", "-m", "recall", "--budget", "2GB", "--offline"])
print(code, *sorted(sys.modules), file=sys.stderr)
"""


def test_llama_cpp_is_verified_without_torch(tmp_path: Path) -> None:
    """Its extra brings none."""
    done = subprocess.run(
        [sys.executable, "-c", _VERIFY], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    code, *modules = done.stderr.splitlines()[-1].split()
    assert code == "2"
    assert "kvpareto.calibration.llama_cpp.verify" in modules
    assert not {"torch", "transformers"} & set(modules)
