"""`--gpu auto`, with made-up drivers' tools on the PATH."""

import json
import os
import stat
import time
from pathlib import Path

import pytest

from kvpareto.cli import run
from kvpareto.planner.errors import BadInput, MissingDependency
from kvpareto.planner.hardware import detect_gpu as module
from kvpareto.planner.hardware.detect_gpu import detect_gpu

MIB = 2**20


class Tools:
    """A folder that is the whole PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def nvidia(self, *lines: str) -> None:
        self.add("nvidia-smi", "\n".join(f"echo '{line}'" for line in lines))


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(module, "SYSFS", tmp_path / "drm")
    return Tools(folder)


def test_nvidia_smi_says_name_total_and_what_it_keeps(tools: Tools) -> None:
    tools.nvidia("NVIDIA H200, 143771, 616")
    gpu = detect_gpu()
    assert gpu.name == "NVIDIA H200"
    assert gpu.memory_bytes == (143_771 - 616) * MIB
    assert (gpu.here, gpu.memory_estimated) == (True, False)
    assert gpu.memory_source == "this machine's driver"


def test_an_old_nvidia_smi_does_not_say_what_it_keeps(tools: Tools) -> None:
    tools.add("nvidia-smi", 'case "$1" in *reserved*) exit 6;; esac; echo "Tesla T4, 15109"')
    gpu = detect_gpu()
    # 14.56 GiB by the profile, 15,109 MiB by this driver, which is more
    assert (gpu.name, gpu.memory_bytes) == ("NVIDIA T4", int(14.555 * 2**30))


def test_the_memory_tells_cards_of_one_name_apart(tools: Tools) -> None:
    tools.nvidia("NVIDIA GeForce RTX 3060, 12288, 250", "NVIDIA GeForce RTX 3060, 12288, 250")
    assert detect_gpu().name == "NVIDIA GeForce RTX 3060 12GB"


def test_a_driver_without_a_size_leaves_the_profiles(tools: Tools) -> None:
    tools.nvidia("NVIDIA GB10, [N/A], [N/A]")
    gpu = detect_gpu()
    assert (gpu.name, gpu.memory_bytes) == ("NVIDIA GB10", int(101.3 * 2**30))


def test_cards_that_differ_are_asked_back(tools: Tools) -> None:
    tools.nvidia("NVIDIA GeForce RTX 4090, 24564, 480", "Tesla T4, 15360, 450")
    with pytest.raises(BadInput, match="differ: NVIDIA GeForce RTX 4090, Tesla T4"):
        detect_gpu()


def test_an_unknown_card_is_named_with_its_memory(tools: Tools) -> None:
    tools.nvidia("NVIDIA GeForce GTX 980 Ti, 11264, 200")
    with pytest.raises(BadInput, match="GTX 980 Ti") as caught:
        detect_gpu()
    assert caught.value.hint == "plan by its memory: --budget 11.6GB"  # 11,064 MiB


def test_rocm_smi(tools: Tools) -> None:
    card = {"Card Series": "AMD Instinct MI300X OAM", "VRAM Total Memory (B)": "206141652992"}
    tools.add("rocm-smi", f"echo '{json.dumps({'card0': card, 'system': {}})}'")
    gpu = detect_gpu()
    assert (gpu.name, gpu.memory_bytes) == ("AMD Instinct MI300X", 206_141_652_992)


def test_amdgpu_without_rocm(tools: Tools) -> None:
    device = module.SYSFS / "card1" / "device"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x1002\n")
    (device / "mem_info_vram_total").write_text("25753026560\n")
    (device / "product_name").write_text("Radeon RX 7900 XTX\n")
    gpu = detect_gpu()
    assert (gpu.name, gpu.memory_bytes) == ("AMD Radeon RX 7900 XTX", 25_753_026_560)


@pytest.mark.parametrize(
    ("limit", "expected"), [("0", int(0.75 * 64 * 2**30)), ("57344", 57_344 * MIB)]
)
def test_macos(tools: Tools, limit: str, expected: int) -> None:
    tools.add(
        "sysctl",
        f'case "$2" in iogpu*) echo {limit};; *) echo "Apple M3 Max"; echo 68719476736;; esac',
    )
    gpu = detect_gpu()
    assert (gpu.name, gpu.memory_bytes) == ("Apple M3 Max 64GB", expected)


def test_an_intel_mac_and_linux_sysctl_are_no_apple_chip(tools: Tools) -> None:
    tools.add("sysctl", 'echo "Intel(R) Core(TM) i9"; echo 68719476736')
    with pytest.raises(MissingDependency):
        detect_gpu()


@pytest.mark.parametrize(
    "script",
    ["exit 9", "echo 'NVIDIA-SMI has failed'; exit 9", "", "echo ', ,'", "sleep 30"],
    ids=["fails", "fails-with-text", "silent", "nonsense", "hangs"],
)
def test_a_tool_that_does_not_answer_names_no_gpu(
    tools: Tools, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    if "sleep" in script:
        script = f"exec {next(p for p in ('/bin/sleep', '/usr/bin/sleep') if os.path.exists(p))} 30"
    for name in ("nvidia-smi", "rocm-smi", "sysctl"):
        tools.add(name, script)
    started = time.monotonic()
    with pytest.raises(MissingDependency, match="no GPU was found"):
        detect_gpu()
    assert time.monotonic() - started < 20  # a tool that hangs would take 30 seconds


def test_the_command_plans_for_it(tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plan", "-m", "Qwen/Qwen3-0.6B", "--gpu", "auto", "--context", "1k", "--json"]
    assert run(asked) == 3
    err = capsys.readouterr().err
    assert err.splitlines()[0].startswith("error: no GPU was found in this machine")
    assert "--budget 12GB" in err
    tools.nvidia("NVIDIA L4, 23034, 460")
    assert run(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["gpu"], found["budget"]) == ("NVIDIA L4", (23_034 - 460) * MIB)
