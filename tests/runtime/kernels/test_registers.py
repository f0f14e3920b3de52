"""Kernels of latents and of blocks as a Hopper GPU gets them, compiled without one: nothing leaves
registers.

What does not fit is local memory, which the driver sets aside for every thread that the GPU can
hold (tests/runtime/weights/test_registers.py). Shared memory is that of a consumer card: 99 KB.
"""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

SCRIPT = """
import re, subprocess, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kvpareto.planner.memory.activation.workspace import LATENT_KEYS, LATENT_ROWS
from kvpareto.runtime.kernels import latent, triton_append

TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"

def used(kernel, constants, kinds):
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else kinds.get(n, "i32") for n in names}
    places = {(names.index(n),): value for n, value in constants.items()}
    pointers = [n for n in names if kinds.get(n, "")[:1] == "*"]
    aligned = {(names.index(n),): [["tt.divisibility", 16]] for n in pointers}
    source = ASTSource(fn=kernel, signature=signature, constexprs=places, attrs=aligned)
    options = {"num_warps": latent.WARPS, "num_stages": latent.STAGES}
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        said = subprocess.run([TOOL, "-res-usage", file.name], capture_output=True, text=True)
    stack = re.search(r"STACK:(\\d+)", said.stdout + said.stderr).group(1)
    return stack, made.metadata.shared

def side(letter, bits, dim, extra=0, table=0):
    names = ("BITS", "DIM", "WIDTH", "BLOCK", "KIND", "WORDS", "HELD", "FIRST", "EXTRA", "TABLE")
    values = (bits, dim, min(dim, 64), 1, 0, dim * bits // 32, False, False, extra, table)
    return {letter + name: value for name, value in zip(names, values)}

# bits of a code's first part, of rotary keys, of its second part, and what codes stand for
for bits, rope, extra, table in ((16, 16, 0, 0), (8, 16, 0, 0), (4, 16, 0, 0), (4, 8, 0, 0),
                                 (4, 16, 2, 0), (2, 16, 1, 2), (4, 16, 0, 3), (4, 16, 0, 4)):
    k, v = ("*bf16" if b == 16 else "*i32" for b in (bits, rope))
    kinds = {"Q": "*bf16", "T": "*bf16", "OUT": "*fp32", "LSE": "*fp32", "CLOCK": "*i32",
             "STARTS": "*i32", "KV": k, "KP": k, "KR": k, "KS": k, "VV": v, "VP": v, "VR": v,
             "VS": v, "scale": "fp32", "KM": "*i16", "KL": "*fp32", "VM": "*i16", "VL": "*fp32"}
    pairs = "*u8" if table > 2 else k
    kinds["KP"] = pairs
    constants = {"GROUP": 20, "WIDE_DOT": False, "ROWS": LATENT_ROWS, "KEYS": LATENT_KEYS}
    constants |= side("K_", bits, 512, extra, table) | side("V_", rope, 64)
    print("attend", bits, rope, extra, table, *used(latent.attend_tile, constants, kinds))
    kinds = {"OUT": "*bf16", "CLOCK": "*i32", "VALUES": k, "PAIRS": pairs, "RESIDUAL": k,
             "SINKS": k, "MORE": "*i16", "LEVELS": "*fp32"}
    constants = {"KEYS": LATENT_KEYS, **side("", bits, 512, extra, table)}
    print("write", bits, rope, extra, table, *used(latent.write_tile, constants, kinds))

# blocks packed: channels of a block, and what codes stand for
for width, table in ((16, 3), (32, 4)):
    kinds = {"X": "*bf16", "RESIDUAL": "*bf16", "VALUES": "*u8", "PAIRS": "*u8", "CLOCK": "*i32",
             "LEVELS": "*fp32", "margin": "fp32"}
    constants = {"BLOCK": 1, "BITS": 4, "DIM": 128, "WIDTH": width, "GROUPS": 128 // width,
                 "WIDE": width, "MANY": 128 // width, "TOKENS": 16, "CHANNELS": False,
                 "WAITED": True, "MAIN": 4, "TABLE": table, "CLIPS": False}
    print("pack", 4, 4, 0, table, *used(triton_append._pack, constants, kinds))
"""


def test_kernels_keep_to_their_registers() -> None:
    clean = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=clean, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 18
    assert {tuple(row[:5]): int(row[5]) for row in rows if int(row[5])} == {}
    assert all(int(row[6]) <= 99 * 1024 for row in rows)
