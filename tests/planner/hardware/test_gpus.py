"""GPUs by name: what people and torch call them, and rates that are dense ones."""

import pytest

from kvpareto.planner.errors import BadInput
from kvpareto.planner.hardware.gpu_names import candidates, find_gpu
from kvpareto.planner.hardware.gpus import list_gpus, named_gpus
from kvpareto.report.profiles import show_document

GIB = 2**30


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("4090", "NVIDIA GeForce RTX 4090"),
        ("rtx4090", "NVIDIA GeForce RTX 4090"),
        ("GeForce RTX-4090", "NVIDIA GeForce RTX 4090"),
        ("7900xtx", "AMD Radeon RX 7900 XTX"),
        ("nvidia h200", "NVIDIA H200"),
        ("H100 SXM", "NVIDIA H100 SXM5 80GB"),
        ("h100 pcie", "NVIDIA H100 PCIe"),
        ("H100", "NVIDIA H100 SXM5 80GB"),  # the usual one of three, said in its note
        ("H100 80GB", "NVIDIA H100 SXM5 80GB"),
        ("a6000", "NVIDIA RTX A6000"),
        ("rtx 6000 ada", "NVIDIA RTX 6000 Ada Generation"),
        ("m4 max 64 gb", "Apple M4 Max 64GB"),
        ("M1 16GB", "Apple M1 16GB"),
        ("3060 12GB", "NVIDIA GeForce RTX 3060 12GB"),
        ("4090 laptop", "NVIDIA GeForce RTX 4090 Laptop GPU"),
        ("MI300A", "AMD Instinct MI300A"),
        ("AMD Instinct MI308X", "AMD Instinct MI308X"),
        ("mi308", "AMD Instinct MI308X"),
        ("MI250", "AMD Instinct MI250 (one die)"),
        ("AMD Instinct MI100", "AMD Instinct MI100"),
        ("9070 xt", "AMD Radeon RX 9070 XT"),
        ("R9700", "AMD Radeon AI PRO R9700"),
        ("strix halo 128gb", "AMD Radeon 8060S 128GB"),
        ("Ryzen AI Max+ 395 96GB", "AMD Radeon 8060S 96GB"),
        ("b580", "Intel Arc B580"),
        ("Intel Arc Pro B60", "Intel Arc Pro B60"),
        ("Gaudi 3", "Intel Gaudi 3"),
        ("Tesla P40", "NVIDIA Tesla P40"),
        ("GTX 1080 Ti", "NVIDIA GeForce GTX 1080 Ti"),
        ("2060 super", "NVIDIA GeForce RTX 2060 Super"),
        ("NVIDIA H20", "NVIDIA H20"),
        ("H800", "NVIDIA H800 SXM5 80GB"),
        ("L20", "NVIDIA L20"),
        ("NVIDIA GB200", "NVIDIA GB200 (one GPU)"),
        ("AGX Orin 64GB", "NVIDIA Jetson AGX Orin 64GB"),
        ("Jetson AGX Thor", "NVIDIA Jetson AGX Thor 128GB"),
        ("RTX 4000 Ada", "NVIDIA RTX 4000 Ada Generation"),
        ("RTX PRO 4000", "NVIDIA RTX PRO 4000 Blackwell"),
        ("M5 Max 128GB", "Apple M5 Max 128GB"),
        ("1xH200", "NVIDIA H200"),
        ("5060ti 16gb", "NVIDIA GeForce RTX 5060 Ti 16GB"),
        # what torch.cuda.get_device_name() says
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 SXM5 80GB"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 SXM4 80GB"),
        ("NVIDIA A100-PCIE-40GB", "NVIDIA A100 PCIe 40GB"),
        ("Tesla V100-SXM2-16GB", "NVIDIA V100 SXM2 16GB"),
        ("AMD Instinct MI300X OAM", "AMD Instinct MI300X"),
        ("MI300", "AMD Instinct MI300X"),
        ("AMD Instinct MI300X VF", "AMD Instinct MI300X"),
        ("mi325", "AMD Instinct MI325X"),
        ("MI355 288GB", "AMD Instinct MI355X"),
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100 PCIe 40GB"),
        ("NVIDIA A100 80GB PCIe", "NVIDIA A100 PCIe 80GB"),
        ("Tesla T4", "NVIDIA T4"),
        ("Tesla V100-PCIE-32GB", "NVIDIA V100 SXM2 32GB"),
        ("NVIDIA GB10", "NVIDIA GB10"),
        ("NVIDIA GH200 480GB", "NVIDIA GH200 96GB"),
        ("NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 D"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 Laptop GPU"),
        (
            "NVIDIA GeForce RTX 2080 with Max-Q Design",
            "NVIDIA GeForce RTX 2080 with Max-Q Design",
        ),
        (
            "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
            "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
        ),
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


@pytest.mark.parametrize(
    ("said", "choices"),
    [
        ("A100", ["A100 PCIe 40GB", "A100 PCIe 80GB", "A100 SXM4 80GB"]),
        ("V100", ["V100 SXM2 16GB", "V100 SXM2 32GB"]),
        ("GH200", ["GH200 96GB", "GH200 144GB"]),
        ("4060 Ti", ["RTX 4060 Ti 8GB", "RTX 4060 Ti 16GB"]),
        ("RTX 5060 Ti", ["RTX 5060 Ti 8GB", "RTX 5060 Ti 16GB"]),
        ("3080", ["RTX 3080 10GB", "RTX 3080 12GB"]),
        ("3080 Laptop", ["RTX 3080 Laptop GPU 8GB", "RTX 3080 Laptop GPU 16GB"]),
        ("M1", ["M1 8GB", "M1 16GB"]),
        ("Apple M3 Pro", ["M3 Pro 18GB", "M3 Pro 36GB"]),
        ("RTX 3050", ["RTX 3050 6GB", "RTX 3050 8GB"]),
        ("Arc A770", ["Arc A770 8GB", "Arc A770 16GB"]),
        ("W7800", ["PRO W7800 32GB", "PRO W7800 48GB"]),
        ("NVIDIA Thor", ["Jetson T4000 64GB", "Jetson AGX Thor 128GB"]),
        ("m4 max", ["M4 Max 36GB", "M4 Max 48GB", "M4 Max 64GB", "M4 Max 128GB"]),
    ],
)
def test_a_name_that_means_several_cards_is_asked_back(said: str, choices: list[str]) -> None:
    with pytest.raises(BadInput, match="more than one GPU") as caught:
        find_gpu(said)
    assert caught.value.hint == "say which one: " + ", ".join(f"--gpu {c!r}" for c in choices)
    assert len({find_gpu(choice).name for choice in choices}) == len(choices)


def test_the_usual_card_of_a_name_is_meant_and_the_other_is_named() -> None:
    usual = find_gpu("3060")
    assert usual.name == find_gpu("NVIDIA GeForce RTX 3060").name == "NVIDIA GeForce RTX 3060 12GB"
    assert "RTX 3060 8GB" in usual.note
    assert find_gpu("RTX 3060 8GB").name == "NVIDIA GeForce RTX 3060 8GB"


def test_what_a_driver_says_of_the_memory_tells_sizes_apart() -> None:
    for mib, size in ((12_288, "12GB"), (8_192, "8GB")):
        found = find_gpu("NVIDIA GeForce RTX 3060", mib * 2**20)
        assert found.name == f"NVIDIA GeForce RTX 3060 {size}"
    assert find_gpu("Apple M3 Max", 96 * GIB).name == "Apple M3 Max 96GB"
    with pytest.raises(BadInput, match="more than one"):
        find_gpu("Apple M3 Max", 200 * GIB)


@pytest.mark.parametrize(
    ("said", "one"),
    [
        ("2xH100", "H100"),
        ("4x A100 80GB", "A100 80GB"),
        ("2 × 4090", "4090"),
        ("H100 PCIe x8", "H100 PCIe"),
        ("H200x2", "H200"),
    ],
)
def test_several_gpus_are_one_clear_line(said: str, one: str) -> None:
    with pytest.raises(BadInput, match="a plan is for one") as caught:
        find_gpu(said)
    assert caught.value.hint == f"--gpu {one!r} plans for one of them"


def test_every_listed_name_finds_its_own_gpu_and_every_alias_too() -> None:
    assert len(list_gpus()) >= 240
    for gpu, names in named_gpus():
        assert find_gpu(gpu.name) is gpu
        for name in names:
            assert gpu in candidates(name), name


def test_rates_are_dense_ones_with_32_bit_accumulation() -> None:
    # Vendor sheets: H100 1979 sparse, A100 624 sparse, RTX 4090 330 with 16-bit accumulation.
    assert find_gpu("H100 SXM").fp16_flops == pytest.approx(989.4e12)
    assert find_gpu("A100 80GB").fp16_flops == pytest.approx(312e12)
    assert find_gpu("4090").fp16_flops == pytest.approx(165.2e12)
    for gpu in list_gpus():
        assert gpu.fp8_flops is None or gpu.fp8_flops < 2.05 * gpu.fp16_flops, gpu.name


def test_the_h200_carries_what_was_measured_on_it() -> None:
    h200 = find_gpu("H200")
    # nvidia-smi's total, of which it reserves 616 MiB; CUDA had 150,109,880,320 bytes
    assert h200.driver_bytes == 143_771 * 2**20
    assert 139.79 * GIB < h200.memory_bytes <= 150_109_880_320
    assert h200.measured_copy == pytest.approx(4.3e12)
    assert h200.measured_matmul == pytest.approx(790e12)
    assert h200.measured_context_bytes == 552_402_944
    assert find_gpu("4090").measured_copy is None


def test_every_gpu_names_its_source_and_its_numbers_are_in_range() -> None:
    for gpu in list_gpus():
        assert gpu.url.startswith("https://"), gpu.name
        assert gpu.provenance in ("datasheet", "derived"), gpu.name
        assert 5 * GIB <= gpu.memory_bytes < gpu.marketing_bytes <= 512 * GIB, gpu.name
        assert gpu.memory_source, gpu.name
        assert 50e9 < gpu.bandwidth < 1e13, gpu.name
        # every GPU reads its memory in 4 ms to 0.7 s and does 20 to 500 operations per byte
        assert 4e-3 < gpu.memory_bytes / gpu.bandwidth < 0.7, gpu.name
        most = 1000 if "Jetson" in gpu.name else 500  # Thor: a data centre's units, LPDDR5X
        assert 20 < gpu.fp16_flops / gpu.bandwidth < most, gpu.name


def test_what_was_looked_up_is_said_and_nothing_else() -> None:
    checked = {gpu.name for gpu in list_gpus() if gpu.checked}
    assert {"NVIDIA GeForce RTX 4090", "NVIDIA H200", "Intel Gaudi 3"} <= checked
    assert not checked & {"NVIDIA GB300 (one GPU)", "Intel Arc Pro B65", "Apple M5 Pro 64GB"}
    assert all(gpu.checked for gpu in list_gpus() if gpu.differs)
    assert find_gpu("RTX 5880 Ada").differs == "864 GB/s there"
    assert all(gpu.checked.startswith("https://") for gpu in list_gpus() if gpu.checked)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("H200", "memory and bandwidth the same: https://www.techpowerup.com"),
        ("RTX 5880 Ada", "864 GB/s there"),
        ("GB300", "memory and bandwidth not in a second source"),
    ],
)
def test_profiles_show_says_it(name: str, says: str) -> None:
    facts = show_document(find_gpu(name).name)["facts"]
    assert facts["looked up"].startswith(says)
