"""The instruction sets that torch can use on this CPU, beside the one it chooses, one a line.

`make test` runs under what torch chooses. Rounding differs under the others, so `make cpu-test`
runs the tests of arithmetic (marker `cpu`) under each of them by ATEN_CPU_CAPABILITY. torch
believes that variable blindly, so only what the CPU has may be named.
"""

import os

CAPABILITIES = ("default", "avx2", "avx512")
"""In order: a CPU that has one has those before it."""


def others(chosen: str) -> tuple[str, ...]:
    """Those below `chosen`, torch's own name of what it chose; none on other processors."""
    name = chosen.lower()
    return CAPABILITIES[: CAPABILITIES.index(name)] if name in CAPABILITIES else ()


if __name__ == "__main__":
    os.environ.pop("ATEN_CPU_CAPABILITY", None)
    import torch

    print(*others(torch.backends.cpu.get_cpu_capability()), sep="\n")
