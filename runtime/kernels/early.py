"""Launches that begin before the one before them has ended (programmatic dependent launch).

A decode step is some three hundred short launches, each of which would wait until the last block
of the one before is done and its writes are seen: two microseconds of an idle GPU. From compute
capability 9.0 on a launch may begin as soon as every block of its predecessor has begun, do what
depends on nothing (weights on their way from memory), and then wait for the predecessor's end
itself. Every kernel that is launched so waits before it reads what others wrote, and before it
writes anything: the end of one then means the end of all before it.
"""

import torch

from . import nvrtc


def options(device: torch.device) -> dict[str, bool]:
    """What a Triton kernel with a constant EARLY is launched with: whether it begins early."""
    overlaps = device.type == "cuda" and nvrtc.overlaps(device.index or 0)
    return {"EARLY": True, "launch_pdl": True} if overlaps else {"EARLY": False}
