"""llama.cpp's caches and buffers, held to what llama.cpp printed for small models of every kind.

The rows are profiles/llama_cpp/memory_cpu.jsonl (benchmarks/llama_cpp/memory.py makes them). It
prints MiB with two decimals, compute buffers with four: a size is exact when it rounds to them.
"""

import json

import pytest

from kvpareto import profiles
from kvpareto.planner.engines.llama_cpp.cache_bytes import cache_bytes
from kvpareto.planner.engines.llama_cpp.graph_allocator import Graph, Tensor, buffer_bytes
from kvpareto.planner.engines.llama_cpp.model_graph import built_layers, compute_bytes
from kvpareto.planner.engines.llama_cpp.parts import HELD
from kvpareto.planner.engines.llama_cpp.run_settings import RunSettings
from kvpareto.planner.models.read_config import read_model

MIB = 2**20
SHAPES = json.loads(profiles.read("llama_cpp/shapes.json"))
SPECS = {name: read_model(config, name) for name, config in SHAPES.items()}
ROWS = [json.loads(x) for x in profiles.read("llama_cpp/memory_cpu.jsonl").splitlines()]
KEPT = {"keys": 2, "values": 2, "states": 1}
"""Sizes that are sums of so many printed numbers at most."""


def test_the_rows_cover_what_is_claimed() -> None:
    assert len(ROWS) >= 80
    assert {row["shape"] for row in ROWS} == set(SHAPES)
    assert {SPECS[name].model_type for name in SHAPES} <= HELD
    runs = [row["run"] for row in ROWS]
    assert {run["flash"] for run in runs} == {True, False}
    assert len({(run["keys"], run["values"]) for run in runs}) >= 8
    assert {run["sequences"] for run in runs} == {1, 2, 3, 4}


@pytest.mark.parametrize("name", SHAPES)
def test_caches_are_exact(name: str) -> None:
    for row in (row for row in ROWS if row["shape"] == name):
        found = cache_bytes(SPECS[name], RunSettings(**row["run"]))
        for side, count in KEPT.items():
            off = abs(getattr(found, side) - row[side])
            assert off <= count * (0.005 * MIB + 1), (row["run"], side, off)


@pytest.mark.parametrize("name", SHAPES)
def test_cells_are_those_that_are_printed(name: str) -> None:
    spec = SPECS[name]
    for row in (row for row in ROWS if row["shape"] == name):
        run = RunSettings(**row["run"])
        assert [cells for _, cells in run.all_cells(spec)] == row["cells"], row["run"]


@pytest.mark.parametrize("name", SHAPES)
def test_compute_buffers_are_exact(name: str) -> None:
    for row in (row for row in ROWS if row["shape"] == name):
        found = compute_bytes(SPECS[name], RunSettings(**row["run"]))
        (printed,) = row["compute"].values()
        assert abs(found - printed) <= 0.00005 * MIB + 1, (row["run"], found, printed)


def test_few_layers_stand_for_many() -> None:
    """A model's buffer is that of the layers that show every neighbourhood of kinds."""
    spec = SPECS["gemma3"]
    kinds = "".join("S" if layer.mixers[0].window else "F" for layer in spec.layers)  # type: ignore[union-attr]
    assert kinds == "SSSSSFSS"
    assert len(built_layers(spec.layers)) < len(spec.layers)
    assert len(built_layers(SPECS["llama-gqa"].layers)) == 3


def test_a_block_is_used_again_in_place_and_after_its_last_reader() -> None:
    """Worked by hand: x (input, 64 bytes) -> a (copy, 64) -> b (in place of a) -> c (32 bytes)."""
    graph = Graph()
    x = Tensor("input", (16,))
    a = Tensor("cont", (16,), [x])
    b = Tensor("scale", (16,), [a])
    c = Tensor("mul_mat", (8,), [b])
    c.output = True
    graph.expand(c)
    assert buffer_bytes(graph) == 128  # c lies where x was: x had its last reader before c
    kept = Graph()
    a2 = Tensor("cont", (16,), [Tensor("input", (16,))])
    kept.expand(Tensor("add", (16,), [Tensor("scale", (16,), [a2]), a2]))
    assert buffer_bytes(kept) == 192 - 64 * 1  # a2 has another reader: scale takes x's block


def test_alignment_rounds_every_tensor() -> None:
    graph = Graph()
    graph.expand(Tensor("cont", (1,), [Tensor("input", (1,))]))
    assert buffer_bytes(graph, 32) == 64
    second = Graph()
    second.expand(Tensor("cont", (1,), [Tensor("input", (1,))]))
    assert buffer_bytes(second, 128) == 256
