"""NVIDIA's compute capability of a card: what decides which kernels it has.

https://developer.nvidia.com/cuda-gpus, by the words of the cards' names.
"""

import re
from functools import lru_cache

from .gpus import Hardware

Capability = tuple[int, int]

_BY_NAME: tuple[tuple[str, Capability], ...] = (
    (r"\bGB10\b", (12, 1)),
    (r"\bThor\b|\bJetson T\d{4}\b", (11, 0)),
    (r"\bOrin\b", (8, 7)),
    (r"\bB300\b|\bGB300\b", (10, 3)),
    (r"\bB[12]00\b|\bGB200\b", (10, 0)),
    (r"\bAda\b", (8, 9)),
    (r"\bRTX 50\d\d\b|\bBlackwell\b", (12, 0)),
    (r"\b(?:GH|H)\d{2,3}\b", (9, 0)),
    (r"\bRTX 40\d\d\b|\bL4\b|\bL40S?\b|\bL20?\b", (8, 9)),
    (r"\bA100\b|\bA800\b|\bA30\b", (8, 0)),
    (r"\bRTX 30\d\d\b|\bRTX A\d{4}\b|\bA10G?\b|\bA16\b|\bA40\b|\bA2\b", (8, 6)),
    (r"\bRTX 20\d\d\b|\bQuadro RTX\b|\bTITAN RTX\b|\bT4\b|\bGTX 16\d\d\b", (7, 5)),
    (r"\bV100\b|\bTITAN V\b", (7, 0)),
    (r"\bGTX 10\d\d\b|\bP4\b|\bP40\b", (6, 1)),
    (r"\bP100\b", (6, 0)),
)


def compute_capability(gpu: Hardware) -> Capability | None:
    """(major, minor); None for cards of other makers, and where the name says too little."""
    return _by_name(gpu.name) if gpu.vendor == "nvidia" else None


@lru_cache(maxsize=256)
def _by_name(name: str) -> Capability | None:
    for pattern, capability in _BY_NAME:
        if re.search(pattern, name):
            return capability
    return None
