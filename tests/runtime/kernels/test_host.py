"""Host side of the CUDA kernels, without a GPU: arguments, launch shapes, what is taken."""

import ctypes
import functools
import re
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

pytest.importorskip("triton")

import itertools

from kvpareto.planner.memory.activation.workspace import (
    block_heads,
    decode_splits,
    partial_bytes,
    segment_tokens,
    staging_bytes,
)
from kvpareto.runtime.kernels import cuda_decode, cuda_stage, nvrtc, staged
from kvpareto.runtime.kernels.eight_bits import chunk8
from kvpareto.runtime.kernels.formats import format_constants
from kvpareto.runtime.kernels.paged import decode_pages
from kvpareto.runtime.kernels.paged.page_format import PageFormat
from tests.support.kernel_states import empty_state

SOURCES = Path(nvrtc.__file__).parent
C_TYPES = {
    "int": ctypes.c_int,
    "float": ctypes.c_float,
    "long long": ctypes.c_longlong,
    "u32[8]": ctypes.c_uint32 * 8,
}


def declared(source: str, name: str) -> list[tuple[str, str]]:
    """(field, type) of a struct in a CUDA source, in order; "*" for any pointer."""
    body = re.search(rf"struct {name} \{{(.*?)\n\}};", (SOURCES / source).read_text(), re.DOTALL)
    assert body is not None
    found = []
    for statement in re.sub(r"//.*", "", body[1]).split(";"):
        words = statement.strip().removeprefix("const ")
        match = re.fullmatch(r"(long long|\w+)\s*(.*)", words, re.DOTALL)
        if match is None:
            continue
        for field in match[2].split(","):
            pointer = "*" in field or "*" in words.split()[0]
            named, _, many = field.strip(" *\n").partition("[")
            found.append((named, "*" if pointer else match[1] + (f"[{many}" if many else "")))
    return found


@pytest.mark.parametrize(
    ("source", "name", "fields"),
    [
        ("decode.cu", "Args", cuda_decode._Args._fields_),
        ("stage_rows.cuh", "StageSide", cuda_stage.StageSide._fields_),
        ("stage.cu", "StageArgs", cuda_stage._StageArgs._fields_),
        ("stage.cu", "MergeArgs", cuda_stage._MergeArgs._fields_),
        ("paged/decode_pages.cu", "Args", decode_pages._Args._fields_),
        ("eight_bits/stage8.cu", "Stage8Args", chunk8._StageArgs._fields_),
        ("eight_bits/chunk8.cu", "ChunkArgs", chunk8._ChunkArgs._fields_),
    ],
)
def test_arguments_lie_as_the_kernel_declares_them(
    source: str, name: str, fields: list[tuple[str, type]]
) -> None:
    wanted = declared(source, name)
    assert [field for field, _ in wanted] == [field for field, _ in fields]
    for (field, kind), (_, given) in zip(wanted, fields, strict=True):
        expected = ctypes.c_void_p if kind == "*" else C_TYPES.get(kind, cuda_stage.StageSide)
        assert given is expected, field


def test_a_launch_lies_as_the_driver_declares_it() -> None:
    assert ctypes.sizeof(nvrtc._LaunchConfig) == 56
    assert nvrtc._LaunchConfig.stream.offset == 32
    assert ctypes.sizeof(nvrtc._LaunchAttribute) == 72
    assert nvrtc._LaunchAttribute.value.offset == 8


def test_a_kernel_is_compiled_once_for_what_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[list[str]] = []
    monkeypatch.setattr(nvrtc, "available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", MagicMock)
    monkeypatch.setattr(nvrtc, "_compile", lambda source, options: compiled.append(options))
    monkeypatch.setattr(nvrtc, "_check", lambda status, what: None)
    monkeypatch.setattr(nvrtc, "_driver", MagicMock)
    monkeypatch.setattr(nvrtc, "_loaded", functools.cache(nvrtc._loaded.__wrapped__))
    source = SOURCES / "decode.cu"
    first = nvrtc.compile_kernel(source, "decode", {"D": 64}, 0, 1024)
    assert nvrtc.compile_kernel(source, "decode", {"D": 64}, 0, 1024) is first
    assert compiled == [["--gpu-architecture=sm_90", "--std=c++17", "-DD=64"]]
    others = [
        nvrtc.compile_kernel(SOURCES / "stage.cu", "decode", {"D": 64}, 0, 1024),
        nvrtc.compile_kernel(source, "merge", {"D": 64}, 0, 1024),
        nvrtc.compile_kernel(source, "decode", {"D": 128}, 0, 1024),
        nvrtc.compile_kernel(source, "decode", {"D": 64}, 1, 1024),
        nvrtc.compile_kernel(source, "decode", {"D": 64}, 0, 2048),
        nvrtc.compile_kernel(source, "decode", {"D": 64}, 0, 1024, own=True),
    ]
    assert len({id(kernel) for kernel in (first, *others)}) == len(compiled) == 7
    assert compiled[-1] == ["--gpu-architecture=sm_90a", "--std=c++17", "-DD=64"]


@pytest.mark.parametrize("limit", [232_448, 166_912, 101_376], ids=["H100", "A100", "RTX4090"])
@pytest.mark.parametrize("dim", [64, 80, 128, 256])
@pytest.mark.parametrize(
    "text", ["k16v16", "k8v8", "k4v4", "k2v2", "k4v4-kc", "k8v4-kc16", "k2v2-kc256"]
)
@pytest.mark.parametrize("many", [False, True])
def test_a_launch_fits_the_shared_memory(
    monkeypatch: pytest.MonkeyPatch, text: str, dim: int, limit: int, many: bool
) -> None:
    monkeypatch.setattr(nvrtc, "shared_memory", lambda device: limit)
    state = empty_state(text, dim=dim, tokens=512)
    constants = cuda_decode._constants(
        state.key, state.value, torch.bfloat16, 4, False, False, many, 0
    )
    step = 16 * constants["TILES"]
    assert constants["BLOCKS"] * constants["SHARED"] <= limit - 2048
    assert constants["BLOCKS"] * constants["WARPS"] <= 16
    if not many or dim > 128:
        assert constants["BLOCKS"] == 1
    assert constants["SHARED"] % (16 * constants["WARPS"]) == 0
    assert constants["SHARED"] >= constants["WARPS"] * 4 * dim * 4  # what the warps' merge needs
    if constants["KC"]:
        assert constants["KT"] % step == 0


@pytest.mark.parametrize(
    ("text", "steps"), [("k4v4-g64", 2), ("k4v4", 3), ("k2v2-g32", 3), ("k8v8", 3)]
)
def test_two_steps_are_in_flight_where_they_are_enough(
    monkeypatch: pytest.MonkeyPatch, text: str, steps: int
) -> None:
    monkeypatch.setattr(nvrtc, "shared_memory", lambda device: 232_448)
    state = empty_state(text, dim=128, tokens=512)
    found = cuda_decode._constants(
        state.key, state.value, torch.bfloat16, 4, False, False, False, 0
    )
    token = sum(cuda_decode._token_bytes(side) for side in (state.key, state.value))
    assert found["SHARED"] == steps * found["WARPS"] * found["TILES"] * 16 * token


@pytest.mark.parametrize("limit", [232_448, 166_912, 101_376], ids=["H100", "A100", "RTX4090"])
@pytest.mark.parametrize(
    ("bits", "dim"), [(4, 64), (4, 128), (4, 256), (8, 80), (8, 128), (8, 256)]
)
def test_a_launch_over_pages_fits_the_shared_memory(
    monkeypatch: pytest.MonkeyPatch, bits: int, dim: int, limit: int
) -> None:
    monkeypatch.setattr(nvrtc, "shared_memory", lambda device: limit)
    form = PageFormat(bits, dim)
    shared = decode_pages._Launch.shared(form, 8, 0)
    alone = decode_pages._Launch.alone(form, 8, 0)
    for launch in (shared, *([] if alone is None else [alone])):
        each = launch.bytes_ + decode_pages._static_shared(form, 8) + 1024  # the system's part
        assert launch.blocks * each <= limit + 1024
        assert launch.bytes_ >= launch.warps * launch.tiles * 16 * form.row_bytes
        merge = (launch.warps + 1) * 8 * dim * 4  # the warps' and its result
        assert launch.bytes_ >= merge
        assert launch.blocks * launch.warps <= (16 if dim <= 128 else 8)
    assert shared.blocks == 2


def test_few_rows_of_pages_have_a_multiprocessor_for_a_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where twelve warps with four steps in flight fit; else two blocks share one as always."""
    monkeypatch.setattr(nvrtc, "shared_memory", lambda device: 232_448)
    four = decode_pages._Launch.alone(PageFormat(4, 128), 4, 0)
    assert four == decode_pages._Launch(1, 12, 2, 12 * 4 * 32 * 136)
    assert decode_pages._Launch.alone(PageFormat(8, 128), 4, 0) is None
    assert decode_pages._Launch.alone(PageFormat(4, 256), 4, 0) is None


def test_constants_name_the_format() -> None:
    state = empty_state("k4v2-kc-g32", dim=64, tokens=64)
    found = format_constants(state.key, state.value, torch.bfloat16)
    assert found == {
        "D": 64, "KC": 1, "HALF": 0, "KB": 4, "KX": 0, "KG": 64, "KT": 32, "K_TENSOR": 0,
        "K_TABLE": 0, "VB": 2, "VX": 0, "VG": 32, "VT": 1, "V_TENSOR": 0, "V_TABLE": 0,
    }  # fmt: skip
    coded = empty_state("k6vlloyd3-g32", dim=64, tokens=64)
    found = format_constants(coded.key, coded.value, torch.bfloat16)
    assert [found[name] for name in ("KB", "KX", "K_TABLE")] == [4, 2, 0]
    assert [found[name] for name in ("VB", "VX", "V_TABLE")] == [2, 1, 2]


@pytest.mark.parametrize(
    ("text", "dim", "taken"),
    [("k4v4-g64", 128, True), ("k2v2-g32", 128, True), ("k4v4", 80, True), ("k8v8", 96, True),
     ("k4v4-g64", 80, False), ("k4v4-g64", 96, False), ("k16v2", 80, False), ("k6v4", 128, False),
     ("k8vfp8", 128, False), ("knf4v4", 128, False), ("k4v3", 128, False),
     ("knvfp4v4", 128, False), ("k4vmxfp4", 128, False)],
)  # fmt: skip
def test_groups_must_divide_a_head_among_lanes(text: str, dim: int, taken: bool) -> None:
    state = empty_state(text, dim=dim, tokens=8)
    assert (cuda_decode._deals(state.key, 4) and cuda_decode._deals(state.value, 8)) is taken


@pytest.mark.parametrize(
    ("rows", "held", "splits"),
    [(8, 131_072, 16), (2, 131_072, 66), (1, 131_072, 128), (8, 100, 2), (132, 4096, 1),
     (64, 4096, 2), (88, 4096, 3)],
)  # fmt: skip
def test_blocks_that_share_a_heads_tokens(rows: int, held: int, splits: int) -> None:
    # 88 rows alone leave 44 of 132 processors idle; 88 x 3 = 264 blocks are two full rounds.
    assert decode_splits(rows, 132, held) == splits


@pytest.mark.parametrize(
    ("group", "taken"), [(1, 1), (4, 4), (8, 8), (12, 6), (16, 8), (48, 8), (71, 1)]
)
def test_query_heads_of_a_block(group: int, taken: int) -> None:
    assert block_heads(group) == taken


def test_workspace_bytes_by_hand() -> None:
    # 8 heads x (128 + 128) channels x 2 bytes x 8,192 tokens
    assert staging_bytes(8, 128, 128, 131_136, 1024) == 33_554_432
    assert staging_bytes(8, 128, 128, 5_000, 1024) == 20_480_000
    # 2 heads of 1,024 bytes a token fill the same 2^25 bytes with four times as many
    assert segment_tokens(2, 128, 128, 1024) == 32_768
    assert staging_bytes(2, 128, 128, 131_136, 1024) == 33_554_432
    assert segment_tokens(32, 128, 128, 1024) == 8_192
    # few queries: twice as many tokens, for half the launches
    assert segment_tokens(8, 128, 128, 512) == 16_384
    assert staging_bytes(8, 128, 128, 131_136, 256) == 67_108_864
    # 16 parts of 32 heads x 130 floats, 8 counters
    assert partial_bytes(1, 32, 8, 128, 131_072, 132, False) == 16 * 32 * 130 * 4 + 8 * 4


@pytest.mark.parametrize(
    ("total", "n"), [(1000, 256), (33_068, 256), (131_072, 1024), (40_000, 20_000)]
)
def test_segments_cover_every_position_in_a_few_sizes(total: int, n: int) -> None:
    found = staged._segments(0, total, n, 8192)
    assert found[0][0] == 0
    assert found[-1][1] == total
    assert found[-1][0] <= total - n  # the chunk's own tokens are in the last, causal piece
    assert all(one[1] == two[0] for one, two in itertools.pairwise(found))
    sizes = {end - first for first, end in found[:-1]}
    assert sizes <= {2048, 4096, 6144, 8192} | {total - n - found[max(-2, -len(found))][0]}
    assert all(end - first <= max(n, 8192) for first, end in found)


@pytest.mark.parametrize(
    ("heads", "rows", "count", "parts"),
    [(8, 4 * 1024, 16_384, 1), (8, 4 * 256, 16_384, 2), (2, 8 * 256, 16_384, 4),
     (8, 4 * 64, 16_384, 8), (8, 4 * 64, 16_386, 2), (8, 4 * 64, 77, 1)],
)  # fmt: skip
def test_few_queries_attend_to_parts_side_by_side(
    heads: int, rows: int, count: int, parts: int
) -> None:
    assert staged._parts(heads, rows, count) == parts
