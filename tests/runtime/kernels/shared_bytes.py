"""Prints the shared memory, in bytes, that the general attention kernel needs of a consumer card:
keys per channel in blocks of 128 with a window and sinks, for each DIM KEYS STAGES that is asked.

A process of its own: where the tests run, kernels are interpreted and cannot be compiled.
"""

import json
import sys

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from kvpareto.runtime.kernels import triton_attend

ADA = GPUTarget("cuda", 89, 32)
POINTERS = {
    "Q": "*bf16", "OUT": "*fp32", "LSE": "*fp32", "CLOCK": "*i32", "STARTS": "*i32",
    "KV": "*i32", "KP": "*i32", "KR": "*bf16", "KS": "*bf16", "KM": "*i8", "KL": "*fp32",
    "VV": "*i32", "VP": "*i32", "VR": "*bf16", "VS": "*bf16", "VM": "*i8", "VL": "*fp32",
}  # fmt: skip


def shared_bytes(dim: int, keys: int, stages: int) -> int:
    """Of a block, 2-bit keys and values of `dim` channels, tiles of 64 rows by `keys`."""
    kernel = triton_attend._attend
    constants: dict[str, int] = {
        "GROUP": 4, "CAPPED": False, "WIDE_DOT": False, "ALIGNED": False, "ROWS": 64, "KEYS": keys,
    }  # fmt: skip
    for side, kind, block, width in (("K", 1, 128, dim), ("V", 0, 1, 64)):
        form = {"BITS": 2, "DIM": dim, "WIDTH": width, "BLOCK": block, "KIND": kind}
        form |= {"WORDS": dim // 16, "HELD": True, "FIRST": True, "EXTRA": 0, "TABLE": 0}
        constants |= {f"{side}_{name}": value for name, value in form.items()}
    types = POINTERS | dict.fromkeys(("scale", "softcap"), "fp32")
    types |= dict.fromkeys(constants, "constexpr")
    places = {name: place for place, name in enumerate(kernel.arg_names)}
    source = ASTSource(
        kernel,
        {name: types.get(name, "i32") for name in kernel.arg_names},
        {(places[name],): value for name, value in constants.items()},
        {(places[name],): [["tt.divisibility", 16]] for name in POINTERS},
    )
    built = compile(source, target=ADA, options={"num_warps": 4, "num_stages": stages})
    return int(built.metadata.shared)


if __name__ == "__main__":
    print(json.dumps([shared_bytes(*map(int, asked.split(","))) for asked in sys.argv[1:]]))
