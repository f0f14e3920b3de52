"""llama.cpp on cards: rows of one H200, layers over several cards, and what cannot start.

The rows are profiles/llama_cpp/memory_cuda.jsonl (benchmarks/llama_cpp/cuda.py makes them).
"""

import json
import statistics
from dataclasses import replace
from typing import Any

import pytest

from kvpareto import profiles
from kvpareto.planner.engines.llama_cpp import LLAMA_CPP
from kvpareto.planner.engines.llama_cpp.cache_bytes import cache_bytes
from kvpareto.planner.engines.llama_cpp.card_overhead import card_overhead, pool_bytes
from kvpareto.planner.engines.llama_cpp.cards import PlannedCard, Split, fill
from kvpareto.planner.engines.llama_cpp.model_graph import compute_bytes, device_compute_bytes
from kvpareto.planner.engines.llama_cpp.parts import host_compute, parts_of
from kvpareto.planner.engines.llama_cpp.run_settings import RunSettings
from kvpareto.planner.engines.llama_cpp.speed import CardLoad, Load, active_parameters, seconds
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.gpu_set import find_gpus
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import MoEFFN, Role
from kvpareto.planner.placement import Machine
from kvpareto.planner.workload import Workload

MIB, GB = 2**20, 10**9
SHAPES = json.loads(profiles.read("llama_cpp/shapes_cuda.json"))
SPECS = {name: read_model(shape["config"], name) for name, shape in SHAPES.items()}
ENVIRONMENT, *ALL = [
    json.loads(line) for line in profiles.read("llama_cpp/memory_cuda.jsonl").splitlines()
]
RAN = [row for row in ALL if "failed" not in row]
ON_HOST = [row for row in RAN if row["flags"]]
"""Layers, or experts, in host memory."""
NO_KERNEL = [row for row in RAN if row["run"]["keys"] == "iq4_nl"]
ROWS = [row for row in RAN if row not in ON_HOST and row not in NO_KERNEL]
IDS = [f"{row['shape']}-{row['run']['context']}-{row['run']['keys']}" for row in ROWS]
H200 = find_gpu("H200")
DIGIT = 0.00005 * MIB + 1
WORK = Workload(8192, 512)
Q6 = Configuration.parse("wQ6_K-kq8_0vq8_0+pc512")
Q4 = Configuration.parse("wQ4_K_M-kq8_0vq8_0+pc512")


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_the_cards_buffers_are_exact(row: dict[str, Any]) -> None:
    spec, settings = SPECS[row["shape"]], RunSettings(**row["run"])
    caches = cache_bytes(spec, settings)
    printed = len(row["cells"]) * 0.005 * MIB + 1
    assert abs(caches.keys - row["keys"]) <= printed
    assert abs(caches.values - row["values"]) <= printed
    digit = 0.005 * MIB + 1 if "log" in row else DIGIT
    assert abs(device_compute_bytes(spec, settings) - row["compute"]["CUDA0"]) <= digit
    host = abs(host_compute(spec, settings) - row["compute"]["CUDA_Host"])
    assert host <= (10_000 if "log" in row else 128)


def test_totals_are_what_the_driver_says() -> None:
    """Two constants are of these rows: the base of the first, and cuBLAS of the one with experts;
    leaving those two out changes nothing that is held here."""
    errors = []
    for row in ROWS:
        spec, settings = SPECS[row["shape"]], RunSettings(**row["run"])
        wide = SHAPES[row["shape"]]["weights"] == "F16"
        beside = card_overhead(spec, settings, wide, H200)
        ours = row["model"]["CUDA0"] + cache_bytes(spec, settings).total
        ours += device_compute_bytes(spec, settings)
        total = row["most"] - row["before"]
        errors.append(abs(ours + beside.expected - total) / total)
        if settings.flash:  # scores of attention without it are scratch too, of what was read
            assert ours + beside.low <= total <= ours + beside.high, row
    assert statistics.median(errors) <= 0.01
    assert max(errors) <= 0.03


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_seconds_are_inside_their_intervals(row: dict[str, Any]) -> None:
    spec, settings, prompt = SPECS[row["shape"]], RunSettings(**row["run"]), row["prompt"]
    experts = [layer.ffn for layer in spec.layers if isinstance(layer.ffn, MoEFFN)]
    active = active_parameters(spec) + spec.vocab * spec.hidden
    weights = row["model"]["CUDA0"] * active / _stored(row["shape"])
    read = cache_bytes(spec, settings).total * prompt / settings.total_context
    load = Load((CardLoad(H200, weights, read, len(spec.layers)),), 0, 0, 0, bool(experts))
    ttft, tpot = seconds(spec, load, prompt, settings.micro_batch, 1)
    assert tpot[1] <= row["tpot"] <= tpot[2]
    assert ttft[1] <= row["ttft"] <= ttft[2]


def test_the_rows_cover_what_is_claimed() -> None:
    assert len(RAN) >= 18
    assert {row["shape"] for row in RAN} >= {"mla-f16", "gpt-oss-half-mxfp4", "qwen3-moe-q4"}
    assert {row["flags"].split()[0] for row in ON_HOST} == {"-ngl", "--n-cpu-moe"}


@pytest.mark.parametrize("row", ON_HOST, ids=[f"{r['shape']}{r['flags']}" for r in ON_HOST])
def test_layers_and_experts_in_host_memory(row: dict[str, Any]) -> None:
    """The card's total is within 3 % and inside its ends. Sizes of layers are read off the rows."""
    shape, spec, settings = row["shape"], SPECS[row["shape"]], RunSettings(**row["run"])
    whole = next(r for r in RAN if r["shape"] == shape and not r["flags"])["model"]["CUDA0"]
    host, layers = whole - row["model"]["CUDA0"], len(spec.layers)
    count = int(row["flags"].split()[1])
    experts = "moe" in row["flags"]
    on_card = layers if experts else count - 1  # the head counts as a layer
    wide = SHAPES[shape]["weights"] == "F16"
    config = Configuration.named("BF16", settings.keys, settings.values, settings.micro_batch)
    parts = parts_of(spec, config, Workload(settings.context - 64, 64), cuda=True)
    moved = host // (count if experts else layers - on_card)
    even = whole // layers  # as if the head were spread over the layers
    moves = (moved if experts else 0,) * layers
    parts = replace(parts, layers=(even if experts else moved,) * layers, experts=moves, head=0)
    overhead = card_overhead(spec, settings, wide, H200)
    card = PlannedCard(0, H200, 10**12, overhead)
    split = Split(on_card, count if experts else 0)
    (filled,) = fill(parts, split, [card], False, 0.02)
    off = row["model"]["CUDA0"] - filled.share.weights
    total = row["most"] - row["before"]
    assert filled.low + off <= total <= filled.high + off
    expected = filled.share.total + overhead.expected + off
    assert abs(expected / total - 1) <= 0.03


def test_attention_without_a_kernel_leaves_the_card() -> None:
    """iq4_nl: the row's buffer has no copies of the cache, and a token takes four times as long."""
    (row,) = NO_KERNEL
    spec, settings = SPECS[row["shape"]], RunSettings(**row["run"])
    copies = 2 * 32768 * 2 * 128 * 2 // 2
    assert device_compute_bytes(spec, settings) - row["compute"]["CUDA0"] >= copies
    plain = next(r for r in ROWS if r["shape"] == row["shape"])
    assert row["tpot"] > 2.5 * plain["tpot"]
    machine = Machine((H200,), (10**11,))
    asked = Configuration.parse("wQ8_0-kiq4_nlviq4_nl+pc512")
    with pytest.raises(BadInput, match="no attention for iq4_nl"):
        LLAMA_CPP.place(spec, asked, WORK, machine)
    names = LLAMA_CPP.on(machine).formats(spec, WORK, (), (), ((),)).names
    assert names
    assert "iq4_nl" not in {name for pair in names for name in pair}
    assert ("iq4_nl", "iq4_nl") in LLAMA_CPP.on(Machine((), ())).formats(
        spec, WORK, (), (), ((),)
    ).names


def test_apple_has_attention_for_equal_types_alone() -> None:
    machine = Machine(find_gpus("M3 Max 36GB"), (10**10,))
    spec = SPECS["llama-8b-q4"]
    names = LLAMA_CPP.on(machine).formats(spec, WORK, (), (), ((),)).names
    assert names
    assert all(k == v for k, v in names)
    with pytest.raises(BadInput, match="no attention for K q8_0 and V q4_0"):
        LLAMA_CPP.place(spec, Configuration.parse("wQ8_0-kq8_0vq4_0+pc512"), WORK, machine)


def _stored(shape: str) -> float:
    """Parameters of matrices that lie on the card: those of layers, and the head."""
    spec = SPECS[shape]
    layers = sum(t.parameters for t in spec.tensors if t.role in (Role.LINEAR, Role.EXPERT))
    return float(layers + spec.vocab * spec.hidden)


def test_a_quantized_cache_has_copies_where_attention_is_the_peak() -> None:
    """By hand: 32,768 cells of 8 heads of 128 channels, K and V, in 16 bits: 134 MB."""
    spec = SPECS["llama-8b-q4"]
    plain = RunSettings(context=32768, micro_batch=64)
    quantized = RunSettings(context=32768, micro_batch=64, keys="q8_0", values="q8_0")
    more = device_compute_bytes(spec, quantized) - device_compute_bytes(spec, plain)
    assert 0.8 * 134_217_728 < more <= 134_217_728 + 100_000
    rotations = 4 * (128**2 + 64**2)
    same = compute_bytes(spec, quantized) - compute_bytes(spec, plain)
    assert same == rotations  # the processor reads blocks as they are


def test_scratch_of_the_widest_product() -> None:
    """By hand: 512 tokens of 14,336 inputs, 36 bytes for 32; partial sums; whole granules of 2
    MiB: 16.9 MB are nine."""
    spec = SPECS["llama-8b-q4"]
    assert pool_bytes(spec, RunSettings(context=8192), wide=False) == 9 * 2 * MIB
    # 16 bits: (14,336 + 14,336) x 512 x 2 bytes = 29.4 MB, fourteen granules
    assert pool_bytes(spec, RunSettings(context=8192), wide=True) == 14 * 2 * MIB


def test_heads_of_other_widths_keep_16_bits() -> None:
    """What did not start on the card (heads of 80) is refused, and is not in the space."""
    assert [row["shape"] for row in ALL if "failed" in row] == ["llama-heads-of-80-f16"]
    spec = SPECS["llama-heads-of-80-f16"]
    with pytest.raises(BadInput, match="heads of 80"):
        parts_of(spec, Q4, WORK)
    assert parts_of(spec, Configuration.parse("wQ4_K_M-kf16vf16+pc512"), WORK).file
    assert LLAMA_CPP.formats(spec, WORK, (), (), ((),)).names == (("f16", "f16"),)
