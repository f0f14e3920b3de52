"""Every architecture that is read: held to a run of llama.cpp, or with wide bounds and a note.

The rows are profiles/llama_cpp/memory_architectures.jsonl: a small model of each header that
llama.cpp's own converter wrote (tests/data/gguf_headers.jsonl), or of one of those changed so that
llama.cpp takes it (gguf_runnable.jsonl), loaded with random weights.
"""

import json
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from kvpareto import profiles
from kvpareto.planner.engines.llama_cpp import LLAMA_CPP
from kvpareto.planner.engines.llama_cpp.cache_bytes import cache_bytes
from kvpareto.planner.engines.llama_cpp.model_graph import compute_bytes
from kvpareto.planner.engines.llama_cpp.parts import HELD, known_graph
from kvpareto.planner.engines.llama_cpp.place import UNKNOWN_GRAPH_ERROR
from kvpareto.planner.engines.llama_cpp.run_settings import RunSettings
from kvpareto.planner.engines.without_graph import ABSENT
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.gguf.architectures import ARCHITECTURES
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.placement import Machine
from kvpareto.planner.search.recommend import recommend
from kvpareto.planner.search.request import Request
from kvpareto.planner.workload import Workload
from tests.support.gguf_files import headers, runnable, tensors_of, write_gguf
from tests.support.tiny_configs import CONFIGS

PUBLISHED = Path(__file__).parents[3] / "data" / "published"

MIB = 2**20
HEADERS = headers() | runnable()
BUILD, *ROWS = [
    json.loads(line) for line in profiles.read("llama_cpp/memory_architectures.jsonl").splitlines()
]
RAN = [row for row in ROWS if "compute" in row]
IDS = [f"{row['name']}-{row['run']['context']}" for row in RAN]
SHAPES = json.loads(profiles.read("llama_cpp/shapes.json"))
ELSEWHERE = {shape["model_type"] for shape in SHAPES.values()} | {"mistral"}
"""Held by memory_cpu.jsonl."""


LEFT_OUT = {"llama4_text": 0.001}
"""What held graphs leave out: Llama 4's scale of each position. All others are exact, within the
last printed digit."""


@lru_cache(maxsize=128)
def spec_of(name: str, without: tuple[str, ...] = ()) -> ModelSpec:
    row = HEADERS[name]
    tensors = [t for t in tensors_of(row) if not t[0].endswith(without)] if without else (
        tensors_of(row)
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        return load_model(str(write_gguf(Path(folder) / "model.gguf", row["keys"], tensors)))


def kind_of(spec: ModelSpec) -> str:
    return spec.text_type or spec.model_type


@pytest.mark.parametrize("row", RAN, ids=IDS)
def test_caches_and_states_are_exact(row: dict[str, Any]) -> None:
    spec = spec_of(row["name"], tuple(row["without"]))
    if LLAMA_CPP.cannot_run(spec) is not None:
        return
    found = cache_bytes(spec, RunSettings(**row["run"]))
    for side, digits in (("keys", 2), ("values", 2), ("states", 1)):
        assert abs(getattr(found, side) - row[side]) <= digits * 0.005 * MIB + 1, side


@pytest.mark.parametrize("row", RAN, ids=IDS)
def test_compute_buffers_are_within_what_is_said(row: dict[str, Any]) -> None:
    spec = spec_of(row["name"], tuple(row["without"]))
    found = compute_bytes(spec, RunSettings(**row["run"]))
    (printed,) = row["compute"].values()
    if LLAMA_CPP.cannot_run(spec) is not None:
        assert not known_graph(spec)
        return
    error = UNKNOWN_GRAPH_ERROR
    if known_graph(spec):
        error = LEFT_OUT.get(kind_of(spec), 0.0)
    assert abs(found - printed) <= error * found + 60


def test_what_is_called_held_was_run() -> None:
    ran = {kind_of(spec_of(row["name"], tuple(row["without"]))) for row in RAN}
    assert ran | ELSEWHERE >= HELD
    assert len(ran) >= 60


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_held_or_says_that_it_is_not(architecture: str) -> None:
    """Of those that a header is here for; the others are Llama by another name, or not held."""
    names = [n for n, r in HEADERS.items() if r["keys"]["general.architecture"] == architecture]
    for name in names:
        spec = spec_of(name)
        if known_graph(spec) or LLAMA_CPP.cannot_run(spec) is not None:
            continue
        asked = Configuration.parse("wBF16-kf16vf16+pc128")
        placed = LLAMA_CPP.place(spec, asked, Workload(512, 64), Machine((), (), 10**12))
        assert any("no run was held against them" in note for note in placed.notes), name


def test_what_llama_cpp_does_not_have_is_refused_by_name() -> None:
    """Neither its converter nor its library names them; our own table of its architectures knows
    none of them either."""
    described = {kind for kind, _ in ARCHITECTURES.values() if isinstance(kind, str)}
    assert not ABSENT & described
    spec = read_model(CONFIGS["zamba2"], "zamba2")
    assert LLAMA_CPP.cannot_run(spec) == "llama.cpp has no zamba2"
    with pytest.raises(BadInput, match=r"llama\.cpp has no zamba2"):
        recommend(Request(spec, Workload(512, 64), LLAMA_CPP, 10**9))


def test_what_has_no_graph_is_refused_inside_an_unknown_model_too() -> None:
    """Gemma 3n's file is of a type whose towers are not known; its text model is, and has none."""
    config = json.loads((PUBLISHED / "gemma-3n-e4b.json").read_text(encoding="utf-8"))
    spec = read_model(config, "gemma-3n-e4b")
    assert not spec.understood
    with pytest.raises(BadInput, match="four streams of every layer are not planned"):
        recommend(Request(spec, Workload(512, 64), LLAMA_CPP, 10**10))
