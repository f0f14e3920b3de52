"""GPU memory that transformers takes beside tensors: libraries and allocator slack."""

from ...engine import Interval, Slack
from ...formats.configuration import Configuration
from ...hardware.gpus import Hardware
from ...memory.overhead import driver_context

# Libraries once they are loaded (cuBLAS, cuDNN, attention), on an H200.
LIBRARIES = Interval(176_160_768, 0, 270_000_000)

# From the rows of profiles/calibrations/memory_h200_baseline.jsonl: median, and limits somewhat
# wider than seen (0.18 in one shot, 0.32 in chunks, 0.26 quantized). A process with memory to
# spare and torch's default allocator caches far more and gives it back when it is needed
# (docs/memory.md).
ONE_SHOT = Slack((0.05, 0.0, 0.30))
CHUNKED = Slack((0.15, 0.05, 0.40))
QUANTIZED = Slack((0.12, 0.03, 0.35))


def context(hardware: Hardware | None) -> Interval:
    """Device memory outside torch's allocator."""
    return driver_context(hardware) + LIBRARIES


def slack(config: Configuration) -> Slack:
    """Reserved but unused bytes: caches that grow by concatenation leave holes."""
    if config.quantizes_kv:
        return QUANTIZED
    return ONE_SHOT if config.chunk is None else CHUNKED
