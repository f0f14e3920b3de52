"""The table of key noise of the checkpoint that lies on this machine, if one does.

A folder, the hub's cache or a GGUF file is read where its model has biases or norms on its keys.
That takes a few tenths of a second, and up to some seconds where many layers stand out, so the
table is kept in the user's data folder under the weights' fingerprint: the next plan reads it in a
millisecond. Of a hub id whose config came from the hub and whose weights are not here, ranges of
the same tensors are read there, unless the plan is offline; that table is kept under the commit. A
checkpoint that cannot be read says nothing; the plan then goes
by the config, as it does for a model that is not at hand.
"""

import json
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import KVParetoError
from ...models import hub
from ...models.finite_json import read_json
from ...models.spec import Attention, ModelSpec
from ...user_data import home
from .key_ranges import BITS, STRUCTURES, TRANSFORMS, KeyRanges, bundled, bundled_ranges

FOLDER = "key_ranges"
ASKED_AGAIN = 600.0
"""Seconds after a failed reading of the hub until it is tried again: a try takes up to 5 s."""
SCHEMA = 2
"""Of a kept table: another one is made again."""


def ranges_of(spec: ModelSpec) -> KeyRanges | None:
    """The table of the model's keys: the one that ships for its hub id, else that of its checkpoint
    where it is at hand; None where neither says anything."""
    if spec.name in bundled():
        return bundled_ranges(spec.name)
    if not any(
        isinstance(m, Attention) and (m.qkv_bias or m.qk_norm) for m, _ in spec.mixer_counts
    ):
        return None
    file = spec.extra.get("path") if spec.gguf is not None else None
    place = file or spec.extra.get("folder") or _cached(spec.name)
    if place is None:
        return None
    if hub.MAY_ASK in spec.extra:
        return _of_hub(_Model(spec), Path(place))
    return _of_checkpoint(_Model(spec), place, file is not None)


def unread(spec: ModelSpec) -> tuple[str, ...]:
    """What is to be said where `ranges_of` asked the hub in vain."""
    reason = _REASONS.get(str(spec.extra.get("folder"))) if hub.MAY_ASK in spec.extra else None
    if reason is None:
        return ()
    return (f"its keys could not be read from the hub, and its config alone counts: {reason}",)


_REASONS: dict[str, str] = {}
"""Why the hub said nothing in this process, by the snapshot's folder."""


class _Model:
    """A spec that is the same as another of its name and layers, for the cache of this process."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self._key = spec.name, spec.model_type, spec.hidden, spec.layers

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Model) and self._key == other._key


def _cached(name: str) -> str | None:
    snapshot = hub.cached_snapshot(name) if hub.REPO_ID.fullmatch(name) else None
    return str(snapshot) if snapshot is not None else None


@lru_cache(maxsize=8)
def _of_hub(model: _Model, snapshot: Path) -> KeyRanges | None:
    mark = f"hub-{snapshot.name}"
    kept = _kept(mark)
    if kept is not None:
        return KeyRanges.read(kept) if kept["variance"] else None
    failed = home() / FOLDER / f"{mark}.failed.json"
    if reason := _failed_lately(failed):
        _REASONS[str(snapshot)] = reason
        return None
    spec, repo_id = model.spec, str(model.spec.extra[hub.MAY_ASK])
    try:
        layers = hub.ask(repo_id, lambda: _hub_layers(spec, repo_id, snapshot))
    except KVParetoError as error:
        _REASONS[str(snapshot)] = error.message
        _keep(failed.stem, {"reason": error.message, "at": time.time()})
        return None
    with suppress(OSError):
        failed.unlink(missing_ok=True)
    return _made(layers, mark, f"the key biases and norms of {repo_id} on the hub")


def _failed_lately(path: Path) -> str | None:
    """Why the hub said nothing less than ASKED_AGAIN seconds ago; None where it may be asked."""
    with suppress(KVParetoError, OSError):
        kept = read_json(path) or {}
        at, reason = kept.get("at"), kept.get("reason")
        if isinstance(at, int | float) and isinstance(reason, str):
            return reason if 0 <= time.time() - at < ASKED_AGAIN else None
    return None


def _hub_layers(spec: ModelSpec, repo_id: str, snapshot: Path) -> Any:
    from .hub_keys import hub_key_layers

    return hub_key_layers(spec, repo_id, snapshot)


@lru_cache(maxsize=8)
def _of_checkpoint(model: _Model, place: str, is_gguf: bool) -> KeyRanges | None:
    # here, since a plan without a checkpoint does without
    from ..weights_sample import file_fingerprint, weights_fingerprint

    path = Path(place)
    mark = file_fingerprint(path) if is_gguf else weights_fingerprint(path)
    if mark is None:
        return None
    kept = _kept(mark)
    if kept is not None:
        return KeyRanges.read(kept) if kept["variance"] else None
    try:
        layers = _layers(model.spec, path, is_gguf)
    except (KVParetoError, OSError):
        return None
    return _made(layers, mark, f"the key biases and norms in {path.name}")


def _made(layers: Any, mark: str, source: str) -> KeyRanges | None:
    """The table of `layers`, kept under `mark`."""
    from .key_simulation import key_ranges

    found = key_ranges(layers, source) if layers else None
    _keep(mark, payload_of(found) if found is not None else {"source": source, "variance": {}})
    return found


def _layers(spec: ModelSpec, path: Path, is_gguf: bool) -> Any:
    if is_gguf:
        from .gguf_keys import gguf_key_layers

        return gguf_key_layers(spec, path)
    from .checkpoint_keys import key_layers

    return key_layers(spec, path)


def payload_of(ranges: KeyRanges) -> dict[str, Any]:
    """JSON values of a table, three significant digits each."""
    rows = ranges.variance.reshape(-1, ranges.variance.shape[-1])
    names = [f"{b} {t} {s}" for b in BITS for t in TRANSFORMS for s in STRUCTURES]
    return {
        "source": ranges.source,
        "variance": {
            name: [float(f"{value:.3g}") for value in row.tolist()]
            for name, row in zip(names, rows, strict=True)
        },
    }


def _kept(mark: str) -> dict[str, Any] | None:
    """What was kept for these weights; None where nothing was, or it cannot be used."""
    try:
        found = read_json(home() / FOLDER / f"{mark}.json")
    except (KVParetoError, OSError):
        return None
    if found is None or found.get("schema") != SCHEMA or not isinstance(found.get("source"), str):
        return None
    if found.get("variance") == {}:
        return found
    try:
        table = KeyRanges.read(found).variance
    except (KeyError, TypeError, ValueError):
        return None
    return found if table.size and (table >= 0).all() else None


def _keep(mark: str, payload: dict[str, Any]) -> None:
    """Write the table where the user's data are; where that cannot be, it is made each time."""
    from ...whole_file import write_whole

    with suppress(KVParetoError, OSError):
        folder = home() / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{mark}.json", json.dumps({"schema": SCHEMA, **payload}) + "\n")
