"""`kvpareto profiles`: bundled models, known GPUs, calibrations, and what is known about each."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from ..planner.accuracy import calibrations
from ..planner.accuracy.shipped_measurements import measured_as, measured_models
from ..planner.errors import BadInput
from ..planner.hardware.gpu_names import find_gpu
from ..planner.hardware.gpus import Hardware, list_gpus
from ..planner.load_model import load_model
from ..planner.models.bundled import bundled_models
from ..planner.models.spec import (
    FFN,
    Attention,
    CompressedAttention,
    DenseFFN,
    LatentAttention,
    Layer,
    Mixer,
    ModelSpec,
    RecurrentState,
)
from ..planner.units import GiB, format_bytes
from .layout.folding import folded
from .layout.tables import rows_that_fit

Document = Mapping[str, Any]
_FACT = 32
"""Columns that a fact has beside its name, or it stands below."""


def list_document() -> dict[str, Any]:
    """Hub ids of the bundled models and of those measured by this project, names of the GPUs, and
    this machine's calibrations."""
    return {
        "schema": 1,
        "models": bundled_models(),
        "measured": [
            {
                "model": name,
                "points": known["points"],
                "weights": known["weights"],
                "gpu": known["gpu"],
            }
            for name, known in measured_models().items()
        ],
        "gpus": [gpu.name for gpu in list_gpus()],
        "calibrations": [folder.name for folder in calibrations.folders()],
    }


def show_document(name: str) -> dict[str, Any]:
    """Facts of the GPU, model or calibration called `name`. Raises BadInput if it is none."""
    called = calibrations.named(name)
    if [folder.name for folder in called] == [name]:
        return _calibration_document(called[0])
    try:
        return _gpu_document(find_gpu(name))
    except BadInput as not_a_gpu:
        try:
            return _model_document(load_model(name, offline=True))
        except BadInput as not_a_model:
            if len(called) == 1:
                return _calibration_document(called[0])
            if called:
                raise BadInput(
                    f"{name} has several calibrations",
                    f"name one of {', '.join(folder.name for folder in called)}",
                ) from not_a_model
            if "/" in name:
                raise
            if "more than one" in not_a_gpu.message:
                raise not_a_gpu from not_a_model
            raise BadInput(
                f"nothing is known of {name!r}: no model, no GPU and no calibration has that name",
                "`kvpareto profiles list` names all three",
            ) from not_a_model


def print_list(document: Document, console: Console) -> None:
    """Names, one a line under each heading, so that they can be searched and copied."""
    kinds = (
        ("Models", document["models"]),
        ("Measured models", [_measured_line(one, console) for one in document["measured"]]),
        ("GPUs", document["gpus"]),
        ("Calibrations here", document["calibrations"]),
    )
    for title, names in kinds:
        console.print(f"{title} ({len(names)})", style="bold", highlight=False)
        for name in names:
            console.print(f"  {name}", highlight=False, markup=False, soft_wrap=True)


def _measured_line(one: Mapping[str, Any], console: Console) -> str:
    """The model and, below it where the terminal is narrow, of what its points are."""
    weights = one["weights"].partition(", SHA-256")[0]
    what = f"{one['points']} points on an {one['gpu']}, weights {weights}"
    if len(one["model"]) + len(what) + 4 <= console.width:
        return f"{one['model']}  {what}"
    return "\n".join([one["model"], *folded("    " + what, console.width, 4)])


def print_profile(document: Document, console: Console) -> None:
    """One fact a line."""
    rows = [
        (f"  {key}", "\n".join(value) if isinstance(value, list) else str(value))
        for key, value in document["facts"].items()
    ]
    table = rows_that_fit(("", ""), rows, console.width, fold=1, least=_FACT)
    console.print(document["name"], style="bold", highlight=False, markup=False)
    console.print(table, highlight=False, markup=False, crop=False)


def print_check(document: Document, console: Console) -> None:
    """One config a line: parameters, cache, and what differs."""
    rows = [
        (one["name"], one["model_type"], *(_verdict(one[x]) for x in ("parameters", "cache")))
        for one in document["configs"]
    ]
    titles = "config", "model_type", "parameters", "cache"
    table = rows_that_fit(titles, rows, console.width, fold=3, left=(0, 1, 2))
    console.print(table, highlight=False, markup=False, crop=False)
    for what, counts in document["counts"].items():
        said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        console.print(f"{what}: {said or 'none compared'}", highlight=False, markup=False)


def _verdict(compared: Mapping[str, Any] | None) -> str:
    if compared is None:
        return "-"
    return compared["verdict"] + (f": {compared['why']}" if "why" in compared else "")


def _calibration_document(folder: Path) -> dict[str, Any]:
    meta = calibrations.read_meta(folder) or {}
    facts = {"model": meta.get("model"), **_calibration_facts(meta), "folder": str(folder)}
    return {"schema": 1, "kind": "calibration", "name": folder.name, "facts": facts, "raw": meta}


def _calibration_facts(meta: Document) -> dict[str, Any]:
    """What the runs of a calibration were, and how well they predict each other."""
    where, held_out = meta.get("environment", {}), meta.get("held_out", {})
    facts: dict[str, Any] = {
        "configurations": f"{meta.get('configurations', 0)} ({meta.get('failed', 0)} rows failed)",
        "contexts": ", ".join(f"{context:,}" for context in meta.get("contexts", [])),
        "tasks": ", ".join(meta.get("tasks", [])),
        "measured on": where.get("gpu") or "CPU",
        "ended": meta.get("ended"),
    }
    if meta.get("other_versions"):
        facts["other versions"] = f"{meta['other_versions']} rows"
    if held_out:
        facts["left-out rows"] = (
            f"{100 * held_out['mae']:.1f} points off in the mean, "
            f"{held_out['coverage']:.0%} within 90 % intervals"
        )
    return facts


def _gpu_document(gpu: Hardware) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "memory": f"{gpu.marketing_bytes >> 30} GiB{' shared with the host' * gpu.unified}",
        "a program gets": f"{gpu.memory_bytes / GiB:.2f} GiB ({format_bytes(gpu.memory_bytes)})"
        f"{', estimated' * gpu.memory_estimated}"
        f" ({gpu.memory_source})",
        "bfloat16": "yes" if gpu.bf16 else "no: planned in float16",
        "bandwidth": f"{format_bytes(round(gpu.bandwidth))}/s",
        "fp16 dense": f"{gpu.fp16_flops / 1e12:.0f} TFLOP/s",
    }
    if gpu.measured_copy is not None and gpu.measured_matmul is not None:
        facts["measured copy"] = f"{format_bytes(round(gpu.measured_copy))}/s"
        facts["measured matmul"] = f"{gpu.measured_matmul / 1e12:.0f} TFLOP/s"
        facts["measured how"] = gpu.measured_how
    facts |= {"provenance": gpu.provenance, "source": f"{gpu.source} {gpu.url}".strip()}
    facts["looked up"] = _looked_up(gpu)
    if gpu.note:
        facts["note"] = gpu.note
    return {"schema": 1, "kind": "gpu", "name": gpu.name, "facts": facts, "raw": asdict(gpu)}


def _looked_up(gpu: Hardware) -> str:
    """Whether a second source has the memory's size and bandwidth too."""
    if not gpu.checked:
        return "memory and bandwidth not in a second source"
    if gpu.differs:
        return f"{gpu.differs}: {gpu.checked}"
    return f"memory and bandwidth the same: {gpu.checked}"


def _model_document(spec: ModelSpec) -> dict[str, Any]:
    layers = Counter(_layer(layer) for layer in spec.layers)
    parts = Counter[str]()
    for group in spec.tensors:
        parts[group.part.value] += group.parameters
    facts: dict[str, Any] = {
        "model type": spec.model_type,
        "parameters": _with_ends(spec),
        "by part": [f"{part} {count:,}" for part, count in parts.items()],
        "longest context": f"{spec.max_context:,}" if spec.max_context else "not stated",
        "hidden size": f"{spec.hidden:,}",
        "vocabulary": f"{spec.vocab:,}",
        "layers": [f"{count} x {text}" for text, count in layers.items()],
        "runtime": "kvpareto can run it" if spec.runnable else "kvpareto plans it, cannot run it",
        "source": spec.extra.get("source", "not stated"),
    }
    if spec.quantization is not None:
        facts["weights"] = f"{spec.quantization.method}, {spec.quantization.bits:g} bits"
    measured = measured_as(spec)
    if measured is not None:
        known = measured_models()[measured]
        off, held = known["held_out"]["mae"], known["held_out"]["coverage"]
        facts["measured"] = [
            f"{known['points']} points on an {known['gpu']}",
            f"weights: {known['weights']}",
            f"left-out rows: {100 * off:.1f} points off in the mean, {held:.0%} held by intervals",
        ]
    matched = calibrations.match(spec)
    meta = calibrations.read_meta(matched.folder) if matched else None
    if meta is not None:
        facts["calibration"] = [
            f"{name}: {value}" for name, value in _calibration_facts(meta).items()
        ]
    if spec.bounds:
        facts["bounds"] = [str(bound) for bound in spec.bounds]
    if spec.warnings:
        facts["notes"] = list(spec.warnings)
    low, high = spec.parameter_range
    raw = {
        "parameters": spec.parameters,
        "parameters_low": low,
        "parameters_high": high,
        "by_part": dict(parts),
        "max_context": spec.max_context,
        "bounds": [asdict(bound) for bound in spec.bounds],
    }
    return {"schema": 1, "kind": "model", "name": spec.name, "facts": facts, "raw": raw}


def _with_ends(spec: ModelSpec) -> str:
    low, high = spec.parameter_range
    return f"{spec.parameters:,}" + (f" ({low:,} to {high:,})" if low < high else "")


def _layer(layer: Layer) -> str:
    return "; ".join([*map(_mixer, layer.mixers), *([_ffn(layer.ffn)] if layer.ffn else [])])


def _mixer(mixer: Mixer) -> str:
    match mixer:
        case Attention():
            reach = f", window {mixer.window:,}" if mixer.window else ""
            reach += f", chunks of {mixer.local_chunk:,}" if mixer.local_chunk else ""
            shared = mixer.shares_kv_with is not None
            reach += f", reads layer {mixer.shares_kv_with}'s cache" if shared else ""
            heads = f"{mixer.query_heads}/{mixer.kv_heads} heads of {mixer.head_dim}"
            return f"attention {heads}{reach}"
        case LatentAttention():
            indexed = ", indexer" if mixer.indexer else ""
            return (
                f"MLA {mixer.query_heads} heads, latent {mixer.kv_rank} + {mixer.rope_dim}{indexed}"
            )
        case CompressedAttention():
            heads = f"{mixer.query_heads} heads of {mixer.head_dim}"
            past = f"window {mixer.window:,}, 1 entry for {mixer.rate} tokens"
            return f"compressed attention {heads}, {past}"
        case RecurrentState():
            return f"{mixer.kind.replace('_', ' ')}, state of {mixer.state + mixer.conv:,} elements"


def _ffn(ffn: FFN) -> str:
    if isinstance(ffn, DenseFFN):
        return f"{'gated ' * ffn.gated}FFN {ffn.width:,}"
    shared = f" + shared {ffn.shared_width:,}" if ffn.shared_width else ""
    return f"MoE {ffn.top_k} of {ffn.experts} experts x {ffn.width:,}{shared}"
