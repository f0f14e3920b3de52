"""One configuration run for real, once: bytes by term and phase, seconds, or why it failed.

    with open_model(source, 4, device="cuda", random_weights=True) as opened:
        found = execute(opened, Configuration.parse(text), Workload(32768, 128), budget=12 * GB)

Phases are load, cache, prefill and decode; what runs out of memory is an outcome that names its
term, not an exception, and leaves nothing behind.

Warm-up. The first prefill of a process compiles kernels, captures graphs and loads libraries. With
Warmup.FULL the prompt is run twice, and the second time counts (the first is `ttft_cold_s`); with
SHORT a prompt of a few chunks goes before; with NONE the first run counts. Times are the host's,
from before the call to the token in the host's memory. Bytes are of all passes.

On a GPU the allocator is capped (device_memory.py), terms are the sizes of the real tensors, and
what the device holds is the driver's number. On a CPU there is no allocator to ask: weights and
cache are the sizes of the real tensors, and `counted` adds the planner's activation and overhead
to them; that sum is what is held to the budget.
"""

import gc
import statistics
import time
import traceback
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..planner.activation.workspace import segment_tokens
from ..planner.configuration import Configuration
from ..planner.errors import BadInput, KVParetoError, NothingFits
from ..planner.memory import MemoryEstimate, estimate
from ..planner.model_source import load_model
from ..planner.model_spec import Attention, ModelSpec
from ..planner.units import format_bytes
from ..planner.workload import Engine, Workload
from ..runtime.prefill import GRAPH_FROM
from .device_memory import Cap, DeviceMemory
from .engines import Machine, start
from .execution_record import Asked, Execution, Phase, Warmup, failure
from .open_model import OpenModel, open_model
from .records import now

__all__ = ["Asked", "Execution", "Warmup", "execute", "load_failure", "run_configuration"]

WARM_ONE_SHOT = 2048  # tokens of a short warm-up for a prompt in one shot
WARM_STEPS = 3
SEED = 0


def run_configuration(
    source: str,
    config: Configuration,
    workload: Workload,
    *,
    device: str,
    engine: Engine = Engine.KVPARETO,
    budget: int | None = None,
    random_weights: bool = False,
    warmup: Warmup = Warmup.FULL,
    generate: int | None = None,
    offline: bool = False,
) -> Execution:
    """Load `source` and run it under `config`; see `execute`. Raises BadInput where the model
    cannot be read; that it does not fit, or crashes, is an outcome."""
    started = now()
    spec = load_model(source, offline=offline)
    asked = Asked(spec, config, workload, engine, device, random_weights, budget, warmup)
    try:
        with open_model(
            source,
            config.weight_bits,
            device=device,
            random_weights=random_weights,
            budget=budget,
            offline=offline,
        ) as opened:
            return execute(
                opened,
                config,
                workload,
                engine=engine,
                budget=budget,
                warmup=warmup,
                generate=generate,
            )
    except Exception as error:
        return load_failure(error, asked, started)


def load_failure(error: Exception, asked: Asked, started: str) -> Execution:
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
    engine: Engine = Engine.KVPARETO,
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
    asked = Asked(
        opened.spec, config, workload, engine, opened.device.type, opened.random_weights,
        budget, warmup,
    )  # fmt: skip
    tokens = workload.output if generate is None else min(generate, workload.output)
    run = _Run(opened, asked, tokens)
    machine: Machine | None = None
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
                run.read(cap)
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


def prompt(spec: ModelSpec, workload: Workload) -> Tensor:
    """Random tokens int64 [B, context]: memory and time do not depend on what they say."""
    make = torch.Generator().manual_seed(SEED)
    return torch.randint(0, spec.vocab, (workload.batch, workload.context), generator=make)


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


def rest_of(planned: MemoryEstimate) -> int:
    """Bytes that are not tensors of weights or cache, as planned."""
    return planned.activation + planned.overhead


@dataclass
class _Run:
    """A run under way: where it is, and what is known so far."""

    opened: OpenModel
    asked: Asked
    tokens: int
    """To decode."""
    phase: Phase = "cache"
    values: dict[str, Any] = field(default_factory=dict)
    reserved: int = 0

    def __post_init__(self) -> None:
        self.values["load_s"] = self.opened.seconds
        if self.opened.peak is not None:
            self.values["peaks"] = {"load": self.opened.peak}
            self.reserved = self.opened.reserved or 0

    @property
    def memory(self) -> DeviceMemory | None:
        return self.opened.memory

    def open(self) -> Machine:
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

    def time(self, machine: Machine, cap: Cap | None) -> None:
        """Prefill and decode, with their times and marks."""
        self.phase = "prefill"
        workload, warmup = self.asked.workload, self.asked.warmup
        ids = prompt(self.opened.spec, workload)
        if warmup is not Warmup.NONE:
            short = warm_tokens(self.opened.spec, self.asked.config, workload.context)
            first = ids if warmup is Warmup.FULL else ids[:, :short]
            seconds, logits = self._first_token(machine, first)
            if first.shape == ids.shape:
                self.values["ttft_cold_s"] = seconds
            for _ in machine.decode(logits, min(WARM_STEPS, self.tokens)):
                pass
            del logits
            if cap is not None:
                cap.tighten()
        self.values["ttft_s"], logits = self._first_token(machine, ids)
        if warmup is Warmup.NONE:
            self.values["ttft_cold_s"] = self.values["ttft_s"]
        self._mark("prefill")
        if self.memory is not None:
            self.values["allocated_resident"] = self.memory.allocated()
        self.phase = "decode"
        steps = self._step_seconds(machine, logits)
        if steps:
            self.values |= {"tpot_s": statistics.median(steps), "tpot_p95_s": _p95(steps)}
        self._mark("decode")
        self.values |= {
            "steps": len(steps),
            "weights": machine.weights(),
            "kv": machine.kv(),
            "why_eager": machine.why_eager(),
        }

    def read(self, cap: Cap | None) -> None:
        """What the allocator and the driver say, while the run still holds its memory."""
        memory = self.memory
        if memory is None:
            return
        try:
            self._mark(self.phase)
            context = memory.context()
            workspace = memory.workspace()
        except RuntimeError:  # an error has made the device useless
            return
        peaks = {name: self.values["peaks"].get(name, 0) for name in ("load", "prefill", "decode")}
        highest = max(peaks, key=lambda name: int(peaks[name]))
        self.values |= {
            "allocated_peak": peaks[highest],
            "peak_phase": highest,
            "workspace": workspace,
            "reserved_peak": self.reserved,
            "context_bytes": context,
            "device_used": context + self.reserved,
            "allowed": cap.allowed if cap is not None else None,
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

    def _first_token(self, machine: Machine, ids: Tensor) -> tuple[float, Tensor]:
        if self.memory is not None:
            self.memory.wait()
        begun = time.perf_counter()
        logits = machine.prefill(ids, self.asked.workload.output)
        logits.argmax(-1).tolist()  # on the host: nothing is left to wait for
        return time.perf_counter() - begun, logits

    def _step_seconds(self, machine: Machine, logits: Tensor) -> list[float]:
        """Seconds between tokens. The runtime launches a step before it hands out the token
        before it: on a GPU that token comes at once and the first interval is none; on a CPU the
        step is done by then, and the last token's interval is none."""
        ends = [time.perf_counter()]
        for _ in machine.decode(logits, self.tokens):
            ends.append(time.perf_counter())
        steps = [after - before for before, after in pairwise(ends)]
        if machine.session is None:
            return steps
        return steps[1:] if self.memory is not None else steps[:-1]

    def _mark(self, name: str) -> None:
        """Keep the phase's high-water marks, and begin a new phase."""
        if self.memory is None:
            return
        allocated, reserved = self.memory.marks()
        peaks = self.values.setdefault("peaks", {})
        peaks[name] = max(allocated, peaks.get(name, 0))
        self.reserved = max(self.reserved, reserved)
        self.memory.start_phase()

    def _count(self, machine: Machine) -> None:
        """On a CPU: tensors' bytes and what the planner adds to them, within the budget."""
        asked, budget = self.asked, self.asked.budget
        planned = estimate(asked.spec, asked.config, asked.workload, asked.engine, None)
        rest = rest_of(planned)
        weights, kv = machine.weights(), machine.kv() or planned.kv
        self.values |= {"weights": weights, "kv": kv, "counted": weights + kv + rest}
        if budget is None or weights + kv + rest <= budget:
            return
        self.phase = "load" if weights + rest > budget else "cache"
        machine.close()
        raise NothingFits(
            f"{format_bytes(weights)} of weights and {format_bytes(kv)} of cache, with the "
            f"{format_bytes(rest)} that activations and overhead are planned to take, are more "
            f"than the budget of {format_bytes(budget)}"
        )


def _p95(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


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
