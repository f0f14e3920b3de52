"""The Hugging Face hub, as far as planning needs it: a config.json, cached or downloaded.

Reading the local cache is a few file look-ups in huggingface_hub's documented layout
(`models--org--name/refs/main` names a folder in `snapshots/`), so that a plan of a cached model
imports nothing. Only a download imports huggingface_hub.
"""

import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ..errors import BadInput, KVParetoError, MissingDependency
from ..libraries import import_failure
from .untrusted_json import read_json_object

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
CONFIG = "config.json"
TOTAL_SECONDS = 30.0
MAY_ASK = "hub_id"
"""Of a spec's `extra`: the hub id whose repository may be asked for more than its config."""

COMMIT = re.compile(r"[0-9a-f]{40}")
T = TypeVar("T")
_TRUE = {"1", "on", "yes", "true"}


def is_offline() -> bool:
    """Whether the environment forbids the network, in huggingface_hub's own words."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").strip().lower() in _TRUE for name in names)


def cache_folder() -> Path:
    """Where huggingface_hub keeps repositories, by the variables that move it."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return _expanded(os.environ[name])
    default = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(default, "huggingface")
    return _expanded(home) / "hub"


def _expanded(text: str) -> Path:
    """With the home folder in it, or as it is for a user who has none."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def cached_snapshot(repo_id: str) -> Path | None:
    """Folder of the cached `main` revision of `repo_id` if its config.json is there."""
    repo = cache_folder() / f"models--{repo_id.replace('/', '--')}"
    try:
        revision = (repo / "refs" / "main").read_text(encoding="ascii").strip()
        snapshot = repo / "snapshots" / revision
        if re.fullmatch(r"[0-9a-zA-Z]+", revision) and (snapshot / CONFIG).is_file():
            return snapshot
    except (OSError, ValueError):
        pass
    return None


def download_config(repo_id: str) -> Path:
    """Fetch config.json alone (and modelopt's hf_quant_config.json, where there is one).

    Returns the snapshot folder in the hub's cache. HF_TOKEN and HF_ENDPOINT are honoured by
    huggingface_hub. Raises BadInput within about half a minute if the hub does not answer.
    """
    return _within(TOTAL_SECONDS, lambda: _fetch(repo_id))


def _fetch(repo_id: str) -> Path:
    from .hub_get import fetch_small
    from .other_folders import ADAPTER, adapter_error

    # The library asks the endpoint for more than the file, and reads that answer without a limit.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub  # noqa: F401
    except Exception as error:
        found = import_failure(error, f"{repo_id} is not on this machine: fetching it")
        raise found or error from None
    cache = cache_folder()
    try:
        path = fetch_small(repo_id, CONFIG, cache)
    except KVParetoError:
        raise
    except Exception as error:
        explained = _explain(repo_id, error)
        with suppress(Exception):  # no adapter either
            if _is_missing_entry(error):
                adapter = read_json_object(fetch_small(repo_id, ADAPTER, cache))
                explained = adapter_error(repo_id, adapter.get("base_model_name_or_path"))
        raise explained from None
    with suppress(Exception):  # most repositories have none, and the plan can do without
        fetch_small(repo_id, "hf_quant_config.json", cache)
    return path.parent


def _is_missing_entry(error: Exception) -> bool:
    """Whether the repository is there, and the file is not."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return "EntryNotFoundError" in kinds and "LocalEntryNotFoundError" not in kinds


def _explain(repo_id: str, error: Exception) -> BadInput:
    """What went wrong, from the class of huggingface_hub's exception and the HTTP status."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "GatedRepoError" in kinds or (status == 403 and "RepositoryNotFoundError" not in kinds):
        return BadInput(
            f"{repo_id} is gated: the hub wants an accepted licence and a token",
            "accept it on the model's page and set HF_TOKEN, or give a folder or config.json",
        )
    if _is_missing_entry(error):
        return BadInput(
            f"{repo_id} is on the hub, but has no config.json",
            "GGUF-only repositories have none; give the id of the original model",
        )
    if "RepositoryNotFoundError" in kinds or status in (401, 404):
        return BadInput(
            f"no model {repo_id!r} on the hub (or it is private)",
            "check the id; for a private model set HF_TOKEN",
        )
    return BadInput(
        f"{repo_id} is not on this machine and the hub cannot be reached",
        "give a bundled id (`kvpareto profiles list`), a folder, or a config.json",
    )


def ask(repo_id: str, call: Callable[[], T]) -> T:
    """`call()`, which reads ranges of the repository. Raises KVParetoError, also where it takes
    longer than such reads may."""
    try:
        import huggingface_hub  # noqa: F401
    except Exception:
        raise MissingDependency(
            "huggingface_hub is not installed", "pip install huggingface_hub"
        ) from None
    from .hub_ranges import SECONDS

    def explained() -> T:
        try:
            return call()
        except KVParetoError:
            raise
        except Exception as error:
            kinds = {kind.__name__ for kind in type(error).__mro__}
            if _is_missing_entry(error):
                raise BadInput(f"{repo_id} has no safetensors", "give a folder") from None
            if any("Timeout" in kind for kind in kinds):
                raise BadInput(
                    f"the hub took more than {SECONDS:g} seconds", "give a folder"
                ) from None
            raise _explain(repo_id, error) from None

    return _within(SECONDS + 0.5, explained)


def _within(seconds: float, call: Callable[[], T]) -> T:
    """`call()` in a thread, given up after `seconds`: name resolution knows no timeout."""
    result: list[T] = []
    failure: list[KVParetoError] = []

    def work() -> None:
        try:
            result.append(call())
        except KVParetoError as error:
            failure.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not result:
        raise BadInput(
            f"the hub did not answer within {seconds:g} seconds",
            "give a bundled id (`kvpareto profiles list`), a folder, or a config.json",
        )
    return result[0]
