"""`kvpareto verify --engine vllm`: a plan's settings started for real, predicted beside measured.

The engine's own account of its memory is what is measured, then a burst of the workload's users is
timed, and where the weights are real the tasks are scored through it. Compared are answers of the
same engine with a 16-bit cache, on the same items.
"""

import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...planner.accuracy import predict as accuracy
from ...planner.accuracy.prediction import Accuracy
from ...planner.engines.vllm.settings import ONLINE
from ...planner.engines.vllm.speed import ServingSpeed, serving_speed
from ...planner.engines.vllm.start import Start, start
from ...planner.errors import BadInput, MissingDependency
from ...planner.hardware.detect_gpu import detect_gpu
from ...planner.hardware.gpus import Hardware
from ...planner.install import install_command
from ...planner.libraries import importing
from ...planner.load_model import load_config, shipped_folder
from ...runtime.vllm_plugin.registration import why_not
from ..design.options import DEFAULT_TASKS
from ..records.receipt_rows import append_receipt
from .asked import Asked, VllmOptions, asked_of
from .random_checkpoint import vocabulary, write_checkpoint
from .receipt import receipt
from .start import Burst, StartReading, check_installed, run_engine

if TYPE_CHECKING:
    from ..verify.score_tasks import TaskScore
    from .exam import ServedExam

__all__ = ["VllmOptions", "verify"]

WARM_UP = 3
"""Tokens a user of a first burst, alike in all else: it compiles what such batches compile."""
ITEMS, QUICK_ITEMS = 32, 8
OUTPUT, QUICK_OUTPUT = 128, 32
"""Tokens of each answer that is timed, at most."""


def verify(options: VllmOptions) -> dict[str, Any]:
    """Start it and judge it; the receipt. Raises BadInput, MissingDependency."""
    asked = asked_of(options, _card())
    if asked.settings.attention_backend:
        _check_plugin()
    promised = _promised(asked)
    burst = _burst(asked, options)
    speed = _speed(asked, promised, burst)
    kept = accuracy.predict(asked.spec, asked.config, asked.workload.context)
    with ExitStack() as folders:
        source, vocab = _source(asked, folders)
        exam = _exam(asked, source, options)
        _notice("starting vLLM")
        bursts = replace(burst, output=min(WARM_UP, burst.output)), burst
        found = _run(asked, source, vocab, options, bursts, exam)
        tasks = _tasks(asked, source, vocab, options, exam, found) if exam else []
    told = _documents(tasks, kept)
    document = receipt(asked, promised, speed, kept, found, told)
    append_receipt("vllm", document)
    return document


def _documents(tasks: "Sequence[TaskScore]", kept: Accuracy) -> list[dict[str, Any]]:
    if not tasks:
        return []
    from .exam import promise

    return [one.document(promise(kept)) for one in tasks]


def _card() -> Hardware:
    """The GPU that is here. Raises MissingDependency without vLLM, or without a GPU."""
    check_installed()
    try:
        return detect_gpu()
    except MissingDependency as error:
        raise MissingDependency(
            "vLLM needs a GPU, and none was found in this machine", "run this where the GPU is"
        ) from error


def _check_plugin() -> None:
    """Raises MissingDependency where vLLM would not find the plugin."""
    from importlib.metadata import entry_points

    reason = why_not()
    if reason is None and not entry_points(group="vllm.general_plugins", name="kvpareto"):
        reason = "kvpareto is not installed as a package, where vLLM looks for plugins"
    if reason is not None:
        install = install_command("vllm")
        told = {"missing": "kvpareto[vllm]", "install": install}
        raise MissingDependency(f"vLLM has no plugin here: {reason}", f"run {install}", told)


def _burst(asked: Asked, options: VllmOptions) -> Burst:
    most = QUICK_OUTPUT if options.quick else OUTPUT
    workload = asked.workload
    output = max(1, min(workload.output, most))
    lengths = workload.of_each()
    if len(set(lengths)) > 1:
        random.Random(options.seed).shuffle(lengths)
        mean = round(sum(lengths) / len(lengths))
        return Burst(workload.batch, mean, output, lengths=tuple(lengths))
    return Burst(workload.batch, lengths[0], output)


def _speed(asked: Asked, promised: Start | None, burst: Burst) -> ServingSpeed:
    """What the planner says of the burst: that of prompts of its mean length, as in a plan."""
    held = None
    if promised is not None:
        held = promised.pool.sequences(promised.cache.expected, burst.context + burst.output)
    return serving_speed(
        asked.spec,
        asked.settings,
        asked.hardware,
        burst.users,
        burst.context,
        burst.output,
        held or None,
    )


def _promised(asked: Asked) -> Start | None:
    """What the planner says of this start; None for a card that it does not know."""
    try:
        return start(asked.spec, asked.hardware, asked.settings)
    except BadInput:
        return None


def _source(asked: Asked, folders: ExitStack) -> tuple[str, int]:
    """What vLLM loads, and its vocabulary. Raises BadInput where its weights are absent."""
    loaded = load_config(asked.source)
    vocab = vocabulary(loaded.config)
    if asked.random_weights:
        folder = Path(folders.enter_context(tempfile.TemporaryDirectory()))
        name = asked.settings.quantization
        write_checkpoint(loaded.config, folder, "" if name in ONLINE else name)
        return str(folder), vocab
    shipped = shipped_folder(asked.source)
    folder_ = shipped or loaded.folder
    if folder_ is None or not any(folder_.glob("*.safetensors")):
        raise BadInput(
            f"the weights of {asked.source} are not on this machine",
            "give their folder, or --random-weights for bytes and seconds alone",
        )
    return str(folder_), vocab


def _exam(asked: Asked, source: str, options: VllmOptions) -> "ServedExam | None":
    """None for random weights, whose answers say nothing. Raises MissingDependency."""
    if asked.random_weights:
        return None
    count = options.items or (QUICK_ITEMS if options.quick else ITEMS)
    names = DEFAULT_TASKS if options.tasks is None else options.tasks
    with importing("scoring tasks", "vllm"):
        import torch  # noqa: F401
        import transformers  # noqa: F401
    from .exam import ServedExam

    explicit = options.tasks is not None
    return ServedExam(source, asked.workload, names, count, options.seed, _notice, explicit)


def _run(
    asked: Asked,
    source: str,
    vocab: int,
    options: VllmOptions,
    bursts: Sequence[Burst],
    exam: "ServedExam | None",
) -> StartReading:
    found = run_engine(
        source,
        asked.settings.flags(),
        vocab=vocab,
        bursts=bursts,
        prompts=exam.prompts if exam else (),
        answer=exam.answer if exam else (),
        random_weights=asked.random_weights,
        seed=options.seed,
    )
    return replace(found, bursts=found.bursts[1:]) if bursts else found


def _tasks(
    asked: Asked,
    source: str,
    vocab: int,
    options: VllmOptions,
    exam: "ServedExam",
    found: StartReading,
) -> "Sequence[TaskScore]":
    """Scores under the plan's settings, and without quantization by a second start."""
    from .exam import scored

    under = exam.scores(found)
    settings = asked.settings
    if not under:
        return []
    if settings.kv_cache_dtype == "auto" and asked.config.weight_bits == 16:
        return scored(under, {}, "", "these are 16 bits: there is nothing to compare with")
    if asked.config.weight_bits < 16 and asked.spec.quantization is not None:
        return scored(under, {}, "", "the checkpoint has no 16-bit weights to compare with")
    plain: dict[str, Any] = {"kv_cache_dtype": "auto", "attention_backend": ""}
    if asked.config.weight_bits < 16:
        plain["quantization"] = ""
    whole = replace(asked, settings=replace(settings, **plain))
    _notice("starting vLLM again, without quantization")
    reference = _run(whole, source, vocab, options, (), exam)
    why_not = f"without quantization it does not start: {reference.error}"
    return scored(under, exam.scores(reference), "vLLM, 16 bits", why_not)


def _notice(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
