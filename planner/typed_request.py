"""From words to a Request: what the command line, the Python functions and the served page share.

Sizes and counts are texts as a person types them (`12GB`, `32k`, `3%`) or numbers (bytes, tokens,
a fraction).
"""

from typing import TypedDict, Unpack, cast

from .engine import Engine
from .engines import find_engine
from .errors import BadInput
from .hardware.gpu_names import gpu_argument
from .hardware.gpus import Hardware
from .load_model import load_model
from .memory.run_dtype import as_run, parse_dtype
from .models.spec import ModelSpec
from .search.gpu_memory import budget_of, check_counted_once, system_share, within_cards
from .search.request import Request
from .serving import Parallel
from .typed_words import typed_model, typed_words
from .units import parse_bytes, parse_fraction, parse_seconds, parse_tokens
from .workload import Workload

EXAMPLE = "kvpareto plan --model Qwen/Qwen2.5-7B-Instruct --budget 12GB --context 32k"
Size = str | int | None


class PlanWords(TypedDict, total=False):
    """What may be said of a plan beside its model, each as its option of `kvpareto plan`."""

    budget: Size
    context: Size
    output: Size
    batch: str | int
    users: str | int | None
    gpu: str | int | None
    gpus: str | int | None
    parallel: str | None
    snippet: str | None
    ttft: str | float | None
    tpot: str | float | None
    reserve: Size
    ram: Size
    dtype: str | None
    max_loss: str | float | None
    task: str | None
    accept_risk: bool
    objective: str
    engine: str
    full_logits: bool
    offline: bool


class EstimateWords(TypedDict, total=False):
    """What may be said of an estimate beside model and configuration."""

    context: Size
    output: Size
    batch: str | int
    users: str | int | None
    gpu: str | int | None
    parallel: str | None
    dtype: str | None
    task: str | None
    engine: str
    full_logits: bool
    offline: bool


def typed_request(model: str, **words: Unpack[PlanWords]) -> Request:
    """The Request that these words ask. Raises BadInput for what cannot be understood, and where
    neither a budget nor a GPU says how much memory there is."""
    model = typed_model(model)
    words = cast(PlanWords, typed_words(words, PlanWords.__annotations__))
    engine = find_engine(words.get("engine", "kvpareto"))
    gpus = typed_gpus(words.get("gpu"), engine)
    hardware = gpus[0] if gpus else None
    ram = _ram(words.get("ram"), engine)
    budget = words.get("budget")
    on_hosts = engine.places and not engine.serves
    host_only = on_hosts and hardware is None and (ram is None or budget is None)
    if host_only and budget is None:
        budget = ram
    size, kept = _budget(budget, words.get("reserve"), gpus)
    check_counted_once(size, ram, gpus)
    loss = words.get("max_loss")
    spec, workload = typed_workload(model, hardware, words)
    return Request(
        spec=spec,
        workload=workload,
        engine=engine,
        budget=size,
        hardware=hardware,
        max_loss=None if loss is None else parse_fraction(str(loss)),
        objective=words.get("objective", "accuracy"),
        reserve=kept,
        task=typed_task(words.get("task")),
        accept_risk=words.get("accept_risk", False),
        ram=None if host_only else ram,
        host_only=host_only,
        gpus=gpus if len(gpus) > 1 else (),
        parallel=typed_parallel(words.get("parallel"), engine),
        ttft=typed_target(words.get("ttft"), "ttft", hardware),
        tpot=typed_target(words.get("tpot"), "tpot", hardware),
        budget_typed=not host_only or words.get("budget") is not None,
        at_once="batch" if words.get("users") is None else "users",
    )


def typed_users(users: str | int | None, batch: str | int) -> str | int:
    """Sequences at once: --users and --batch are two names of it. Raises BadInput for both."""
    if users is None:
        return batch
    if str(batch) != "1":
        raise BadInput("--users beside --batch", "both are sequences at once: give one of them")
    return parse_tokens(str(users), what="users")


def typed_parallel(text: str | None, engine: Engine) -> Parallel | None:
    """How cards share the model. Raises BadInput."""
    if text is None:
        return None
    if not engine.serves:
        raise BadInput(
            f"--parallel is for engines that share a model among cards, and {engine.name} does not",
            "leave it out, or plan --engine vllm",
        )
    return Parallel.parse(text)


def typed_target(text: str | float | None, name: str, gpu: Hardware | None) -> float | None:
    """Seconds that --ttft or --tpot allows. Raises BadInput, and where no GPU says how fast."""
    if text is None:
        return None
    if gpu is None:
        raise BadInput(
            f"--{name} needs a GPU: without one a plan has no seconds", "name it: --gpu H100"
        )
    return parse_seconds(text, name)


def typed_workload(
    model: str, hardware: Hardware | None, words: PlanWords | EstimateWords
) -> tuple[ModelSpec, Workload]:
    """The model in the dtype that it runs in, and what is asked of it. Raises BadInput."""
    users = typed_users(words.get("users"), words.get("batch", 1))
    loaded = load_model(model, offline=words.get("offline", False))
    spec = as_run(loaded, parse_dtype(words.get("dtype")), hardware)
    asked = (_text(words.get("context")), _text(words.get("output")), str(users), spec.max_context)
    return spec, Workload.parse(*asked, full_logits=words.get("full_logits", False))


def typed_gpus(asked: str | int | None, engine: Engine) -> tuple[Hardware, ...]:
    """The GPUs of this text (hardware/gpu_set.py), none where none is named. Raises BadInput for
    several where the engine fills one."""
    if asked is None:
        return ()
    from .hardware.gpu_set import find_gpus

    name = str(asked)
    gpus = find_gpus(name)
    if len(gpus) > 1 and not engine.several_cards:
        raise BadInput(
            f"{name.strip()!r} is several GPUs, and {engine.name} fills one",
            f"--gpu {gpu_argument(gpus[0])!r} plans for one of them; --engine vllm, sglang or "
            "llama.cpp fill several",
        )
    return gpus


def typed_task(kind: str | None) -> str | None:
    """The kind of task of this name. Raises BadInput."""
    from .accuracy.task_kinds import parse_task

    return parse_task(kind) if kind is not None else None


def _ram(ram: Size, engine: Engine) -> int | None:
    """Bytes of host memory for a part of the model. Raises BadInput for engines without one."""
    if ram is None:
        return None
    if not engine.places or engine.serves:
        raise BadInput(
            f"--ram is a second budget, and {engine.name} keeps all of a model on one device",
            "leave it out, or plan --engine llama.cpp",
        )
    size = parse_bytes(_bytes_text(ram) or "")
    return size - system_share(size)


def _budget(budget: Size, reserve: Size, gpus: tuple[Hardware, ...]) -> tuple[int, int | None]:
    """Bytes to plan for, of all GPUs together, and what of their memory is kept back; None where it
    was typed."""
    if budget is None and not gpus:
        raise BadInput("no budget", f"say how much memory there is: {EXAMPLE}")
    if budget is not None and reserve is not None:
        raise BadInput(
            "--reserve beside --budget", "it is a part of --gpu's memory: give one of them"
        )
    if budget is None:
        each = [budget_of(gpu, _bytes_text(reserve)) for gpu in gpus]
        return sum(size for size, _ in each), sum(kept for _, kept in each)
    size = parse_bytes(_bytes_text(budget) or "")
    return within_cards(size, gpus), None


def _text(value: Size) -> str | None:
    return None if value is None else str(value)


def _bytes_text(value: Size) -> str | None:
    return f"{value}B" if isinstance(value, int) else value
