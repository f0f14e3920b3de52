"""Names that the shell completes."""

import os
import subprocess
import sys

from kvpareto.planner.hardware.gpu_names import find_gpu, gpu_argument
from kvpareto.planner.hardware.gpus import list_gpus
from kvpareto.report import completion


def test_models_by_their_beginning_or_a_word_inside() -> None:
    assert "Qwen/Qwen3-8B" in completion.models("Qwen/Qwen3")
    assert "Qwen/Qwen3-8B" in completion.models("qwen3-8")
    assert "recall" in completion.models("rec")
    assert completion.models("zork") == []


def test_gpus_engines_and_choices() -> None:
    assert completion.gpus("RTX-409")[0] == "RTX-4090"
    assert completion.gpus("4090")[0] == "4090"
    assert "8060S-32GB" in completion.gpus("80")
    assert completion.gpus("au") == ["auto"]
    assert completion.engines("kv") == ["kvpareto"]
    assert completion.objectives("") == ["accuracy", "latency", "memory"]
    assert completion.task_kinds("long") == ["long-reasoning"]


def test_every_gpu_that_is_offered_is_one_word_and_means_that_gpu() -> None:
    for gpu in list_gpus():
        name = "-".join(gpu_argument(gpu).split())
        assert name in completion.gpus(name)
        assert find_gpu(name) == gpu
    for name in completion.gpus("4"):
        assert " " not in name
        assert find_gpu(name).name.replace(" ", "-").endswith(name)


def test_the_shell_gets_them() -> None:
    asked = {
        "_KVPARETO_COMPLETE": "complete_bash",
        "COMP_WORDS": "kvpareto plan --model Qwen/Qwen3-8",
    }
    code = "from kvpareto.cli import application; application()(prog_name='kvpareto')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **asked, "COMP_CWORD": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Qwen/Qwen3-8B" in done.stdout.split()
