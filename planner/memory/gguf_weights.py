"""Bytes of a model's weights as llama.cpp stores them: a GGUF file's own, or a mix's, derived.

A model that was read from a GGUF file has its tensors, exact. For any other the tensors of its
ModelSpec are what the converter would write (experts stacked, gate and up apart, MLA's
up-projection cut in two, norms, biases and routers in float32), and each gets the type that
llama-quantize's rule gives it (formats/gguf_mix.py). Image and audio towers are files of their own
and not counted, nor are extra prediction layers. Derived sizes are within 1 % of published files
(tests/planner/memory/test_gguf_weights.py).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ..errors import BadConfig, BadInput
from ..formats.gguf_mix import MixFacts, tensor_type
from ..formats.gguf_types import GGUF_TYPES, MIXES
from ..light_dataclass import dataclass
from ..models.spec import Attention, LatentAttention, ModelSpec, MoEFFN
from .gguf_slots import Slot, slots_of

RELEASED_MXFP4 = "mxfp4"
"""A model released so (gpt-oss) keeps its experts in MXFP4 in every mix."""
_TOKEN_BYTES = 40
"""Bytes of a file's header to an entry of the vocabulary: text, type and merges; 25 to 45."""


@dataclass(frozen=True, slots=True)
class GgufWeights:
    """Bytes of a model's weights in GGUF.

    `by_type`: bytes of each ggml type. `by_layer`: bytes of each block (what `-ngl` places), and
    `experts_by_layer`: of the routed experts among them (what `--n-cpu-moe` moves). `embedding` and
    `output`: the token table and the head (0 where it is the table). `derived`: computed by the
    mix's rule, not read. `file`: all of a file, its header estimated where derived.
    """

    mix: str
    total: int
    by_type: dict[str, int]
    by_layer: tuple[int, ...]
    experts_by_layer: tuple[int, ...]
    embedding: int
    output: int
    file: int
    derived: bool

    @property
    def other(self) -> int:
        """Bytes outside of blocks, token table and head: the last norm, position tables."""
        return self.total - sum(self.by_layer) - self.embedding - self.output


def plain_mix(name: str) -> str:
    """The mix called `name` in any case, or by an alias. Raises BadInput where there is none."""
    upper = name.upper()
    mix = {"MXFP4": "MXFP4_MOE", "Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}.get(upper)
    mix = mix or upper
    if mix not in MIXES:
        raise BadInput(f"{name!r} is no type of GGUF files", f"choose one of {', '.join(MIXES)}")
    return mix


def gguf_weight_bytes(spec: ModelSpec, mix: str | None = None) -> GgufWeights:
    """Bytes of `spec` in a GGUF file of `mix`; None: as its own file stores them.

    Raises BadInput for a mix that does not exist, or that is not what the model's file has.
    """
    mix = mix if mix is None else plain_mix(mix)
    if spec.gguf is not None and mix in (None, spec.gguf.mix):
        return _of_file(spec)
    if mix is None:
        raise BadInput(f"{spec.name} is no GGUF file", "name a type, such as Q4_K_M")
    if spec.gguf is not None and MIXES.get(spec.gguf.mix, GGUF_TYPES["F32"]).quantized:
        raise BadInput(
            f"{spec.name} is a GGUF file of {spec.gguf.mix}, not of {mix}",
            "give the hub id of the original model to plan other types",
        )
    return gguf_sizes(spec, [mix])[mix]


def gguf_sizes(
    spec: ModelSpec, mixes: Sequence[str], *, imatrix: bool = True
) -> dict[str, GgufWeights]:
    """`gguf_weight_bytes` of several mixes at once, all derived.

    `imatrix`: made with an importance matrix, as most published files are; the rule differs.
    """
    slots = list(slots_of(spec))
    facts = replace(_facts(spec, slots), imatrix=imatrix)
    return {mix: _derived(spec, mix, slots, facts) for mix in mixes}


def _of_file(spec: ModelSpec) -> GgufWeights:
    stored = spec.gguf
    assert stored is not None  # the caller asked
    last = max((t.layer for t in stored.tensors if t.layer is not None), default=-1)
    layers, experts = [0] * (last + 1), [0] * (last + 1)
    types: Counter[str] = Counter()
    outside: Counter[str] = Counter()
    for tensor in stored.tensors:
        types[tensor.type] += tensor.nbytes
        if tensor.layer is None:
            outside[tensor.name] += tensor.nbytes
            continue
        layers[tensor.layer] += tensor.nbytes
        if "_exps." in tensor.name:
            experts[tensor.layer] += tensor.nbytes
    return GgufWeights(
        mix=stored.mix,
        total=stored.tensor_bytes,
        by_type=dict(types.most_common()),
        by_layer=tuple(layers),
        experts_by_layer=tuple(experts),
        embedding=outside["token_embd.weight"],
        output=outside["output.weight"],
        file=stored.file_bytes,
        derived=False,
    )


def _derived(spec: ModelSpec, mix: str, slots: list[Slot], facts: MixFacts) -> GgufWeights:
    layers, experts = [0] * len(spec.layers), [0] * len(spec.layers)
    types: Counter[str] = Counter()
    outside: Counter[str] = Counter()
    ranks = _ranks(slots)
    keeps = spec.quantization is not None and spec.quantization.method == RELEASED_MXFP4
    for slot in slots:
        is_expert = slot.kind.startswith("experts ")
        for layer in slot.layers or (0,):
            if slot.fixed:
                name = slot.fixed
            elif is_expert and keeps:
                name = "MXFP4"
                if slot.columns % GGUF_TYPES[name].block:
                    raise BadConfig(
                        f"{spec.name} says that its experts are MXFP4, and their rows of "
                        f"{slot.columns} are no multiple of {GGUF_TYPES[name].block}",
                        "compare with the model's published config.json",
                    )
            else:
                index = layer if facts.experts > 1 else ranks.get((slot.kind, layer), layer)
                name = tensor_type(mix, slot.kind, index, slot.columns, facts)
            size = GGUF_TYPES[name].row_bytes(slot.columns) * slot.rows * slot.copies
            types[name] += size
            if not slot.layers:
                outside[slot.kind] += size
                continue
            layers[layer] += size
            experts[layer] += size * is_expert
    total = types.total()
    return GgufWeights(
        mix=mix,
        total=total,
        by_type=dict(types.most_common()),
        by_layer=tuple(layers),
        experts_by_layer=tuple(experts),
        embedding=outside["token_embd"],
        output=outside["output"],
        file=total + _TOKEN_BYTES * spec.vocab,
        derived=True,
    )


def _ranks(slots: list[Slot]) -> dict[tuple[str, int], int]:
    """The how-manieth of its kind a tensor is, as llama.cpp counts them where no expert is.

    Projections of values, fused or not, count together.
    """
    of_kind: dict[str, set[int]] = {}
    for slot in slots:
        kind = "attn_v" if slot.kind == "attn_qkv" else slot.kind
        of_kind.setdefault(kind, set()).update(slot.layers)
    ranks = {}
    for kind, layers in of_kind.items():
        for rank, layer in enumerate(sorted(layers)):
            ranks[kind, layer] = rank
            if kind == "attn_v":
                ranks["attn_qkv", layer] = rank
    return ranks


def _facts(spec: ModelSpec, slots: list[Slot]) -> MixFacts:
    experts = [layer.ffn.experts for layer in spec.layers if isinstance(layer.ffn, MoEFFN)]
    heads = [
        m.query_heads // m.kv_heads if isinstance(m, Attention) else m.query_heads
        for layer in spec.layers
        for m in layer.mixers
        if isinstance(m, Attention | LatentAttention)
    ]
    values = {i for slot in slots if slot.kind in ("attn_v", "attn_qkv") for i in slot.layers}
    llama = spec.model_type in ("llama", "mistral", "qwen2") and not experts
    return MixFacts(
        layers=len(spec.layers),
        value_tensors=len(values),
        gqa=heads[0] if heads else 0,
        experts=max(experts, default=0),
        tied=not any(slot.kind == "output" for slot in slots),
        falcon=spec.model_type == "falcon",
        seventy_b=llama and len(spec.layers) == 80 and bool(heads) and heads[0] > 1,
    )
