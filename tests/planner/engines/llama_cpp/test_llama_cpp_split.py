"""llama.cpp over several cards: layers by their size and speed, experts that leave first."""

import json
from itertools import pairwise
from typing import Any

import pytest

from kvpareto import profiles
from kvpareto.cli import run
from kvpareto.planner.engines.llama_cpp import LLAMA_CPP
from kvpareto.planner.engines.llama_cpp.cards import COPIES
from kvpareto.planner.engines.llama_cpp.parts import parts_of
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.gpu_set import find_gpus
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.placement import Machine, Placement
from kvpareto.planner.workload import Workload

MIB, GB = 2**20, 10**9
WORK = Workload(8192, 512)
Q6 = Configuration.parse("wQ6_K-kq8_0vq8_0+pc512")
Q4 = Configuration.parse("wQ4_K_M-kq8_0vq8_0+pc512")


def _on(cards: str, model: str = "Qwen/Qwen2.5-32B-Instruct", **more: Any) -> Placement:
    gpus = find_gpus(cards)
    budgets = tuple(int(gpu.memory_bytes * 0.95) for gpu in gpus)
    spec = load_model(model, offline=True)
    config = more.pop("config", Q4)
    return LLAMA_CPP.place(spec, config, WORK, Machine(gpus, budgets, **more))


@pytest.mark.parametrize("cards", ["RTX 3090+RTX 3060 12GB", "RTX 3060 12GB+RTX 3090"])
def test_layers_over_unequal_cards(cards: str) -> None:
    found = _on(cards, config=Q6)
    spec = load_model("Qwen/Qwen2.5-32B-Instruct", offline=True)
    parts = parts_of(spec, Q6, WORK, cuda=True)
    assert found.fits
    assert [card.index for card in found.cards] == [0, 1]
    assert sum(card.layers for card in found.cards) == len(parts.layers)
    assert sum(card.share.weights for card in found.cards) == sum(parts.layers) + parts.head
    assert sum(card.share.kv for card in found.cards) == sum(parts.caches)
    for card in found.cards:
        assert card.ends[0] < card.share.total + card.overhead < card.ends[1] <= card.budget
    counts = [int(n) for n in dict(found.flags)["-ts"].split(",")]  # type: ignore[union-attr]
    assert counts[0] == found.cards[0].layers
    assert counts[1] == found.cards[1].layers + 1
    large = next(card for card in found.cards if card.gpu is not None and "3090" in card.gpu)
    assert large.layers > len(parts.layers) // 2  # the faster one is filled first
    assert "-ngl 65 -ts " in found.command


def test_a_model_that_fits_one_card_stays_there() -> None:
    found = _on("RTX 3060 12GB+RTX 3090", "Qwen/Qwen2.5-7B-Instruct")
    assert [card.index for card in found.cards] == [1]
    assert "-dev CUDA1 " in found.command
    assert "-ts" not in found.command


def test_cards_alike_share_by_their_size() -> None:
    found = _on("2xRTX 3090", "Qwen/Qwen2.5-72B-Instruct", config=Configuration.parse(
        "wIQ4_XS-kq8_0vq8_0+pc512"
    ))  # fmt: skip
    first, second = found.cards
    assert found.fits
    assert abs(first.layers - second.layers) <= 2


def test_experts_leave_several_cards_first() -> None:
    found = _on("2xRTX 3060 12GB", "Qwen/Qwen3-30B-A3B", ram=64 * GB, config=Q6)
    assert found.fits
    assert found.device_layers == 48
    assert 0 < found.host_experts < 48
    assert all(card.ends[1] <= card.budget for card in found.cards)
    few = _on("2xRTX 3060 12GB", "Qwen/Qwen2.5-72B-Instruct", ram=96 * GB)
    assert few.fits
    assert 0 < few.device_layers < 80
    none = _on("2xRTX 3060 12GB", "Qwen/Qwen2.5-72B-Instruct")
    assert not none.fits
    assert none.needed > 2 * int(find_gpu("RTX 3060 12GB").memory_bytes * 0.95)


def test_more_cards_are_never_slower_than_host_memory() -> None:
    rates = []
    for cards in ("RTX 3060 12GB", "2xRTX 3060 12GB", "3xRTX 3060 12GB"):
        found = _on(cards, ram=96 * GB, config=Q6)
        assert found.fits
        assert found.tpot is not None
        rates.append(found.tpot[0])
    assert all(after < before for before, after in pairwise(rates))


def test_the_command_line_names_cards(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--engine", "llama.cpp", "-m", "Qwen/Qwen2.5-32B-Instruct", "--json"]
    assert run([*words, "--gpu", "3090+RTX 3060 12GB", "--context", "16k"]) == 0
    document = json.loads(capsys.readouterr().out)
    placement = document["recommended"]["placement"]
    assert [card["index"] for card in placement["cards"]] == [0, 1]
    assert placement["device"]["weights"] == sum(c["weights"] for c in placement["cards"])
    assert placement["flags"]["-ts"]


SMALL = json.loads(profiles.read("llama_cpp/shapes.json"))
SPLIT = [json.loads(x) for x in profiles.read("llama_cpp/memory_split.jsonl").splitlines()][1:]


@pytest.mark.parametrize(
    "row", SPLIT, ids=[f"{r['shape']}-{r['split']}{r['flags']}" for r in SPLIT]
)
def test_what_tensor_split_says_is_what_llama_cpp_does(row: dict[str, Any]) -> None:
    """Two devices of a processor's build: their weights and caches, by the ranges that counts of
    layers (the head is one) mean here; compute buffers are at most the graph's and the copies."""
    words = row["flags"].split()
    said = dict(zip(words[::2], words[1::2], strict=True))
    spec = read_model(SMALL[row["shape"]], row["shape"])
    types = said.get("-ctk", "f16"), said.get("-ctv", "f16")
    config = Configuration.parse(f"wF16-k{types[0]}v{types[1]}+pc128")
    parts = parts_of(spec, config, Workload(1900, 100), cuda=True)
    counts = [int(n) for n in row["split"].split(",")]
    first = row["layers"] + 1 - sum(counts)
    experts = [e if i < int(said.get("--n-cpu-moe", 0)) else 0 for i, e in enumerate(parts.experts)]
    for index, count in enumerate(counts):
        end = min(first + count, row["layers"])
        weights = sum(parts.layers[first:end]) - sum(experts[first:end])
        weights += parts.head if index == 1 else 0
        # MLA's absorbed matrices are converted ones: 0.2 % more in the derived sizes.
        digits = 0.0025 * row["model"][f"card{index}"] if "deepseek" in row["shape"] else 0.006
        assert abs(weights / MIB - row["model"][f"card{index}"]) <= digits
        held = sum(parts.caches[first:end]) / MIB
        assert abs(held - row["KV"].get(f"card{index}", 0)) <= 0.011
        first = end
        printed = row["compute"][f"card{index}"] * MIB
        copies = (COPIES - 1) * parts.pass_inputs if not words or "-ngl" not in said else 0
        assert printed <= 1.01 * (parts.compute + copies)
        if row["shape"] == "llama-gqa" and not words and index == 0:
            assert printed >= 0.99 * (parts.compute + copies)
