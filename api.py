"""The Python face: what the commands do, as functions that return the documents `--json` prints.

    import kvpareto
    answer = kvpareto.plan("Qwen/Qwen3-8B", gpu="4090", context="32k")
    answer["recommended"]["config"]

Nothing is printed. Sizes and counts are texts as the command line takes them (`"12GB"`, `"32k"`,
`"3%"`) or numbers: bytes, tokens, a fraction. What a person can cause is raised as a
KVParetoError, with `message` and `hint`: BadInput, NothingFits, MissingDependency. A word that a
function does not know is a BadInput which names the nearest. A call without its model, or with more
than its positional arguments, is Python's TypeError, as with any function.
"""

from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

from .planner.errors import BadInput, KVParetoError, MissingDependency, NothingFits

if TYPE_CHECKING:
    from pathlib import Path

    from .planner.typed_request import EstimateWords, PlanWords
    from .report.records.measuring import CalibrationRecord, ReceiptRecord, SweepRecord
    from .report.records.planning import EstimateRecord, MaxContextRecord, PlanRecord

__all__ = [
    "BadInput",
    "KVParetoError",
    "MissingDependency",
    "NothingFits",
    "calibrate",
    "estimate",
    "max_context",
    "plan",
    "verify",
]

_T = TypeVar("_T")


def plan(model: "str | Path", **words: "Unpack[PlanWords]") -> "PlanRecord":
    """The configuration to run, the frontier it stands on, and why: `kvpareto plan --json`.

    Raises BadInput for what cannot be understood, NothingFits where nothing may be recommended.
    """
    from .planner.engines import ANY

    model, words = _plan_words(model, words)
    snippet = words.pop("snippet", None)
    if snippet is not None:
        from .report.servers.snippets import check_kind

        check_kind(snippet)
    if str(words.get("engine", "")).strip().lower() == ANY:
        from .planner.compare_engines import compare_engines
        from .report.servers.compared import compared_document

        document = compared_document(compare_engines(model, **words))
    elif words.get("gpus") is not None:
        from .planner.fewest_cards import plan_cards
        from .report.document import plan_document

        document = plan_document(plan_cards(model, **words))
    else:
        from .planner.search.recommend import recommend
        from .planner.typed_request import typed_request
        from .report.document import plan_document

        request = typed_request(model, **words)
        if snippet is not None and not request.engine.serves:
            from .report.servers.snippets import no_server

            raise no_server(request.engine.name)
        document = plan_document(recommend(request))
    if snippet is not None:
        from .report.servers.snippets import snippet as written

        document["snippet"] = written(snippet, document)
    return cast("PlanRecord", document)


def max_context(model: "str | Path", **words: "Unpack[PlanWords]") -> "MaxContextRecord":
    """The longest context that fits, by configuration: `kvpareto plan --max-context --json`.

    Raises BadInput, and NothingFits where not one token fits.
    """
    from .planner.search.max_context import max_contexts
    from .planner.typed_request import typed_request
    from .report.document import longest_document

    model, words = _plan_words(model, words)
    for word in ("gpus", "snippet"):
        if words.pop(word, None) is not None:  # type: ignore[misc]
            raise BadInput(f"--{word} is for a plan", "leave --max-context or it out")
    if words.get("context") is not None:
        raise BadInput(
            "--context beside --max-context: the longest context is what is asked for",
            "leave one of them out",
        )
    request = typed_request(model, **words)
    return cast("MaxContextRecord", longest_document(request, max_contexts(request)))


def estimate(
    model: "str | Path", config: str, **words: "Unpack[EstimateWords]"
) -> "EstimateRecord":
    """Memory, accuracy and speed of one configuration: `kvpareto estimate --json`.

    `config` in the grammar of configurations: `"w4a16-k4v4-g64+pc256"`. Raises BadInput.
    """
    from .planner.accuracy import predict as accuracy
    from .planner.engines import find_engine
    from .planner.formats.configuration import Configuration
    from .planner.latency import predict as latency
    from .planner.memory import estimate as memory
    from .planner.models.protected import check_layers
    from .planner.search.request import check_lengths
    from .planner.typed_request import (
        EstimateWords,
        typed_gpus,
        typed_parallel,
        typed_task,
        typed_users,
        typed_workload,
    )
    from .planner.typed_words import typed_model, typed_words
    from .report.document import estimate_document

    model, config = typed_model(model), typed_model(config, name="config")
    words = cast("EstimateWords", typed_words(words, EstimateWords.__annotations__))
    chosen, engine = Configuration.parse(config), find_engine(words.get("engine", "kvpareto"))
    gpus = typed_gpus(words.get("gpu"), engine)
    hardware = gpus[0] if gpus else None
    spec, workload = typed_workload(
        model,
        hardware,
        context=words.get("context"),
        output=words.get("output"),
        batch=typed_users(words.get("users"), words.get("batch", 1)),
        dtype=words.get("dtype"),
        full_logits=words.get("full_logits", False),
        offline=words.get("offline", False),
    )
    check_lengths(workload, engine)
    check_layers(chosen, spec)
    parallel = typed_parallel(words.get("parallel"), engine)
    task = typed_task(words.get("task"))
    if engine.places:
        from .planner.search.placed.table import placed_anyway
        from .report.document import placed_document

        point = placed_anyway(spec, chosen, workload, engine, gpus, task, parallel)
        return cast("EstimateRecord", placed_document(spec, engine, point))
    run = engine.dequantized(spec)
    document = estimate_document(
        spec,
        chosen,
        engine,
        workload,
        memory.estimate(spec, chosen, workload, engine, hardware),
        accuracy.predict(run, chosen, workload.context, task=task),
        latency.predict(run, chosen, workload, engine, hardware) if hardware is not None else None,
        hardware,
    )
    return cast("EstimateRecord", document)


def calibrate(model: "str | Path | None" = None, **words: Any) -> "CalibrationRecord":
    """Measure a model under chosen configurations: `kvpareto calibrate --json`.

    `words`: runs, minutes, tasks, contexts, items, tolerance, seed, text, haystack (Paths), resume,
    device, offline, trust_remote_code, each as its option takes it. Raises BadInput;
    MissingDependency without torch.
    """
    from .calibration.calibrate import calibrate as run
    from .calibration.design.options import CalibrationOptions

    return cast("CalibrationRecord", run(_options(CalibrationOptions, model, words)))


def verify(model: "str | Path | None" = None, **words: Any) -> "ReceiptRecord | SweepRecord":
    """Run a plan for real under its budget, predicted beside measured: `kvpareto verify --json`.

    `words`: plan (a Path), config, budget, context, output, batch, engine, random_weights, quick,
    sweep, tasks, items, seed, device, offline, trust_remote_code, each as its option takes it.
    `verified` of the document is the verdict. Raises BadInput, NothingFits;
    MissingDependency without torch or a GPU that it takes.
    """
    from .calibration.verify.verify import VerifyOptions
    from .calibration.verify.verify import verify as run

    return cast("ReceiptRecord | SweepRecord", run(_options(VerifyOptions, model, words)))


def _plan_words(model: object, words: "PlanWords") -> "tuple[str, PlanWords]":
    """Model and words of a plan, of their types. Raises BadInput."""
    from .planner.typed_request import PlanWords
    from .planner.typed_words import typed_model, typed_words

    return typed_model(model), cast("PlanWords", typed_words(words, PlanWords.__annotations__))


def _options(kind: type[_T], model: object, words: dict[str, Any]) -> _T:
    """A dataclass of what was typed. Raises BadInput for words that it lacks and other types."""
    from dataclasses import fields

    from .planner.typed_words import typed_model, typed_words

    known = {one.name: one.type for one in fields(cast(Any, kind)) if one.name != "model"}
    named = None if model is None else typed_model(model)
    return kind(model=named, **typed_words(words, known))  # type: ignore[call-arg]
