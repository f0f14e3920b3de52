"""One configuration for llama.cpp: what goes to the device and what to host memory."""

import json

import pytest

from kvpareto import profiles
from kvpareto.planner.engines.llama_cpp import LLAMA_CPP
from kvpareto.planner.engines.llama_cpp.parts import parts_of
from kvpareto.planner.engines.llama_cpp.place import HOST_PROCESS
from kvpareto.planner.engines.llama_cpp.place import place as place_on
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.gpus import Hardware
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.gguf_weights import gguf_weight_bytes
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.placement import Machine, Placement
from kvpareto.planner.workload import Workload

GB = 10**9
CARD = find_gpu("RTX 3060 12GB")
WORK = Workload(8192, 512)
BUFFERS = ("model", "keys", "values", "states", "compute", "output")
Q4 = Configuration.parse("wQ4_K_M-kq8_0vq8_0+pc512")


def place(
    spec: ModelSpec,
    config: Configuration,
    work: Workload,
    card: Hardware | None,
    budget: int | None,
    ram: int | None,
) -> Placement:
    """On one card, or on none."""
    cards = () if card is None else (card,)
    return place_on(spec, config, work, Machine(cards, () if budget is None else (budget,), ram))


def test_everything_on_the_device_is_everything() -> None:
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    weights = gguf_weight_bytes(spec, "Q4_K_M")
    found = place(spec, Q4, WORK, CARD, 12 * GB, None)
    assert found.fits
    assert found.device.weights == weights.total - weights.embedding - weights.other
    assert found.host.weights == weights.embedding + weights.other
    # 28 layers x 2 sides x 8,704 cells x (4 heads x 128) in blocks of 32 that take 34 bytes
    assert found.device.kv == 28 * 2 * 8704 * 512 // 32 * 34
    assert dict(found.flags)["-ngl"] == "29"


def test_a_tied_table_lies_on_both_sides() -> None:
    spec = load_model("Qwen/Qwen2.5-1.5B-Instruct", offline=True)
    parts = parts_of(spec, Q4, WORK)
    found = place(spec, Q4, WORK, CARD, 12 * GB, None)
    assert parts.tied
    assert found.device.weights == sum(parts.layers) + parts.head
    assert found.host.weights == parts.embedding


def test_experts_leave_before_layers_do() -> None:
    spec = load_model("openai/gpt-oss-20b", offline=True)
    config = Configuration.parse("wmxfp4-kf16vf16+pc512")
    parts = parts_of(spec, config, WORK)
    found = place(spec, config, WORK, CARD, 8 * GB, 32 * GB)
    assert found.fits
    assert found.device_layers == 24
    assert 0 < found.host_experts < 24
    assert found.host.weights == parts.embedding + sum(parts.experts[: found.host_experts])
    assert f"--n-cpu-moe {found.host_experts}" in found.command
    # one layer's experts more on the device would not fit
    more = found.device_ends[1] + parts.experts[found.host_experts - 1]
    assert more > 8 * GB


@pytest.mark.parametrize("budget", [3, 5, 9])
def test_sides_sum_to_the_whole(budget: int) -> None:
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    parts = parts_of(spec, Q4, WORK)
    found = place(spec, Q4, WORK, CARD, budget * GB, 64 * GB)
    assert found.fits
    assert found.device_ends[1] <= budget * GB
    assert found.device.kv + found.host.kv == sum(parts.caches)
    copies = parts.head if parts.tied else 0
    assert found.device.weights + found.host.weights == parts.weights + copies
    assert (found.device_layers < 28) == (budget < 9)


def test_without_host_memory_named_nothing_leaves_the_device() -> None:
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    found = place(spec, Q4, WORK, CARD, 4 * GB, None)
    assert not found.fits
    assert found.device_layers == 28
    assert found.needed == found.device_ends[1] > 4 * GB


@pytest.mark.parametrize("ram", [1, 2, 4])
def test_the_budget_that_is_needed_is_the_least_that_would_do(ram: int) -> None:
    """Layers are whole, so it is more than what host memory leaves over."""
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    found = place(spec, Q4, WORK, CARD, GB, ram * GB)
    assert not found.fits
    held = place(spec, Q4, WORK, CARD, found.needed, ram * GB)
    assert held.fits
    assert held.host.total + HOST_PROCESS.high <= ram * GB
    assert not place(spec, Q4, WORK, CARD, found.needed - 1, ram * GB).fits


def test_on_the_processor_alone() -> None:
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    found = place(spec, Q4, WORK, None, None, 16 * GB)
    assert found.fits
    assert found.on_host_only
    assert found.host.weights == gguf_weight_bytes(spec, "Q4_K_M").total
    low, high = found.device_ends
    assert low < found.host.total + found.overhead < high == found.needed
    assert high >= found.host.total + HOST_PROCESS.high
    assert "-ngl 0 " in found.command
    assert found.tpot is not None
    assert found.tpot[1] < found.tpot[0] < found.tpot[2]


def test_what_a_process_holds_beside_its_buffers_is_within_the_interval() -> None:
    lines = profiles.read("llama_cpp/memory_process.jsonl").splitlines()
    rows = [json.loads(line) for line in lines[1:]]
    beside = [row["resident"] - sum(v for k, v in row.items() if k in BUFFERS) for row in rows]
    assert len(beside) >= 16
    assert HOST_PROCESS.low < min(beside) < max(beside) < HOST_PROCESS.high


def test_more_on_the_device_is_never_slower() -> None:
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    seconds = []
    for budget in (3, 4, 5, 6, 8):
        found = place(spec, Q4, WORK, CARD, budget * GB, 64 * GB)
        assert found.tpot is not None
        seconds.append(found.tpot[0])
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] > 2 * seconds[-1]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("w4a16-kq8_0vq8_0", "llama.cpp has no w4a16"),
        ("wQ4_K_M-k4v4", "llama.cpp has no k4"),
        ("wQ4_K_M-kfp8vfp8", "llama.cpp does not run fp8"),
        ("wnvfp4-kf16vf16", "llama.cpp does not run nvfp4"),
        ("wQ4_K_M-kf16vf16+pcdyn", "neither protects layers"),
    ],
)
def test_what_it_does_not_have_is_refused(config: str, says: str) -> None:
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    chosen = Configuration.parse(config)
    with pytest.raises(BadInput) as error:
        LLAMA_CPP.place(spec, chosen, WORK, Machine((CARD,), (12 * GB,)))
    assert says in error.value.message
    assert error.value.hint


def test_a_latent_has_one_type() -> None:
    spec = load_model("deepseek-ai/DeepSeek-V2-Lite", offline=True)
    with pytest.raises(BadInput, match="one type for both"):
        place(spec, Configuration.parse("wQ4_K_M-kq8_0vf16"), WORK, None, None, 64 * GB)
    pairs = LLAMA_CPP.formats(spec, WORK, (), (), ((),)).names
    assert pairs
    assert all(k == v for k, v in pairs)


def test_large_models_are_placed_as_if_every_split_were_tried() -> None:
    """Bisection finds the first split that fits, experts before layers."""
    spec = load_model("Qwen/Qwen3-30B-A3B", offline=True)
    config = Configuration.parse("wQ8_0-kq8_0vq8_0+pc512")
    found = place(spec, config, WORK, CARD, 6 * GB, 64 * GB)
    assert found.fits
    assert found.device_layers == 48
    parts = parts_of(spec, config, WORK)
    assert found.device_ends[1] + parts.experts[found.host_experts - 1] > 6 * GB
    smaller = place(spec, config, WORK, CARD, 2 * GB, 64 * GB)
    assert smaller.fits
    assert smaller.host_experts == 48
    assert smaller.device_layers < 48
    none = place(spec, config, WORK, CARD, 6 * GB, 8 * GB)
    assert not none.fits
    assert none.needed > 6 * GB
