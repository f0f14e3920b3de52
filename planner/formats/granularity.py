"""Granularities: which values of a cache share one scale and one offset.

A new one is a member here, its words in grammar.py, its checks in configuration.py, its buffers in
kv_format.py, its noise in planner/accuracy/formula.py; CONTRIBUTING.md has the steps.
"""

from enum import StrEnum


class Granularity(StrEnum):
    """What shares one scale and one offset."""

    PER_TOKEN = "per-token"
    PER_CHANNEL = "per-channel"
    PER_BLOCK = "per-block"
    PER_TENSOR = "per-tensor"
