"""The passes of a run and their seconds: a warm-up, the first token, the steps after it.

Warm-up. The first prefill of a process compiles kernels, captures graphs and loads libraries. With
Warmup.FULL the prompt is run twice, and the second time counts (the first is `ttft_cold_s`); with
SHORT a prompt of a few chunks goes before; with NONE the first run counts. Times are the host's,
from before the call to the token in the host's memory.
"""

import time
from itertools import pairwise

import torch
from torch import Tensor

from ...planner.formats.configuration import Configuration
from ...planner.memory.activation.workspace import GRAPH_FROM, segment_tokens
from ...planner.models.spec import Attention, ModelSpec
from ...planner.workload import Workload
from ...runtime.failures import check_finite
from .engines import ReadyRun
from .memory_cap import DeviceMemory

WARM_ONE_SHOT = 2048  # tokens of a short warm-up for a prompt in one shot
WARM_STEPS = 3  # steps of decoding before those that count: the first captures a graph
SEED = 0


def prompt(spec: ModelSpec, workload: Workload) -> Tensor:
    """Random tokens int64 [B, context]: memory and time do not depend on what they say."""
    make = torch.Generator().manual_seed(SEED)
    return torch.randint(0, spec.token_rows, (workload.batch, workload.context), generator=make)


def warm_tokens(spec: ModelSpec, config: Configuration, context: int) -> int:
    """Tokens of a short warm-up: as many chunks as a capture asks for, and a past as long as the
    longest segment that chunks stage, so that the library has planned every size of them."""
    chunk = config.largest_chunk
    if chunk is None:
        return min(context, WARM_ONE_SHOT)
    segment = max(
        (
            segment_tokens(mixer.kv_heads, mixer.head_dim, mixer.value_dim, chunk)
            for mixer, _ in spec.mixer_counts
            if isinstance(mixer, Attention)
        ),
        default=0,
    )
    return min(context, max(GRAPH_FROM * chunk, segment + 2 * chunk))


def first_token(
    machine: ReadyRun, ids: Tensor, output: int, memory: DeviceMemory | None
) -> tuple[float, Tensor]:
    """Prefill `ids` [B, T]: seconds to the first token, and the logits it was taken from. The
    cache has room for `output` more. Raises NotFinite."""
    if memory is not None:
        memory.wait()
    begun = time.perf_counter()
    logits = machine.prefill(ids, output)
    logits.argmax(-1).tolist()  # on the host: nothing is left to wait for
    seconds = time.perf_counter() - begun
    check_finite(logits, "after the prompt")
    return seconds, logits


def step_seconds(
    machine: ReadyRun, logits: Tensor, tokens: int, memory: DeviceMemory | None
) -> list[float]:
    """Seconds between tokens. The runtime launches a step before it hands out the token
    before it: on a GPU that token comes at once and the first interval is none; on a CPU the
    step is done by then, and the last token's interval is none."""
    ends = [time.perf_counter()]
    for _ in machine.decode(logits, tokens):
        ends.append(time.perf_counter())
    steps = [after - before for before, after in pairwise(ends)]
    if machine.session is None:
        return steps
    return steps[1:] if memory is not None else steps[:-1]


def p95(values: list[float]) -> float:
    """The value that one in twenty is above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
