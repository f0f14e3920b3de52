"""How many loads ahead a Triton kernel may be: as many as the card's shared memory holds.

A loop of S stages keeps what it loads for S - 1 rounds in shared memory. How much that is, only
the compiler knows: keys with scales per channel need four times what scales per token need. And
cards differ: 227 KB a block on Hopper, 163 on A100, 99 on consumer cards. So a launch that does
not fit is tried again with a stage less, and the number that fits is remembered.
"""

from collections.abc import Callable, Hashable

from triton.runtime.errors import OutOfResources

_fitting: dict[Hashable, int] = {}


def deepest(variant: Hashable, most: int, launch: Callable[[int], object]) -> None:
    """`launch(stages)` with `most` stages, or as many below as fit.

    `variant` names what the compiler sees: the kernel, its constants, its types, the device.
    Raises OutOfResources if one stage does not fit either.
    """
    stages = _fitting.get(variant, most)
    while True:
        try:
            launch(stages)
        except OutOfResources:
            if stages == 1:
                raise
            stages -= 1
            _fitting[variant] = stages
        else:
            return
