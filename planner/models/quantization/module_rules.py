"""Which modules of a checkpoint are stored in which format: names, wildcards and ignore lists.

Quantization tools name modules as their checkpoint does (`model.layers.3.block_sparse_moe.gate`,
`re:.*self_attn.*`, `*.ffn.shared_experts.*`), one by one for every layer; a ModelSpec names them
as transformers does, all layers at once. Both are brought to one canonical form, without
prefixes and indices (`layers.mlp.gate`), and a rule keeps the set of layers it speaks of.
"""

import re
from collections.abc import Iterable

from ...errors import BadConfig
from ...formats.weight_format import MatrixFormat
from ...light_dataclass import dataclass

_PREFIXES = {"model", "language_model", "backbone", "transformer", "text_model", "base_model"}
_SPELLINGS = {"block_sparse_moe": "mlp", "ffn": "mlp", "attn": "self_attn", "head": "lm_head"}
_LAYER_LISTS = {"layers", "h", "blocks"}
_MAX_PATTERN = 400
_MAX_REPEATS = 6  # backtracking grows with the power of this: six is a blink on a module name
_NESTED_REPEAT = re.compile(r"[*+}][^()]*\)[*+{]")


@dataclass(frozen=True, slots=True)
class ModuleRule:
    """Modules whose canonical name matches `pattern`, in `layers` (None: all): stored as `format`.

    `format` None means left in the model's own dtype. `raw` patterns are the tool's own regular
    expressions and are tried on full names with their layer index.
    """

    pattern: str
    format: MatrixFormat | None
    layers: frozenset[int] | None = None
    raw: bool = False

    def layers_matching(self, name: str, candidates: frozenset[int]) -> frozenset[int]:
        """Those of the layers `candidates` in which the module `name` falls under this rule.

        `name` is transformers' parameter name with `*` for indices. A module outside the layers
        is asked for with candidates {0}.
        """
        module = name.removesuffix(".weight")
        if not self.raw:
            if re.fullmatch(self.pattern, canonical(module)[0]) is None:
                return frozenset()
            return candidates if self.layers is None else candidates & self.layers
        probe = _as_in_checkpoint(module)
        if not any(c.isdigit() for c in self.pattern):
            hit = re.match(self.pattern, probe.replace("*", "0")) is not None
            return candidates if hit else frozenset()
        return frozenset(
            layer
            for layer in candidates
            if re.match(self.pattern, probe.replace("*", str(layer), 1).replace("*", "0"))
        )


def canonical(module: str) -> tuple[str, int | None]:
    """A module's name without prefixes and indices, and the index of its layer, if it names one."""
    segments = module.split(".")
    while len(segments) > 1 and segments[0] in _PREFIXES:
        segments = segments[1:]
    layer = None
    kept: list[str] = []
    for segment in segments:
        index = segment.rstrip("*")  # `layers.61*` is layer 61
        if index.isdecimal() and len(index) < 7:
            if layer is None and kept and kept[-1] in _LAYER_LISTS:
                layer = int(index)
            elif kept and kept[-1] == "experts":
                break  # one expert's matrices (w1, gate_proj, ...) are stored as all of them are
        elif segment != "*":
            kept.append(_SPELLINGS.get(segment, segment))
    return ".".join(kept), layer


def rules_for(names: Iterable[object], stored: MatrixFormat | None) -> list[ModuleRule]:
    """Rules for a tool's list of module names, wildcards and `re:` expressions.

    Raises BadConfig for entries that are no text or an expression that cannot be evaluated.
    """
    layers_of: dict[str, set[int] | None] = {}
    raw: list[ModuleRule] = []
    for name in names:
        if not isinstance(name, str) or len(name) > _MAX_PATTERN:
            raise BadConfig(
                f"quantization_config names a module as {name!r}", "module names are short texts"
            )
        if name.startswith("re:"):
            raw.append(ModuleRule(_checked(name[3:]), stored, raw=True))
            continue
        core, layer = canonical(name)
        pattern = _wildcards(core, anchored=not name.startswith("*"))
        if layer is None:
            layers_of[pattern] = None
        else:
            known = layers_of.setdefault(pattern, set())
            if known is not None:
                known.add(layer)
    plain = [
        ModuleRule(pattern, stored, None if layers is None else frozenset(layers))
        for pattern, layers in layers_of.items()
    ]
    return plain + raw


def _wildcards(core: str, anchored: bool) -> str:
    """A regular expression for a canonical name: the module itself and everything inside it.

    A name that starts inside the layers is meant from there; any other may stand anywhere.
    """
    pieces = re.split(r"\*+", core)
    if len(pieces) > _MAX_REPEATS:
        raise BadConfig(f"quantization_config: {core!r} has too many wildcards", "use fewer")
    body = ".*".join(re.escape(piece) for piece in pieces)
    inside = anchored and core.split(".")[0].rstrip("*") in _LAYER_LISTS
    return ("" if inside else r"(?:.*\.)?") + body + (r"(?:\..*)?" if body else ".*")


def _checked(expression: str) -> str:
    """The expression, if it compiles and cannot take exponential time."""
    repeats = sum(expression.count(c) for c in "*+{")
    try:
        if repeats > _MAX_REPEATS or _NESTED_REPEAT.search(expression):
            raise ValueError
        re.compile(expression)
    except (re.error, ValueError, OverflowError, RecursionError):
        raise BadConfig(
            f"quantization_config: {expression!r} is not a usable expression",
            "compare with the model's published config.json",
        ) from None
    return expression


def _as_in_checkpoint(module: str) -> str:
    """Stacked experts by the name that one expert's matrix has in a checkpoint."""
    return re.sub(r"\.experts\.(?:gate_up|gate|up|down)_proj$", ".experts.*.down_proj", module)


def all_modules(stored: MatrixFormat) -> list[ModuleRule]:
    return [ModuleRule(".*", stored)]


def experts(stored: MatrixFormat) -> list[ModuleRule]:
    """Routed experts, not the shared ones."""
    return [ModuleRule(r"(?:.*\.)?experts\..*", stored)]
