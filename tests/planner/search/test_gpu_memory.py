"""A plan for a GPU has what its driver gives a program, not what the card is sold with."""

import json
from pathlib import Path

import pytest

from kvpareto import api
from kvpareto.cli import run
from kvpareto.planner.errors import BadInput
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.gpus import list_gpus
from kvpareto.planner.search.gpu_memory import (
    DESKTOP_RESERVE,
    budget_of,
    machine_with,
    parse_reserve,
    system_share,
    within_cards,
)

GIB = 2**30
MIB = 2**20

TORCH_SAID = {
    # GiB of torch's own out-of-memory messages, or of cuDeviceTotalMem
    "T4": 14.56,
    "A100 PCIe 40GB": 39.45,
    "A100 80GB": 79.14,
    "H100 SXM": 79.1787,
    "H200": 139.8007,
    "V100 16GB": 15.75,
    "A30": 23.53,
    "L40": 44.40,
    "L40S": 44.53,
    "RTX 6000 Ada": 44.43,
    "A4000": 15.61,
    "3060 12GB": 11.75,
    "3070": 7.76,
    "3080 10GB": 9.78,
    "3090": 23.6,
    "4060 Ti 16GB": 15.55,
    "4070 Ti": 11.73,
    "4090": 23.52,
    "5090": 31.36,
    "GB10": 121.69,
    # Metal's recommended working set
    "M3 16GB": 11.84,
    "M2 Max 64GB": 48.0,
    "M4 Max 128GB": 107.52,
}
DRIVER_SAID = {  # nvidia-smi's total in MiB, of which CUDA gets less
    "L4": 23_034,
    "A10": 23_028,
    "A10G": 23_028,
    "A40": 46_068,
    "L40S": 46_068,
    "B200": 183_359,
}


@pytest.mark.parametrize(("name", "gib"), TORCH_SAID.items())
def test_no_budget_is_above_what_torch_was_seen_to_have(name: str, gib: float) -> None:
    gpu = find_gpu(name)
    budget, reserve = budget_of(gpu, "0")
    assert (budget, reserve) == (gpu.memory_bytes, 0)
    assert 0.83 * gib * GIB < budget <= gib * GIB
    assert budget_of(gpu, None)[0] <= budget


@pytest.mark.parametrize(("name", "mib"), DRIVER_SAID.items())
def test_no_budget_is_above_what_the_driver_keeps_of_its_total(name: str, mib: int) -> None:
    # 451 MiB of a T4 and 881 of an A100 80GB were seen to be kept
    assert 0.95 * mib * MIB < find_gpu(name).memory_bytes <= (mib - 900) * MIB


def test_a_budget_that_was_typed_ends_where_the_card_does() -> None:
    """Who types the size that a card is sold with means all of it; more is a mistake."""
    card = find_gpu("4090")
    assert within_cards(12 * 10**9, (card,)) == 12 * 10**9
    assert within_cards(24 * GIB, (card,)) == card.memory_bytes < 24 * GIB
    assert within_cards(48 * GIB, (card, card)) == 2 * card.memory_bytes
    assert within_cards(80 * GIB, ()) == 80 * GIB
    with pytest.raises(BadInput, match="more than NVIDIA GeForce RTX 4090 has"):
        within_cards(24 * GIB + 1, (card,))


def test_a_budget_counts_where_what_the_card_gives_is_unsure_or_set_by_its_owner() -> None:
    apple = find_gpu("M2 Max 64GB")
    assert apple.unified
    assert within_cards(60 * GIB, (apple,)) == 60 * GIB
    with pytest.raises(BadInput):
        within_cards(65 * GIB, (apple,))
    unsure = next(gpu for gpu in list_gpus() if gpu.memory_estimated and not gpu.unified)
    assert within_cards(unsure.marketing_bytes, (unsure,)) == unsure.marketing_bytes


def test_a_memory_that_is_shared_is_counted_once() -> None:
    """Of an Apple chip --ram is the same memory; parts of it that sum to no more are told apart."""
    words = {"engine": "llama.cpp", "context": "4k", "offline": True}
    for more in ({}, {"budget": "8GB"}):
        with pytest.raises(BadInput, match="counted twice"):
            api.plan("Qwen/Qwen3-8B", gpu="M4 16GB", ram="16GB", **more, **words)
    assert api.plan("Qwen/Qwen3-8B", gpu="M4 16GB", ram="6GB", budget="8GB", **words)["fits"]
    assert api.plan("Qwen/Qwen3-8B", gpu="4060", ram="16GB", **words)["fits"]


def test_the_budget_of_every_card_is_less_than_it_is_sold_with() -> None:
    cards = list_gpus()
    assert len(cards) >= 40
    for gpu in cards:
        budget, reserve = budget_of(gpu, None)
        assert budget + reserve == gpu.memory_bytes
        # The least that any card was seen to keep is 0.6 % (torch's 143,156 of 144,384 MiB)
        assert 0.66 * gpu.marketing_bytes <= gpu.memory_bytes <= 0.992 * gpu.marketing_bytes
        assert reserve == (DESKTOP_RESERVE if gpu.consumer else 0), gpu.name


def test_metal_gives_the_part_that_was_measured_or_less() -> None:
    assert find_gpu("M1 16GB").memory_bytes == int(0.74 * 16 * GIB)
    assert find_gpu("M4 Max 128GB").memory_bytes == int(0.84 * 128 * GIB)
    parts = {}
    for gpu in (g for g in list_gpus() if g.vendor == "apple"):
        parts[gpu.marketing_bytes >> 30] = round(gpu.memory_bytes / gpu.marketing_bytes, 6)
    assert set(parts) >= {8, 16, 18, 24, 32, 36, 48, 64, 96, 128, 192, 256, 512}
    ordered = [parts[size] for size in sorted(parts)]
    assert ordered == sorted(ordered)
    assert all(0.73 < part < 0.85 for size, part in parts.items() if size >= 16)


def test_a_desktop_is_left_its_share_of_consumer_cards_only() -> None:
    consumer = {g.name for g in list_gpus() if g.consumer}
    assert {"NVIDIA GeForce RTX 4090", "AMD Radeon RX 7900 XTX", "NVIDIA TITAN RTX"} <= consumer
    assert not consumer & {"NVIDIA T4", "NVIDIA RTX A6000", "AMD Radeon PRO W7900", "Apple M1 16GB"}
    gpu = find_gpu("4090")
    assert budget_of(gpu, "1GiB") == (gpu.memory_bytes - GIB, GIB)
    assert (
        parse_reserve("0")
        == parse_reserve(" 00 ")
        == parse_reserve("0GB")
        == parse_reserve("0.0 g")
        == 0
    )
    for wrong in ("", "much", "-1GB"):
        with pytest.raises(BadInput):
            parse_reserve(wrong)
    with pytest.raises(BadInput, match="leaves nothing"):
        budget_of(gpu, "24GiB")


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict, str]:
    code = run(["plan", *arguments, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if code == 0 else {}, err


def test_a_plan_says_what_the_card_gives_and_what_is_left_to_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["-m", "Qwen/Qwen3-8B", "--context", "4k", "--gpu", "4090"]
    code, found, _ = plan(capsys, *asked)
    gpu = find_gpu("4090")
    assert (code, found["budget"]) == (0, gpu.memory_bytes - 500_000_000)
    memory = found["gpu_memory"]
    assert (memory["marketing"], memory["reported"]) == (24 * GIB, gpu.memory_bytes)
    assert memory["reserve"] == 500_000_000
    assert any("500.00 MB" in w and "--reserve 0" in w for w in found["warnings"])
    code, found, _ = plan(capsys, *asked, "--reserve", "0")
    assert found["budget"] == gpu.memory_bytes
    code, found, _ = plan(capsys, *asked, "--budget", "24GiB")
    assert found["gpu_memory"]["reserve"] is None
    assert found["budget"] == gpu.memory_bytes
    assert any("ends where NVIDIA GeForce RTX 4090 does" in w for w in found["warnings"])
    code, _, err = plan(capsys, *asked, "--budget", "8GB", "--reserve", "1GB")
    assert code == 2
    assert "--reserve beside --budget" in err


def test_qwen_7b_does_not_fit_a_t4_in_16_bits(capsys: pytest.CaptureFixture[str]) -> None:
    code, found, _ = plan(
        capsys, "-m", "Qwen/Qwen2.5-7B-Instruct", "--gpu", "T4", "--context", "2k"
    )
    assert code == 0
    assert found["budget"] <= 14.56 * GIB
    assert found["recommended"]["config"].startswith("w8")
    assert found["dtype"] == "float16"
    assert any("has no bfloat16" in w for w in found["warnings"])


@pytest.mark.parametrize(
    ("gpu", "can", "why"),
    [
        ("4090", True, ""),
        ("T4", False, "bfloat16"),
        ("MI300X", False, "CUDA"),
        ("M1 16GB", False, "CUDA"),
        ("GB10", False, "ARM"),
        ("GH200 96GB", False, "ARM"),
    ],
)
def test_runnable_is_where_the_runtime_runs(
    gpu: str, can: bool, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, found, _ = plan(capsys, "-m", "Qwen/Qwen3-0.6B", "--gpu", gpu, "--context", "1k")
    assert found["runnable"] is can
    said = [w for w in found["warnings"] if w.startswith("planned only")]
    assert [why in w for w in said] == ([] if can else [True])


def test_max_context_says_what_the_card_gives(capsys: pytest.CaptureFixture[str]) -> None:
    code, found, _ = plan(capsys, "-m", "Qwen/Qwen3-0.6B", "--gpu", "L4", "--max-context")
    assert code == 0
    assert any("NVIDIA L4 gives programs 21.49 of its 24 GiB" in w for w in found["warnings"])


def test_profiles_show_both_sizes_and_the_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profiles", "show", "T4"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "16 GiB" in shown
    assert "14.55 GiB (15.63 GB) (CatVTON issue 133" in shown


def test_the_file_marks_every_memory_as_seen_or_estimated() -> None:
    file = Path(__file__).parents[3] / "profiles" / "hardware" / "gpus.json"
    for row in json.loads(file.read_text("utf-8"))["gpus"]:
        if "sizes_gib" not in row:
            assert ("seen" in row["reported"]) != ("estimate" in row["reported"]), row["name"]


@pytest.mark.parametrize("free", [1, 3 * 10**8, 10**9, 9 * 10**9, 9 * 10**9 + 1, 10**11])
def test_a_machine_of_that_size_leaves_what_is_needed(free: int) -> None:
    size = machine_with(free)
    assert size - system_share(size) >= free
    less = size - 2
    assert less - system_share(less) < free
