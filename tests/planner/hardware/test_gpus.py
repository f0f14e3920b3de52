"""GPUs by name: what people and torch call them, and rates that are dense ones."""

import json

import pytest

from kvpareto.planner.errors import BadInput
from kvpareto.planner.hardware.gpus import find_gpu, list_gpus
from kvpareto.profiles import read

GIB = 2**30


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("4090", "NVIDIA GeForce RTX 4090"),
        ("rtx4090", "NVIDIA GeForce RTX 4090"),
        ("GeForce RTX-4090", "NVIDIA GeForce RTX 4090"),
        ("7900xtx", "AMD Radeon RX 7900 XTX"),
        ("nvidia h200", "NVIDIA H200"),
        ("H100", "NVIDIA H100 SXM5 80GB"),
        ("h100 pcie", "NVIDIA H100 PCIe"),
        ("a6000", "NVIDIA RTX A6000"),
        ("rtx 6000 ada", "NVIDIA RTX 6000 Ada Generation"),
        ("m4 max", "Apple M4 Max"),
        ("5060ti 16gb", "NVIDIA GeForce RTX 5060 Ti 16GB"),
        # what torch.cuda.get_device_name() says
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 SXM5 80GB"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 SXM4 80GB"),
        ("NVIDIA A100-PCIE-40GB", "NVIDIA A100 PCIe 40GB"),
        ("Tesla V100-SXM2-16GB", "NVIDIA V100 SXM2 16GB"),
        ("AMD Instinct MI300X OAM", "AMD Instinct MI300X"),
    ],
)
def test_a_gpu_is_found_by_what_people_and_torch_call_it(said: str, meant: str) -> None:
    assert find_gpu(said).name == meant


@pytest.mark.parametrize("said", ["RTX 6000", "rtx", "4070 ti super gb 6000", "\N{DUCK}", "", "B2"])
def test_an_ambiguous_or_unknown_gpu_is_an_error_with_a_hint(said: str) -> None:
    with pytest.raises(BadInput) as caught:
        find_gpu(said)
    assert caught.value.hint


def test_an_ambiguous_name_lists_the_gpus_it_could_be() -> None:
    with pytest.raises(BadInput, match=r"RTX 6000 Ada.*RTX PRO 6000"):
        find_gpu("RTX 6000")


def test_a_laptop_gpu_is_not_taken_for_the_desktop_one() -> None:
    with pytest.raises(BadInput, match="near: NVIDIA GeForce RTX 4090"):
        find_gpu("NVIDIA GeForce RTX 4090 Laptop GPU")


def test_every_listed_name_and_alias_finds_its_own_gpu() -> None:
    rows = json.loads(read("hardware/gpus.json"))["gpus"]
    assert len(rows) == len(list_gpus()) >= 40
    for row in rows:
        for name in (row["name"], *row.get("aliases", ())):
            assert find_gpu(name).name == row["name"]


def test_rates_are_dense_ones_with_32_bit_accumulation() -> None:
    # Vendor sheets: H100 1979 sparse, A100 624 sparse, RTX 4090 330 with 16-bit accumulation.
    assert find_gpu("H100").fp16_flops == pytest.approx(989.4e12)
    assert find_gpu("A100").fp16_flops == pytest.approx(312e12)
    assert find_gpu("4090").fp16_flops == pytest.approx(165.2e12)
    for gpu in list_gpus():
        assert gpu.fp8_flops is None or gpu.fp8_flops < 2.05 * gpu.fp16_flops, gpu.name


def test_the_h200_carries_what_was_measured_on_it() -> None:
    h200 = find_gpu("H200")
    assert h200.memory_bytes == 143_771 * 2**20
    assert h200.measured_copy == pytest.approx(4.3e12)
    assert h200.measured_matmul == pytest.approx(790e12)
    assert h200.measured_context_bytes == 552_402_944
    assert find_gpu("4090").measured_copy is None


def test_every_gpu_names_its_source_and_its_numbers_are_in_range() -> None:
    for gpu in list_gpus():
        assert gpu.url.startswith("https://"), gpu.name
        assert gpu.provenance in ("datasheet", "derived"), gpu.name
        assert 6 * GIB <= gpu.memory_bytes <= 512 * GIB, gpu.name
        assert 50e9 < gpu.bandwidth < 1e13, gpu.name
        # every GPU reads its memory in 4 ms to 0.7 s and does 20 to 500 operations per byte
        assert 4e-3 < gpu.memory_bytes / gpu.bandwidth < 0.7, gpu.name
        assert 20 < gpu.fp16_flops / gpu.bandwidth < 500, gpu.name
