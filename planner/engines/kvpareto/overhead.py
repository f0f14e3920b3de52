"""GPU memory that the kvpareto runtime takes beside tensors: kernels, graphs, allocator slack."""

from ...engine import Interval, Slack
from ...hardware.gpus import Hardware
from ...memory.overhead import driver_context, measured_ends

# Libraries once they are loaded (cuBLAS, cuDNN, attention), our kernels, CUDA graphs and Triton's
# kernels: on an H200 250 MB for the first formats of a process up to 317 MB after a hundred,
# growing with every one that is compiled.
LIBRARIES = Interval(270_000_000, 230_000_000, 340_000_000)

# The cache is allocated at once, so that only activations leave holes, and some pages of 20 MiB
# are not full (116 runs of nine models, profiles/calibrations/runs_h200.jsonl).
SLACK = Slack((0.0, 0.0, 0.0), (0.12, 0.03, 0.24), (30e6, 0.0, 70e6))


def context(hardware: Hardware | None) -> Interval:
    """Device memory outside torch's allocator; as measured on this machine, if it was."""
    here = measured_ends(hardware, "context")
    if here is not None:
        return Interval(*(int(x) for x in here))
    return driver_context(hardware) + LIBRARIES


def slack(hardware: Hardware | None) -> Slack:
    """Reserved but unused bytes; as measured on this machine, if they were."""
    here = measured_ends(hardware, "slack")
    return SLACK if here is None else Slack(here)
