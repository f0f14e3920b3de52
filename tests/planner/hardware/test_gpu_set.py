"""Several GPUs by one text."""

import pytest

from kvpareto import api
from kvpareto.planner.engines import find_engine
from kvpareto.planner.errors import BadInput
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.gpu_set import find_gpus, gpus_text, more_cards


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("H200", ["H200"]),
        ("2xH100 SXM5", ["H100 SXM5"] * 2),
        ("H200x2", ["H200"] * 2),
        ("4 x A100 80GB", ["A100 80GB"] * 4),
        ("3090+3060", ["3090", "3060"]),
        ("2x3090 + 3060 12GB", ["3090", "3090", "3060 12GB"]),
        ("RTX 4090x2+L4", ["4090", "4090", "L4"]),
    ],
)
def test_texts_and_what_they_mean(text: str, names: list[str]) -> None:
    gpus = find_gpus(text)
    assert list(gpus) == [find_gpu(name) for name in names]
    assert find_gpus(gpus_text(gpus)) == gpus


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("7900xtx", "7900 XTX", 1),
        ("7900 xtx", "7900 XTX", 1),
        ("7900XT", "7900 XT", 1),
        ("rx7900xtx", "7900 XTX", 1),
        ("2x7900xtx", "7900 XTX", 2),
        ("7900xtx x2", "7900 XTX", 2),
        ("7900xtx,7900 xtx", "7900 XTX", 2),
        ("H100,H100", "H100", 2),
        ("3090 & 3090", "3090", 2),
        ("m3max 64", "M3 Max 64GB", 1),
        ("M3Max64", "M3 Max 64GB", 1),
        ("m3 max 64 gb", "M3 Max 64GB", 1),
        ("m4pro 48", "M4 Pro 48GB", 1),
        ("3060 12", "3060 12GB", 1),
        ("a100-80", "A100 80GB", 1),
        ("4090 24", "4090", 1),
        ("2 H100", "H100", 2),
        ("4 A100 80GB", "A100 80GB", 4),
        ("2x 4090", "4090", 2),
        ("2X4090", "4090", 2),
        ("4090 x 2", "4090", 2),
        ("4090 *2", "4090", 2),
        ("4090 (x2)", "4090", 2),
        ("x2 4090", "4090", 2),
        ("dual 3090", "3090", 2),
        ("Two 4090", "4090", 2),
        ("l40sx2", "L40S", 2),
        ("mi300xx2", "MI300X", 2),
        ("mi250x2", "MI250", 2),
        ("mi300x", "MI300X", 1),
    ],
)
def test_odd_spellings(text: str, name: str, count: int) -> None:
    assert list(find_gpus(text)) == [find_gpu(name)] * count


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0xH100", "names no GPU"),
        ("65xH200", "more than 64"),
        ("40xH200+40xL4", "more than 64"),
        ("999999999xH200", "more than 64"),
        ("3090+", "empty part"),
        ("+", "empty part"),
        ("2xZork", "unknown GPU"),
        ("7950xt", "unknown GPU: '7950xt'; near: AMD Radeon RX 7900 XT"),
        ("9080 xt", "unknown GPU: '9080 xt'"),
        ("65 H200", "more than 64"),
        ("3090,", "empty part"),
        ("2xM3 Max", "more than one GPU"),
        ("2x M3 Ultra 512GB", "several machines: Apple M3 Ultra 512GB is part of"),
        ("M3 Ultra 512GB+M4 Max 64GB", "several machines"),
        ("M4 Max 64GB+RTX 4090", "several machines"),
        ("2xGB10", "several machines"),
        ("2x8060S 128GB", "several machines"),
        ("AGX Orin 64GB+L4", "several machines"),
    ],
)
def test_bad_texts(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        find_gpus(text)


@pytest.mark.parametrize("text", ["4xMI300A", "8060S 128GB+RTX 4090", "M4 Max 64GB", "GB10"])
def test_what_one_machine_may_have(text: str) -> None:
    assert find_gpus(text)


def test_a_machine_of_one_chip_is_not_offered_twice() -> None:
    assert more_cards(find_gpus("GB10")) == ()
    assert len(more_cards(find_gpus("H100 SXM5"))) == 2


def test_a_number_of_macs_is_refused_too() -> None:
    with pytest.raises(BadInput, match="several machines") as caught:
        api.plan("Qwen/Qwen3-8B", engine="llama.cpp", gpu="M4 Max 64GB", gpus=2, offline=True)
    assert "--gpu 'M4 Max 64GB' plans for one of them" in caught.value.hint


def test_an_engine_of_one_card_says_so() -> None:
    with pytest.raises(BadInput, match="transformers fills one") as caught:
        api.plan("Qwen/Qwen3-8B", gpu="2xH200", engine="transformers", offline=True)
    assert "plans for one of them" in caught.value.hint
    for engine in ("vllm", "sglang", "llama.cpp"):
        assert engine in caught.value.hint
        assert find_engine(engine).several_cards
