"""The Python face: what the commands do, as functions that return the documents `--json` prints.

    import kvpareto
    answer = kvpareto.plan("Qwen/Qwen3-8B", gpu="4090", context="32k")
    answer["recommended"]["config"]

Nothing is printed but a progress bar of what takes minutes, on stderr. Sizes and counts are texts
as the command line takes them (`"12GB"`, `"32k"`, `"3%"`) or numbers: bytes, tokens, a fraction.
What a person can cause is raised as a KVParetoError, with `message` and `hint`: BadInput,
NothingFits, MissingDependency, and Interrupted for Ctrl-C where rows were measured. A word that a
function does not know is a BadInput which names the nearest. A call without its model, or with more
than its positional arguments, is Python's TypeError, as with any function.
"""

from typing import TYPE_CHECKING, Any, Unpack, cast

from .planner.errors import BadInput, Interrupted, KVParetoError, MissingDependency, NothingFits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .calibration.call_words import CalibrateWords, RunWords, VerifyWords
    from .planner.typed_request import EstimateWords, PlanWords
    from .report.records.measuring import CalibrationRecord, ReceiptRecord, SweepRecord
    from .report.records.others import (
        CheckRecord,
        ExportRecord,
        ImportRecord,
        ProfileRecord,
        ProfilesListRecord,
        ReportRecord,
    )
    from .report.records.planning import EstimateRecord, MaxContextRecord, PlanRecord
    from .report.records.running import RunBatchRecord, RunRecord

__all__ = [
    "BadInput",
    "Interrupted",
    "KVParetoError",
    "MissingDependency",
    "NothingFits",
    "calibrate",
    "estimate",
    "max_context",
    "plan",
    "profiles_check",
    "profiles_export",
    "profiles_import",
    "profiles_list",
    "profiles_show",
    "run",
    "run_batch",
    "verify",
    "write_report",
]


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
    from .planner.typed_request import EstimateWords
    from .planner.typed_words import typed_model, typed_words
    from .report.estimated import estimated

    model, config = typed_model(model), typed_model(config, name="config")
    typed = cast("EstimateWords", typed_words(words, EstimateWords.__annotations__))
    return cast("EstimateRecord", estimated(model, config, **typed))


def calibrate(
    model: "str | Path | None" = None, **words: "Unpack[CalibrateWords]"
) -> "CalibrationRecord":
    """Measure a model under chosen configurations: `kvpareto calibrate --json`.

    Without a model the recall model, which is included. Raises BadInput; MissingDependency without
    torch; Interrupted.
    """
    from .calibration.calibrate import calibrate as run
    from .calibration.design.options import CalibrationOptions
    from .planner.typed_words import typed_options

    return cast("CalibrationRecord", run(typed_options(CalibrationOptions, model, words)))


def verify(
    model: "str | Path | None" = None, **words: "Unpack[VerifyWords]"
) -> "ReceiptRecord | SweepRecord":
    """Run a plan for real under its budget, predicted beside measured: `kvpareto verify --json`.

    `verified` of the document is the verdict; several budgets or contexts, and `sweep`, give
    several receipts. Raises BadInput, NothingFits; MissingDependency without torch, the engine or
    a GPU that it takes; Interrupted.
    """
    from .calibration.verify.by_engine import EveryVerifyOption, verify_by_engine
    from .planner.typed_words import typed_options

    document = verify_by_engine(typed_options(EveryVerifyOption, model, words))
    return cast("ReceiptRecord | SweepRecord", document)


def run(
    model: "str | Path | None",
    prompt: str,
    *,
    system: str | None = None,
    raw: bool = False,
    **words: "Unpack[RunWords]",
) -> "RunRecord":
    """Answer one prompt with the recommended configuration: `kvpareto run --json`.

    `model` is None where `plan` names it. Weights are loaded for this call alone; those of
    `kvpareto.runtime.load` stay. Raises BadInput, NothingFits, MissingDependency, Interrupted.
    """
    from .calibration.running.one_prompt import answer_prompt
    from .calibration.running.open_session import RunOptions
    from .planner.typed_words import typed_options, typed_text

    said = typed_text("prompt", prompt), None if system is None else typed_text("system", system)
    options = typed_options(RunOptions, model, words)
    document = answer_prompt(options, *said, raw=raw, quiet=True, say=_unsaid)
    return cast("RunRecord", document)


def run_batch(
    model: "str | Path | None",
    prompts: "Sequence[str | Mapping[str, Any]]",
    *,
    at_once: int = 8,
    raw: bool = False,
    **words: "Unpack[RunWords]",
) -> "RunBatchRecord":
    """Answer several prompts, `at_once` sequences together: `kvpareto run --batch --json`.

    A prompt is a text, or a document as a line of that file has: `{"messages": [...], "id": 1}`.
    Answers are in the order of the prompts. Raises BadInput, NothingFits, MissingDependency,
    Interrupted.
    """
    from .calibration.running.open_session import RunOptions
    from .calibration.running.prompts_file import answer_lines, typed_lines
    from .planner.typed_words import typed_options

    lines = typed_lines(prompts)
    options = typed_options(RunOptions, model, {**words, "batch": at_once})
    document = answer_lines(options, lines, raw=raw, quiet=True, say=_unsaid)
    return cast("RunBatchRecord", document)


def profiles_list() -> "ProfilesListRecord":
    """Names of models, GPUs and this machine's calibrations: `kvpareto profiles list --json`."""
    from .report.profiles import list_document

    return cast("ProfilesListRecord", list_document())


def profiles_show(name: str) -> "ProfileRecord":
    """What is known of a model, a GPU or a calibration: `kvpareto profiles show --json`.

    Raises BadInput where nothing is called so.
    """
    from .planner.typed_words import typed_text
    from .report.profiles import show_document

    return cast("ProfileRecord", show_document(typed_text("name", name)))


def profiles_check(folder: "str | Path") -> "CheckRecord":
    """Configs as planned, and as transformers has them: `kvpareto profiles check --json`.

    `verified` is the verdict. Raises BadInput, MissingDependency.
    """
    from .calibration.config_check.check import check_folder
    from .planner.typed_words import typed_path

    return cast("CheckRecord", check_folder(typed_path("folder", folder)))


def profiles_export(name: str, output: "str | Path") -> "ExportRecord":
    """Write a calibration of this machine to a file: `kvpareto profiles export --json`.

    Affine maps go beside it. Raises BadInput.
    """
    from .calibration.records.export import export_document
    from .planner.typed_words import typed_path, typed_text

    return cast(
        "ExportRecord", export_document(typed_text("name", name), typed_path("output", output))
    )


def profiles_import(file: "str | Path") -> "ImportRecord":
    """Take over a calibration of another machine: `kvpareto profiles import --json`.

    Raises BadInput, also where this machine has one of that model.
    """
    from .calibration.records.export import import_document
    from .planner.typed_words import typed_path

    return cast("ImportRecord", import_document(typed_path("file", file)))


def write_report(
    files: "Sequence[str | Path]",
    output: "str | Path" = "report.html",
    *,
    figures: "str | Path | None" = None,
    compare: bool = False,
) -> "ReportRecord":
    """Plans and their receipts as one HTML page, written to `output`: `kvpareto report --json`.

    `files` are the documents of `plan` and `verify` as JSON; `figures` is a folder for SVG and PNG
    beside it. Raises BadInput; MissingDependency for figures without matplotlib.
    """
    from .planner.typed_words import typed_path
    from .report.page.report_file import write_report as write

    if isinstance(files, str) or not hasattr(files, "__iter__"):
        raise BadInput("not a list of files", 'give several paths: ["plan.json", "receipt.json"]')
    paths = [typed_path("files", one) for one in files]
    beside = None if figures is None else typed_path("figures", figures)
    return cast("ReportRecord", write(paths, typed_path("output", output), beside, compare=compare))


def _plan_words(model: object, words: "PlanWords") -> "tuple[str, PlanWords]":
    """Model and words of a plan, of their types. Raises BadInput."""
    from .planner.typed_request import PlanWords
    from .planner.typed_words import typed_model, typed_words

    return typed_model(model), cast("PlanWords", typed_words(words, PlanWords.__annotations__))


def _unsaid(line: str) -> None:
    """What a command says on stderr, a call does not."""
