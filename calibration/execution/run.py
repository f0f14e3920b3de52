"""One configuration run for real, once: bytes by term and phase, seconds, or why it failed.

    with open_model(source, 4, device="cuda", random_weights=True) as opened:
        execution = execute(opened, Configuration.parse(text), Workload(32768, 128), budget=12 * GB)

Phases are load, cache, prefill and decode; what runs out of memory is an outcome that names its
term, not an exception, and leaves nothing behind. Times are of the last run of the prompt
(timing.py), bytes of every one (peak_memory.py).

On a GPU the allocator is capped (memory_cap.py), terms are the sizes of the real tensors, and
what the device holds is the driver's number. On a CPU there is no allocator to ask: weights and
cache are the sizes of the real tensors, and `counted` adds the planner's activation
to them; that sum is what is held to the budget.
"""

import gc
import statistics
import traceback
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from ...planner.engine import Engine
from ...planner.engines.kvpareto import KVPARETO
from ...planner.errors import BadInput, KVParetoError, NothingFits
from ...planner.formats.configuration import Configuration
from ...planner.memory.estimate import estimate
from ...planner.units import format_bytes
from ...planner.workload import Workload
from ..records.record_file import now
from .engines import ReadyRun, start
from .loaded_model import OpenModel
from .memory_cap import Cap, DeviceMemory
from .peak_memory import PeakMemory
from .run_record import Execution, Phase, RunRequest, Warmup, failure
from .timing import WARM_STEPS, first_token, p95, prompt, step_seconds, warm_tokens


def load_failure(error: Exception, asked: RunRequest, started: str) -> Execution:
    """The record of a model that could not be loaded. Raises `error` where it says that it cannot
    be read at all."""
    if isinstance(error, KVParetoError) and not isinstance(error, NothingFits):
        raise error
    _forget(error)
    return asked.record(started, failure(error, "load"))


def execute(
    opened: OpenModel,
    config: Configuration,
    workload: Workload,
    *,
    engine: Engine = KVPARETO,
    budget: int | None = None,
    warmup: Warmup = Warmup.FULL,
    generate: int | None = None,
) -> Execution:
    """Run `config` on a model that is open, with its weights in the configuration's format.

    `generate` tokens are decoded instead of all of the output, which the cache has room for all the
    same. Raises nothing but KeyboardInterrupt; everything that the run took is free when this
    returns.
    """
    started, memory = now(), opened.memory
    asked = RunRequest(
        opened.spec, config, workload, engine, opened.device.type, opened.random_weights,
        budget, warmup,
    )  # fmt: skip
    tokens = workload.output if generate is None else min(generate, workload.output)
    run = _Run(opened, asked, tokens)
    machine: ReadyRun | None = None
    try:
        if memory is not None:
            memory.settle()
            run.values["context_before"] = memory.context()
            memory.start_phase()
        with memory.held_to(budget) if memory is not None else nullcontext() as cap:
            try:
                machine = run.open()
                run.time(machine, cap)
            finally:
                run.values |= run.marks.read(run.phase, cap)
        outcome = run.within_budget()
    except Exception as error:
        outcome = failure(error, run.phase)
        _forget(error)
    finally:
        if machine is not None:
            machine.close()
        del machine
        gc.collect()
        _settle(memory)
    return asked.record(started, run.values | outcome)


@dataclass
class _Run:
    """A run under way: where it is, and what is known so far."""

    opened: OpenModel
    asked: RunRequest
    tokens: int
    """To decode."""
    phase: Phase = "cache"

    def __post_init__(self) -> None:
        self.memory = self.opened.memory
        self.marks = PeakMemory(self.memory, self.opened.peak, self.opened.reserved)
        self.values: dict[str, Any] = {
            "load_s": self.opened.seconds,
            "peaks": self.marks.peaks,  # to be filled
        }

    def open(self) -> ReadyRun:
        asked = self.asked
        if asked.config.weight_bits != self.opened.weight_bits:
            raise BadInput(
                f"the model is open at {self.opened.weight_bits} bits, not as {asked.config}",
                "open it with the configuration's weight bits",
            )
        machine = start(self.opened, asked.config, asked.workload, asked.engine, asked.budget)
        if self.memory is None:
            self._count(machine)
        return machine

    def time(self, machine: ReadyRun, cap: Cap | None) -> None:
        """Prefill and decode, with their times and marks."""
        self.phase = "prefill"
        workload, warmup, memory = self.asked.workload, self.asked.warmup, self.memory
        ids = prompt(self.opened.spec, workload)
        if warmup is not Warmup.NONE:
            short = warm_tokens(self.opened.spec, self.asked.config, workload.context)
            first = ids if warmup is Warmup.FULL else ids[:, :short]
            seconds, logits = first_token(machine, first, workload.output, memory)
            if first.shape == ids.shape:
                self.values["ttft_cold_s"] = seconds
            for _ in machine.decode(logits, min(WARM_STEPS, self.tokens)):
                pass
            del logits
            if cap is not None:
                cap.tighten()
        self.values["ttft_s"], logits = first_token(machine, ids, workload.output, memory)
        if warmup is Warmup.NONE:
            self.values["ttft_cold_s"] = self.values["ttft_s"]
        self.marks.mark("prefill")
        if memory is not None:
            self.values["allocated_resident"] = memory.allocated()
        self.phase = "decode"
        steps = step_seconds(machine, logits, self.tokens, memory)
        if steps:
            self.values |= {"tpot_s": statistics.median(steps), "tpot_p95_s": p95(steps)}
        self.marks.mark("decode")
        self.values |= {
            "steps": len(steps),
            "weights": machine.weights(),
            "kv": machine.kv(),
            "why_eager": machine.why_eager(),
        }

    def within_budget(self) -> dict[str, Any]:
        used, budget = self.values.get("device_used"), self.asked.budget
        if budget is None or used is None or used <= budget:
            return {"outcome": "ok"}
        outside = format_bytes(self.values["context_bytes"])
        return {
            "outcome": "out_of_memory",
            "term": "overhead",
            "reason": f"the device held {format_bytes(used)} at its worst, more than the budget "
            f"of {format_bytes(budget)}: {outside} of it outside torch's allocator",
        }

    def _count(self, machine: ReadyRun) -> None:
        """On a CPU: tensors' bytes and what the planner adds to them, within the budget."""
        asked, budget = self.asked, self.asked.budget
        planned = estimate(asked.spec, asked.config, asked.workload, asked.engine, None)
        rest = planned.activation  # of no tensor that is counted
        weights, kv = machine.weights(), machine.kv() or planned.kv
        self.values |= {"weights": weights, "kv": kv, "counted": weights + kv + rest}
        if budget is None or weights + kv + rest <= budget:
            return
        self.phase = "load" if weights + rest > budget else "cache"
        machine.close()
        raise NothingFits(
            f"{format_bytes(weights)} of weights and {format_bytes(kv)} of cache, with the "
            f"{format_bytes(rest)} that activations are planned to take, are more "
            f"than the budget of {format_bytes(budget)}",
            "fewer weight or KV bits, or a shorter context",
        )


def _forget(error: BaseException | None) -> None:
    """Let go of what the frames of an error and of its causes hold: tensors among it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _settle(memory: DeviceMemory | None) -> None:
    """Give memory back; a device that an error has made useless is left as it is."""
    if memory is None:
        return
    try:
        memory.settle()
    except RuntimeError:
        return
