"""Every config.json of a folder: parameters and caches as planned, and as transformers has them.

transformers instantiates each model on the meta device, without memory. Parameters are compared
group by group (name with indices as `*`, shape, number), caches by their bytes after prompts of
LENGTHS tokens, with experts that answer zeros.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...planner.engines.transformers import TRANSFORMERS
from ...planner.errors import BadInput, one_line
from ...planner.formats.configuration import Configuration
from ...planner.libraries import import_failure, importing
from ...planner.memory.kv_cache import kv_bytes
from ...planner.models.read_config import read_model
from ...planner.models.spec import ModelSpec
from ...planner.models.untrusted_json import read_json_object
from ...planner.workload import Workload
from ...report.progress import progress

LENGTHS = (300, 5001)
UNREADABLE = "unreadable"
"""The verdict on a file that is no JSON object, or that cannot be opened."""
WRONG = ("differs", "refused", UNREADABLE)
"""Verdicts that make a check fail; `not instantiable` and `not runnable` are transformers' own."""


def check_folder(folder: Path) -> dict[str, Any]:
    """What `kvpareto profiles check --json` prints, of the configs of a folder or of one file.

    Raises BadInput where there is none, MissingDependency without transformers.
    """
    paths = configs_in(folder)
    checked = []
    with _quiet(), progress(len(paths)) as shown:
        for number, path in enumerate(paths):
            shown.step(path.stem, number)
            verdict = check(path)
            if verdict is not None:
                checked.append(verdict)
    document = summary(checked, folder)
    return document | failure(document)


def configs_in(folder: Path) -> list[Path]:
    """The config files of a folder: its own, its models' folders', or JSON files side by side. A
    file is taken alone.

    Raises BadInput where there is none.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder", "give a folder of config.json files")
    own = folder / "config.json"
    if own.is_file():
        return [own]
    paths = [*folder.glob("*/config.json"), *folder.glob("*.json")]
    if not paths:
        raise BadInput(f"{folder} has no config.json", "give a folder of config.json files")
    return sorted(paths)


def check(path: Path) -> dict[str, Any] | None:
    """The verdicts on one config, also where it cannot be read; None for a file that is no model's
    config."""
    name = path.parent.name if path.name == "config.json" else path.stem
    none: dict[str, Any] = {"total": None, "cache": None, "notes": []}
    try:
        config = read_json_object(path)
    except BadInput as error:
        unread = {"verdict": UNREADABLE, "why": error.message}
        return {"name": name, "model_type": "", "parameters": unread, **none}
    if "model_type" not in config:
        return None
    verdict: dict[str, Any] = {"name": name, "model_type": str(config["model_type"])}
    try:
        spec = read_model(config, name)
    except BadInput as error:
        return {**verdict, "parameters": {"verdict": "refused", "why": error.message}, **none}
    parameters, cache = _compare(config, spec)
    return {
        **verdict,
        "parameters": parameters,
        "total": spec.parameters,
        "cache": cache,
        "notes": list(spec.warnings),
    }


def summary(checked: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """The document of a whole folder; `verified` where nothing differs and nothing is refused."""
    counts = {
        what: dict(Counter(one[what]["verdict"] for one in checked if one[what]))
        for what in ("parameters", "cache")
    }
    wrong = sum(counts[what].get(verdict, 0) for what in counts for verdict in WRONG)
    return {
        "schema": 1,
        "folder": str(folder),
        "verified": not wrong,
        "counts": counts,
        "configs": list(checked),
    }


def failure(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a document that says that a check failed; none where it did not."""
    if document["verified"]:
        return {}
    unread = document["counts"]["parameters"].get(UNREADABLE, 0)
    if unread:
        files = "1 config" if unread == 1 else f"{unread} configs"
        said, hint = f"{files} of {document['folder']} cannot be read", "`why` names the mistake"
    else:
        said = "some configs are not read as transformers reads them"
        hint = "`why` says what differs"
    return {"fits": False, "error": said, "hint": hint, "exit_code": 2 if unread else 1}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' warnings about configs away from the answer, and torch on one thread."""
    with importing("profiles check", "runtime"):
        import torch
        import transformers  # noqa: F401
    threads, disabled = torch.get_num_threads(), logging.root.manager.disable
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        torch.set_num_threads(threads)


def _compare(config: Mapping[str, Any], spec: ModelSpec) -> tuple[dict[str, Any], Any]:
    from .meta_model import hf_config, instantiate, parameter_groups

    try:
        model = instantiate(hf_config(config))
    except Exception as error:  # whatever keeps transformers from making it is the verdict
        broken = import_failure(error, "profiles check")
        if broken is not None:
            raise broken from error
        return {"verdict": "not instantiable", "why": _short(error)}, None
    planned: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for group in spec.tensors:
        planned[group.name, group.shape] += group.count
    truth = parameter_groups(model)
    groups = sorted(
        {
            name
            for name, shape in {*planned, *truth}
            if planned.get((name, shape), 0) != truth.get((name, shape), 0)
        }
    )
    if not groups:
        return {"verdict": "exact"}, _cache(model, spec)
    why = f"{len(groups)} groups of tensors: " + ", ".join(groups[:3])
    return {"verdict": "differs", "why": why, "groups": groups}, _cache(model, spec)


def _cache(model: Any, spec: ModelSpec) -> dict[str, Any]:
    from .meta_model import cache_bytes, fill_cache

    for tokens in LENGTHS:
        try:
            held = cache_bytes(fill_cache(model, tokens))
        except Exception as error:
            return {"verdict": "not runnable", "why": _short(error)}
        try:
            planned = kv_bytes(spec, Configuration(), Workload(tokens, 0), TRANSFORMERS).total
        except BadInput as error:
            return {"verdict": "refused", "why": error.message}
        if planned != held:
            why = f"{planned:,} bytes planned, {held:,} held after {tokens:,} tokens"
            return {"verdict": "differs", "why": why}
    return {"verdict": "exact"}


def _short(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}", 90)
