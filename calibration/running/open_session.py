"""From what was typed to a session that answers: which configuration, how long a cache.

--plan plan.json     what the plan recommends, its context and its batch
--config CONFIG      this configuration
--budget 8GB         what is recommended for that memory
nothing of these     what is recommended for the memory that is free here

`prepare` comes before the weights, and refuses all that config, tokenizer and options tell;
`open_session` loads them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...planner.engines.kvpareto import KVPARETO
from ...planner.errors import BadInput, Interrupted, MissingDependency, NothingFits
from ...planner.formats.configuration import Configuration
from ...planner.libraries import importing
from ...planner.load_model import load_model
from ...planner.memory.estimate import estimate
from ...planner.models.protected import check_layers
from ...planner.models.spec import ModelSpec
from ...planner.search.request import Request
from ...planner.units import format_bytes, parse_bytes, parse_tokens
from ...planner.workload import Workload, default_context, default_output
from ...report.saved_plan import planned_configuration, read_plan
from ..execution.device import as_loaded, check_name, choose
from ..recommended import recommend_on

if TYPE_CHECKING:
    from ...runtime.generation.sampling import Sampling
    from ...runtime.load_weights import WeightsAhead
    from ...runtime.session import Session

CONTEXT = 4096
"""Prompt tokens that the cache has room for when nobody says how many."""
KEPT_FREE = 0.9
"""Of the memory that is free, what a recommendation may take where no budget is typed."""


@dataclass(frozen=True)
class RunOptions:
    """What was typed for `run` and `chat`; `batch`: sequences at once."""

    model: str | None = None
    plan: Path | None = None
    config: str | None = None
    budget: str | None = None
    context: str | None = None
    output: str | None = None
    batch: int = 1
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0
    device: str | None = None
    offline: bool = False
    trust_remote_code: bool = False
    command: str = "run"


@dataclass(frozen=True)
class PreparedRun:
    """What is to run, looked at as far as that goes without weights; `work` is what the cache has
    room for, `dynamic` chooses chunks of +pcdyn."""

    ahead: "WeightsAhead"
    config: Configuration
    work: Workload
    sampling: "Sampling"
    dynamic: Callable[[int], int] | None

    @property
    def spec(self) -> ModelSpec:
        return self.ahead.spec

    @property
    def tokenizer(self) -> Any:
        return self.ahead.tokenizer

    @property
    def context(self) -> int:
        return self.work.context

    @property
    def output(self) -> int:
        return self.work.output


@dataclass(frozen=True)
class OpenSession:
    """A session, and what runs in it."""

    session: "Session"
    run: PreparedRun

    @property
    def heading(self) -> str:
        """One line for stderr: what runs, and in how much memory."""
        use, run = self.session.memory(), self.run
        rows = self.session.cache.clock.starts.shape[0]
        several = f"{rows} x " if rows > 1 else ""
        return (
            f"{run.spec.name}  {run.config}  weights {format_bytes(use.weights)}, cache of "
            f"{several}{run.work.tokens:,} tokens {format_bytes(use.kv)}, "
            f"{self.session.device.type}"
        )

    def document(self) -> dict[str, Any]:
        """The fields that every answer's document begins with."""
        use = self.session.memory()
        return {
            "schema": 1,
            "model": self.run.spec.name,
            "config": str(self.run.config),
            "device": self.session.device.type,
            "context": self.run.context,
            "output": self.run.output,
            "memory": {"weights": use.weights, "kv": use.kv},
        }


def check(options: RunOptions) -> None:
    """Raise BadInput for what says nothing, or two things; before a library is asked for."""
    prompt = ' "prompt"' if options.command == "run" else ""
    hint = (
        f"kvpareto {options.command} -m MODEL{prompt}, "
        "with --plan, --config or --budget, or none of them"
    )
    named = [n for n in ("plan", "config", "budget") if getattr(options, n) is not None]
    if len(named) > 1:
        raise BadInput(f"--{named[0]} beside --{named[1]}: two answers to what is to run", hint)
    if options.plan is None and options.model is None:
        raise BadInput("no model", hint)
    if options.config is not None:
        Configuration.parse(options.config)
    if options.budget is not None:
        parse_bytes(options.budget)
    if options.context is not None:
        parse_tokens(options.context)
    if options.output is not None:
        parse_tokens(options.output, what="output")
    if options.batch < 1:
        raise BadInput(f"--at-once {options.batch} runs nothing", "--at-once is 1 or more")
    if not 0 <= options.seed < 2**63:
        raise BadInput(f"--seed {options.seed} is no seed", "--seed is 0 or more, below 2^63")
    heat, part = options.temperature, options.top_p
    top_k = 1 if options.top_k is None else options.top_k
    if not (0 <= heat < inf and 0 < part <= 1 and top_k >= 1):
        raise BadInput(
            f"temperature {options.temperature}, top-k {options.top_k}, top-p {options.top_p}",
            "temperature is a number of at least 0, top-k at least 1, top-p above 0 and at most 1",
        )
    if options.temperature == 0 and (options.top_k is not None or options.top_p < 1):
        raise BadInput(
            "--top-k and --top-p choose nothing at --temperature 0, which is greedy",
            "--temperature 0.7, or leave them out",
        )
    check_name(options.device)


def prepare(options: RunOptions) -> PreparedRun:
    """All but the weights: which configuration, its cache, the tokenizer.

    Raises BadInput, NothingFits, MissingDependency (no runtime, no GPU that was asked for).
    """
    check(options)
    device = _device(options.device, options.command)
    source, spec, config, work = _question(options, device)
    obstacle = KVPARETO.cannot_run(replace(spec, dtype="bfloat16"))
    if obstacle is not None:
        raise BadInput(obstacle, "--engine transformers of `estimate` plans what transformers runs")
    _check_memory(spec, config, work, device)
    import torch

    from ...runtime.cache.kv_cache import check_cache
    from ...runtime.generation.sampling import Sampling
    from ...runtime.load_weights import before_weights
    from ...runtime.loading import dynamic_chunks

    where = torch.device(device)
    ahead = before_weights(
        source, config.weight_bits, where, offline=options.offline,
        trust_remote_code=options.trust_remote_code,
    )  # fmt: skip
    if ahead.tokenizer is None:
        raise BadInput(
            f"{ahead.spec.name} has no tokenizer beside its weights", "text needs tokenizer.json"
        )
    check_cache(ahead.spec, config, work, where)
    sampling = Sampling(options.temperature, options.top_k, options.top_p, options.seed)
    chunks = dynamic_chunks(ahead.spec, config, work, None, where)
    return PreparedRun(ahead, config, work, sampling, chunks)


@contextmanager
def open_session(run: PreparedRun) -> Iterator[OpenSession]:
    """Load the weights. Raises BadInput for files that are not whole, NothingFits where memory
    runs out."""
    from ...runtime.session import Session

    model, spec, tokenizer = run.ahead.load()
    with Session(
        model, spec, run.config, tokens=run.work.tokens, batch=run.work.batch,
        tokenizer=tokenizer, owned=True, dynamic=run.dynamic,
    ) as session:  # fmt: skip
        del model
        try:
            yield OpenSession(session, run)
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None


def _device(asked: str | None, command: str) -> str:
    with importing(command, "runtime"):
        import torch  # noqa: F401
        import transformers
    from ..execution.memory_cap import prefer_expandable_segments

    prefer_expandable_segments()
    transformers.utils.logging.disable_progress_bar()
    return choose(asked)


def _question(options: RunOptions, device: str) -> tuple[str, ModelSpec, Configuration, Workload]:
    """What is loaded, what it is, its configuration and what the cache must hold."""
    if options.plan is not None:
        plan = read_plan(options.plan)
        source = options.model or plan.model_path or plan.model
        if plan.engine != KVPARETO.name:
            raise BadInput(
                f"{options.plan.name} plans for the engine {plan.engine}",
                "plan again with --engine kvpareto, or start that engine",
            )
        spec = as_loaded(load_model(source, offline=options.offline), device)
        config = planned_configuration(plan, spec, options.plan)
        work = Workload(
            parse_tokens(options.context) if options.context is not None else plan.context,
            parse_tokens(options.output, what="output")
            if options.output is not None
            else plan.output,
            options.batch,
        )
        return source, spec, config, work
    assert options.model is not None  # check said so
    spec = as_loaded(load_model(options.model, offline=options.offline), device)
    work = _workload(options, spec)
    if options.config is not None:
        config = Configuration.parse(options.config)
        check_layers(config, spec)
        return options.model, spec, config, work
    free = _free_memory(device)
    budget = parse_bytes(options.budget) if options.budget is not None else int(free * KEPT_FREE)
    best = recommend_on(Request(spec, work, KVPARETO, budget), device).recommended
    return options.model, spec, best.config, work


def _workload(options: RunOptions, spec: ModelSpec) -> Workload:
    """Without a typed length half of what the model was made for, at most CONTEXT and 512."""
    longest = spec.max_context or 2 * CONTEXT
    output = default_output(longest)
    if options.output is not None:
        output = parse_tokens(options.output, what="output")
    if options.context is not None:
        return Workload(parse_tokens(options.context), output, options.batch)
    return Workload(default_context(output, longest, CONTEXT), output, options.batch)


def _check_memory(spec: ModelSpec, config: Configuration, work: Workload, device: str) -> None:
    """Raise NothingFits where weights and cache alone are more than what is free."""
    estimated = estimate(KVPARETO.dequantized(spec), config, work, KVPARETO, None)
    needed, free = estimated.weights + estimated.kv, _free_memory(device)
    if needed > free:
        raise NothingFits(
            f"{spec.name} under {config} takes {format_bytes(needed)} of weights "
            f"and cache, {format_bytes(free)} are free",
            "fewer weight or KV bits, or a shorter --context",
            {"needed_bytes": needed, "budget": free},
        )


def _free_memory(device: str) -> int:
    """Bytes that are free on the device: the driver's figure, or the system's for a CPU."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, IndexError):
        raise MissingDependency(
            "this system does not say how much memory is free", "name it: --budget 8GB"
        ) from None
    return int(kib) * 1024
