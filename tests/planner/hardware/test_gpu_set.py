"""Several GPUs by one text."""

import pytest

from kvpareto import api
from kvpareto.planner.errors import BadInput
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.gpu_set import find_gpus, gpus_text


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
    ("text", "says"),
    [
        ("0xH100", "names no GPU"),
        ("65xH200", "more than 64"),
        ("40xH200+40xL4", "more than 64"),
        ("999999999xH200", "more than 64"),
        ("3090+", "empty part"),
        ("+", "empty part"),
        ("2xZork", "unknown GPU"),
        ("2xM3 Max", "more than one GPU"),
    ],
)
def test_bad_texts(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        find_gpus(text)


def test_an_engine_of_one_card_says_so() -> None:
    with pytest.raises(BadInput, match="transformers fills one") as caught:
        api.plan("Qwen/Qwen3-8B", gpu="2xH200", engine="transformers", offline=True)
    assert "plans for one of them" in caught.value.hint
