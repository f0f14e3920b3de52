"""Kernels of few rows as a Hopper GPU gets them, compiled without one: nothing may leave registers.

What does not fit is kept in local memory, which the driver sets aside for every thread that the
GPU can hold, for as long as the process lives: 0.5 GB on an H200 for one such kernel.
"""

import ctypes
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

from kvpareto.planner.latency.parts_cut import cut_of
from kvpareto.runtime.kernels import nvrtc
from kvpareto.runtime.weights.cuda import cuda_parts

SCRIPT = """
import re, subprocess, tempfile
from pathlib import Path
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kvpareto.runtime.weights import kernels_tile, launch
from kvpareto.runtime.weights.grouped import kernels as grouped, products

TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
KINDS = {"x": "*i32", "words": "*i32", "zeros": "*i32", "scales": "*bf16", "bias": "*bf16",
         "y": "*bf16", "partial": "*fp32", "counters": "*i32"}

def stack(kernel, constants, warps, kinds=KINDS, aligned=KINDS):
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else kinds.get(n, "i32") for n in names}
    places = {(names.index(n),): value for n, value in constants.items()}
    aligned = {(names.index(n),): [["tt.divisibility", 16]] for n in names
               if n in aligned and n not in constants}
    source = ASTSource(fn=kernel, signature=signature, constexprs=places, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        said = subprocess.run([TOOL, "-res-usage", file.name], capture_output=True, text=True)
    return int(re.search(r"STACK:(\\d+)", said.stdout + said.stderr).group(1))

for rows, columns, warps in launch._TILES:
    common = {"BLOCK_M": rows, "BLOCK_N": columns, "HAS_BIAS": True, "X_BF16": True,
              "DOT": tl.bfloat16, "STAGES": 3}
    eight = {**common, "LANES": 16, "BIAS": kernels_tile.BIAS8}
    print("tile8", rows, stack(kernels_tile.tile8, eight, warps))
    for group in (32, 128):
        four = {**common, "GROUP": group, "BLOCK": kernels_tile.BLOCK4, "ROWS": kernels_tile.ROWS4}
        print("tile4", rows, stack(kernels_tile.tile4, four, warps))

GROUPED = KINDS | {"x": "*bf16", "scales": "*fp16", "pairs": "*i64", "ends": "*i32"}
for pairs in (512, 2048, 4096, 8192):
    plan = products.tile_plan(pairs, 64)
    common = {"EVERY": 6, "BLOCK_E": 64, "BLOCK_M": plan.rows, "BLOCK_N": plan.columns,
              "EVEN": True, "HAS_BIAS": True, "DOT": tl.bfloat16, "STAGES": plan.stages,
              "BLOCK": 128, "BIAS": 128, "FLOOR": 8388608, "words_column": 1}
    eight = {**common, "BITS": 8, "GROUP": 128, "zeros": None, "scales_row": 1}
    four = {**common, "BITS": 4, "GROUP": 32}
    every = [n for n in grouped.grouped.arg_names if n != "E"]
    for name, kind in (("grouped8", eight), ("grouped4", four)):
        print(name, plan.rows, stack(grouped.grouped, kind, plan.warps, GROUPED, every))
"""


def test_tiles_keep_to_their_registers() -> None:
    clean = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=clean, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [line.split() for line in done.stdout.splitlines()]
    assert len(found) == 9 + 8
    assert {(kernel, rows): int(size) for kernel, rows, size in found if int(size)} == {}


def test_products_of_16_rows_keep_to_their_registers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A word that finds none is stored when it has come, so a warp waits for what it just asked
    for. The first words are asked for before the launch before has ended (ACQBULK waits for it)."""
    import triton

    wheels = importlib.util.find_spec("nvidia")
    places = wheels.submodule_search_locations if wheels else None
    found = [lib for place in places or () for lib in Path(place).glob("*/lib/libnvrtc.so.*")]
    if not found:
        pytest.skip("needs NVRTC's wheel, no GPU")
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    library = ctypes.CDLL(str(found[0]))
    monkeypatch.setattr(nvrtc, "_nvrtc", lambda: library)
    for inputs, out, gated in (
        (4096, 28672, 1),
        (4096, 6144, 0),
        (4096, 4096, 0),
        (14336, 4096, 0),
        (2048, 24576, 1),  # the last two have warps of several strips
        (8192, 3072, 0),
    ):
        coarse = 4 if gated else 1
        cut = cut_of(inputs, out, 16, gated, coarse, 132, 231_424)
        assert cut is not None
        strips = cut.strips(out // 32 // (1 + gated), bool(gated), coarse)
        constants = {
            "HALF": 0, "SCALES_HALF": 1, "ROWS": 16, "GATED": gated, "SPLITS": cut.splits,
            "SLICES": cut.slices, "WARPS": cut.warps, "AHEAD": cut.ahead, "COARSE": coarse,
            "READY": 1, "MAKES": gated, "ONE": int(strips <= cut.warps // cut.slices),
            "WORDS_ROW": out, "SCALES_ROW": out, "ZEROS_ROW": out // 8,
        }  # fmt: skip
        options = ["--gpu-architecture=sm_90", "--std=c++17"]
        options += [f"-D{name}={value}" for name, value in constants.items()]
        file = tmp_path / "parts.cubin"
        file.write_bytes(nvrtc._compile(cuda_parts._SOURCE, options))
        used = [tools / "cuobjdump", "-res-usage", file]
        said = subprocess.run(used, capture_output=True, text=True)
        stack = re.search(r"STACK:(\d+)", said.stdout + said.stderr)
        assert stack is not None
        assert int(stack[1]) == 0, (inputs, out)
        code = subprocess.run([tools / "nvdisasm", "-c", file], capture_output=True, text=True)
        before, wait, _ = code.stdout.partition("ACQBULK")
        assert wait
        assert before.count("LDG.E.NA.128") == 4 * cut.ahead, (inputs, out)
