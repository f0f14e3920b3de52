"""Known models read as if nobody knew them: what the fallback says beside the truth.

`python tests/support/oracle/held_out.py` prints how many of the bundled configs, and of the small
ones of every family, come out exact, within bounds, or refused by name.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from kvpareto.planner.engine import Engine
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.errors import BadConfig, BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory import estimate as memory
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.memory.weights import available_weight_bits
from kvpareto.planner.models.families.config_defaults import config_defaults_of
from kvpareto.planner.models.families.unknown.similar_types import similar_types
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.workload import Workload

MODELS = Path(__file__).parents[3] / "profiles" / "models"
PLAIN = Configuration()
ASKED = [
    (Configuration.parse(config), Workload(context, 100), engine)
    for config in ("w16a16-k16v16", "w4a16-k4v4-g64+pc256", "w8a16-k8v4-kc128+pc256")
    for context in (1000, 16384)
    for engine in (KVPARETO, TRANSFORMERS)
] + [
    (Configuration.parse(f"w{bits}a16-k8v8+pc{chunk}"), Workload(9000, 100, 64), KVPARETO)
    for bits in (16, 8, 4)
    for chunk in (1024, 8192)
]
# What these classes leave to their code alone; a file that transformers saved would say it.
SAVED: dict[str, dict[str, Any]] = {
    "minimax": {"layer_types": ["full_attention", "linear_attention"] * 2},
    "gpt2": {"rotary_dim": None},
}


def bundled() -> dict[str, dict[str, Any]]:
    """Every config that ships with the package, by file name."""
    found = {
        p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted(MODELS.glob("*.json"))
    }
    return {name: config for name, config in found.items() if "model_type" in config}


def as_saved(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """A small config with its class's defaults written out, as transformers saves them."""
    facts = config_defaults_of(config["model_type"])
    given = {key for name in config for key in (name, facts.aliases.get(name, name))}
    given |= {name for name, older in facts.aliases.items() if older in config}
    more = {k: v for k, v in facts.defaults.items() if v is not None and k not in given}
    return {**config, **more, **SAVED.get(name, {})}


@contextmanager
def hidden(known: set[str] | None = None) -> Iterator[None]:
    """No family is known, or all but those named."""
    from kvpareto.planner.models import families, read_config
    from kvpareto.planner.models.families import registry as styles
    from kvpareto.planner.models.families.unknown import fallback

    def reader(name: str) -> Any:
        return None if known is None or name in known else families.reader_of(name)

    def style(name: str) -> Any:
        return None if known is None or name in known else styles.style_of(name)

    with (
        patch.object(read_config, "reader_of", reader),
        patch.object(fallback, "reader_of", reader),
        patch.object(fallback, "style_of", style),
    ):
        yield


def own_types(config: dict[str, Any], spec: ModelSpec) -> set[str]:
    """The names that a config's family goes by."""
    nested = [x.get("model_type") for x in config.values() if isinstance(x, dict)]
    return {spec.model_type, spec.text_type, *(n for n in nested if isinstance(n, str))} - {""}


def has_sister(config: dict[str, Any]) -> bool:
    """Whether another known family's name is near enough to be tried first."""
    true = read_model(config, "")
    types = own_types(config, true)
    return any(name not in types for kind in types for name in similar_types(kind, config))


def compare(name: str, config: dict[str, Any], *, all_hidden: bool = True) -> tuple[str, list[str]]:
    """("exact", "bounded", "refused" or "wrong", what is outside its bounds)."""
    true = read_model(config, name)
    with hidden(None if all_hidden else own_types(config, true)):
        try:
            found = read_model(config, name)
        except BadConfig:
            return "refused", []
    wrong = [*_outside("parameters", true.parameters, found.parameter_range)]
    for context in (1000, 131_072):
        wrong += _caches(true, found, context)
    for asked in ASKED:
        wrong += _memory(true, found, *asked)
    if wrong:
        return "wrong", wrong
    low, high = found.parameter_range
    same = _kv(true, 131_072) == _kv(found, 131_072) and not found.bounds[1:]
    return ("exact" if same and high <= 1.05 * low else "bounded"), []


def _kv(spec: ModelSpec, context: int) -> dict[str, int]:
    found = kv_bytes(spec, PLAIN, Workload(context, 0), TRANSFORMERS)
    return {"total": found.total, "per_token": found.per_token, "fixed": found.fixed}


def _caches(true: ModelSpec, found: ModelSpec, context: int) -> Iterator[str]:
    each = [_kv(spec, context) for spec in (found, *found.ends)]
    for key, value in _kv(true, context).items():
        sizes = [one[key] for one in each]
        yield from _outside(f"kv {key} at {context}", value, (min(sizes), max(sizes)))


def _memory(
    true: ModelSpec, found: ModelSpec, config: Configuration, workload: Workload, engine: Engine
) -> Iterator[str]:
    if config.weight_bits not in (16, *available_weight_bits(true)):
        return
    try:
        right = memory.estimate(true, config, workload, engine, None)
        said = memory.estimate(found, config, workload, engine, None)
    except BadInput:  # an engine that cannot hold the cache, as one of the readings has it
        return
    where = f"{config} {workload.context} {engine.name}"
    for term in ("weights", "kv"):
        yield from _outside(f"{term} {where}", getattr(right, term), said.range_of(term))
    yield from _outside(f"total {where}", right.total, (said.total_low, said.total_high))


def _outside(what: str, value: int, ends: tuple[int, int]) -> Iterator[str]:
    low, high = ends
    if not low <= value <= high:
        yield f"{what}: {value:,} is not within {low:,} and {high:,}"


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[3]))
    from tests.support.tiny_configs import CONFIGS

    small = {name: as_saved(name, config) for name, config in CONFIGS.items()}
    for title, configs in (("bundled", bundled()), ("small", small)):
        for all_hidden in (True, False):
            counts = Counter(compare(n, c, all_hidden=all_hidden)[0] for n, c in configs.items())
            how = "every family hidden" if all_hidden else "its own family hidden"
            print(f"{title}, {how}: {dict(sorted(counts.items()))} of {len(configs)}")


if __name__ == "__main__":
    main()
