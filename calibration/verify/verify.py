"""`kvpareto verify` from what was typed to the document that is shown."""

from dataclasses import dataclass, replace
from typing import Any

from ...planner.accuracy.calibrations import folder_of
from ...planner.engines.kvpareto.where_runs import unknown_layers
from ...planner.errors import BadInput, Interrupted
from ...planner.hardware.gpu_names import find_gpu
from ...planner.hardware.gpus import Hardware
from ...planner.libraries import importing
from ...report.progress import progress
from ...report.saved_plan import Planned
from ..design.options import DEFAULT_TASKS
from ..execution.device import check_name, check_size, choose
from .cases import VerificationCase, from_plan
from .on_cpu import on_cpu
from .shared_options import SharedVerifyOptions
from .typed_cases import Unplanned, typed_cases

ITEMS = 32
QUICK_ITEMS = 8


@dataclass(frozen=True)
class VerifyOptions(SharedVerifyOptions):
    """What was typed, with what our runtime and transformers take."""

    engine: str = "kvpareto"
    random_weights: bool = False
    sweep: int | None = None
    tasks: str | None = None
    items: int | None = None
    device: str | None = None
    trust_remote_code: bool = False


def verify(options: VerifyOptions) -> dict[str, Any]:
    """Run the verification; the receipt, or several: with `sweep`, of several budgets or contexts.

    Raises BadInput, MissingDependency (no runtime, no GPU for a large model),
    NothingFits, Interrupted.
    """
    _check(options)
    device = _device(options.device)
    gpu = _running_gpu(device)
    questions, unplanned = _questions(options, gpu, device)
    if not questions:
        raise unplanned[0].error
    if device == "cpu":
        questions = [
            replace(q, planned=on_cpu(q.planned), frontier=tuple(map(on_cpu, q.frontier)))
            for q in questions
        ]
    question = questions[0]
    if options.engine == "kvpareto" and not question.spec.runnable:
        raise BadInput(
            f"the kvpareto runtime cannot run {question.spec.name}: it has no kernels for "
            f"{unknown_layers(question.spec.layers)} ({question.spec.model_type})",
            "--engine transformers runs what transformers can",
        )
    check_size(question.spec, device, "verify", "run this on a machine with a CUDA GPU")
    from .. import tasks
    from ..records.record_file import RecordFile
    from .before_loading import check_cases
    from .receipt import sweep
    from .verifier import Verifier, VerifySettings

    names = tasks.find(DEFAULT_TASKS if options.tasks is None else options.tasks)
    items = options.items or (QUICK_ITEMS if options.quick else ITEMS)
    settings = VerifySettings(
        device, gpu, options.random_weights, options.quick, tuple(t.name for t in names),
        options.tasks is not None, items, options.seed, options.offline,
        options.trust_remote_code,
    )  # fmt: skip
    if options.sweep is not None:
        questions = [question.at(p) for p in _spread(question, options.sweep, device)]
    check_cases(questions, settings, names if options.tasks is not None else ())
    try:
        with RecordFile(folder_of(question.spec)) as file, progress() as shown:
            verifier = Verifier(settings, file, shown.step)
            if options.sweep is None and len(questions) + len(unplanned) == 1:
                return verifier.verify(question)
            return sweep([verifier.verify(one) for one in questions], unplanned)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; rows that were written are kept") from None


def _check(options: VerifyOptions) -> None:
    """Raise BadInput for what says nothing, or two things."""
    hint = "kvpareto verify --plan plan.json, or -m MODEL --budget 12GB, with --config or without"
    if options.plan is None:
        missing = [name for name in ("model", "budget") if getattr(options, name) is None]
        if missing:
            raise BadInput(f"nothing to verify: no --plan, and no --{' --'.join(missing)}", hint)
        if options.sweep is not None:
            raise BadInput("--sweep needs the frontier of a plan", "give --plan plan.json")
    elif options.config is not None or options.budget is not None or options.context is not None:
        raise BadInput(
            "--plan says what to run: no --config, --budget or --context beside it", hint
        )
    elif (options.output, options.batch) != (None, "1"):
        raise BadInput("--plan says what to run: no --output or --batch beside it", hint)
    if options.random_weights and (options.tasks is not None or options.items is not None):
        raise BadInput(
            "--tasks and --items beside --random-weights: random weights keep nothing to score",
            "leave one of them out",
        )
    for name, least in (("items", 1), ("sweep", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise BadInput(f"--{name} {value} verifies nothing", f"--{name} is {least} or more")
    if not 0 <= options.seed < 2**63:
        raise BadInput(f"--seed {options.seed} is no seed", "--seed is 0 or more, below 2^63")
    check_name(options.device)


def _device(asked: str | None) -> str:
    """cpu or cuda. Raises MissingDependency without the runtime, or the GPU that was asked for."""
    with importing("verify", "runtime"):
        import torch  # noqa: F401
        import transformers
    from ..execution.memory_cap import memory_of, numbered, prefer_expandable_segments

    prefer_expandable_segments()
    transformers.utils.logging.disable_progress_bar()
    device = choose(asked)
    if device == "cuda":
        memory_of(numbered(device))  # before anything else makes a context there
    return device


def _running_gpu(device: str) -> Hardware | None:
    """The GPU that torch would use, if it is a known one."""
    if device != "cuda":
        return None
    import torch

    try:
        properties = torch.cuda.get_device_properties()
        return find_gpu(properties.name, properties.total_memory)
    except BadInput:
        return None


def _questions(
    options: VerifyOptions, gpu: Hardware | None, device: str
) -> tuple[list[VerificationCase], list[Unplanned]]:
    if options.plan is not None:
        return [from_plan(options.plan, options.model, options.offline)], []
    assert options.model is not None  # _check said so
    assert options.budget is not None
    return typed_cases(
        options.model, options.config, options.budget, options.context, options.output,
        options.batch, options.engine, gpu, options.offline, device,
    )  # fmt: skip


def _spread(question: VerificationCase, count: int, device: str) -> list[Planned]:
    """`count` points of the plan's frontier, evenly over it, that this device can hold."""
    points = list(question.frontier) or [question.planned]
    if device == "cuda":
        import torch

        most = torch.cuda.mem_get_info()[1]
        points = [point for point in points if point.memory.total_high <= most]
    if not points:
        raise BadInput("no point of the frontier fits this device", "plan with its memory")
    if len(points) <= count:
        return points
    last = len(points) - 1
    return [points[round(i * last / max(count - 1, 1))] for i in range(count)]
