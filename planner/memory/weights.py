"""Bytes of a model's weights: as its checkpoint stores them, or as we would quantize them.

w16 is the checkpoint's own dtype. w8 is int8 with one fp16 scale an output channel; w4 is AWQ's
"gemm" layout in groups of 128. Both quantize the matrix products of the text decoder, experts
one by one, and keep everything else: embeddings, the output head, norms, routers, biases,
convolutions, recurrent parameters, vision and audio towers, extra prediction layers, and
matrices whose sizes do not fit the format (w4 takes inputs up to a sixteenth short of a multiple
of 128, with zeros behind them). A checkpoint that is already quantized has one
format, its own; it stands for the weight bits nearest to it (fp8 and int8: w8; below: w4). At
w16 it is dequantized when loaded, as engines without kernels for its format do.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from ..errors import BadInput
from ..formats.configuration import WEIGHT_BITS
from ..formats.dtypes import DTYPE_BYTES
from ..formats.weight_format import INT8, W4, MatrixFormat
from ..light_dataclass import dataclass
from ..models.spec import (
    Attention,
    DenseFFN,
    LatentAttention,
    ModelSpec,
    MoEFFN,
    Part,
    RecurrentState,
    Role,
    TensorGroup,
)

FORMATS = {8: INT8, 4: W4}
ROUNDED_BITS = (16, *FORMATS)
"""Weight bits that a 16-bit checkpoint is run in; others are those of checkpoints as they are."""
_MATRICES = (Role.LINEAR, Role.EXPERT)
_EVERY_MATRIX = (*_MATRICES, Role.LM_HEAD, Role.EMBEDDING, Role.ROUTER)
_BEYOND = "in the files beyond config.json"
_FUSED_IN_CHECKPOINT = {"gpt_oss", "llama4", "llama4_text", "dbrx"}


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of all weights. `total` is the sum of `parts`, and of `quantized` and `kept`.

    `workspace`: bytes of the largest quantized matrix in bfloat16, what a kernel that dequantizes
    before it multiplies has to hold (of stacked experts: one expert's matrix). `formats`: bytes
    by storage, the dtype's name or the format's, largest first. `misfits`: matrices that the
    format cannot hold and that therefore stay as they are.
    """

    total: int
    parts: dict[Part, int]
    workspace: int
    quantized: int
    kept: int
    formats: dict[str, int]
    misfits: tuple[str, ...] = ()
    dequantized: str = ""
    """The format that the checkpoint stores, where these bytes are those of its 16-bit weights."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the bytes should know of matrices that are not stored as asked."""
        if self.dequantized:
            return (f"weights are dequantized to 16 bits; the checkpoint is {self.dequantized}",)
        if not self.misfits:
            return ()
        names = [name.removesuffix(".weight").rsplit("*.", 1)[-1] for name in self.misfits]
        shown = ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)
        return (f"not quantized, because their sizes are no multiple of the group: {shown}",)


def available_weight_bits(spec: ModelSpec) -> tuple[int, ...]:
    """Weight bits worth choosing: all, or only the checkpoint's own if it is quantized."""
    if spec.quantization is None:
        return ROUNDED_BITS
    own = spec.quantization.bits
    return (max((bits for bits in WEIGHT_BITS if bits <= own), default=WEIGHT_BITS[-1]),)


def check_weight_bits(spec: ModelSpec, weight_bits: int) -> None:
    """Raise BadInput for weights that the checkpoint is neither stored in nor rounded to."""
    available = available_weight_bits(spec)
    if weight_bits in (16, *available):
        return
    if spec.quantization is None:
        raise BadInput(
            f"{spec.name} is not quantized, and w{weight_bits} is for checkpoints stored so",
            "its weights are rounded to w8 or w4, or stay w16",
        )
    raise BadInput(
        f"{spec.name} is already quantized ({spec.quantization.method}), so its weights cannot be "
        f"w{weight_bits}",
        f"choose w{available[0]}a16 (as it is) or w16a16, or give the model it was quantized from",
    )


def weight_bytes(spec: ModelSpec, weight_bits: int) -> WeightBytes:
    """Bytes of `spec`'s weights at `weight_bits`: 16, 8, 4, or a quantized checkpoint's own.

    In the checkpoint's own format its files, where at hand, are the truth: what they hold beyond
    (or below) what config.json gives is counted as text. Raises BadInput for quantizing a
    checkpoint that is already quantized in another number of bits, and for bits that nothing is
    rounded to.
    """
    check_weight_bits(spec, weight_bits)
    available = available_weight_bits(spec)
    sizes: Counter[tuple[Part, str, bool]] = Counter()
    workspace = 0
    misfits: list[str] = []
    for group in spec.tensors:
        for stored, count in _storage(spec, group, weight_bits):
            if stored is not None and not all(stored.fits(*m) for m in matrices_of(spec, group)):
                misfits.append(group.name)
                stored = None
            if stored is None:
                dtype = group.dtype or spec.dtype
                sizes[group.part, dtype, False] += _plain_bytes(spec, group, count)
                continue
            matrices = matrices_of(spec, group)
            one = sum(stored.nbytes(*matrix) for matrix in matrices)
            sizes[group.part, stored.name, True] += one * count * stacked(group)
            workspace = max(
                workspace, 2 * sum(rows * stored.padded(columns) for rows, columns in matrices)
            )
    if spec.stored_weight_bytes is not None and weight_bits == available[0]:
        beyond = spec.stored_weight_bytes - sizes.total()
        if beyond:
            sizes[Part.TEXT, _BEYOND, False] += beyond
    weights = _summed(sizes, workspace, misfits)
    if weight_bits not in available and spec.quantization is not None:
        return replace(weights, dequantized=spec.quantization.method)
    return weights


def _summed(
    sizes: Counter[tuple[Part, str, bool]], workspace: int, misfits: list[str]
) -> WeightBytes:
    parts: Counter[Part] = Counter()
    formats: Counter[str] = Counter()
    for (part, name, _), size in sizes.items():
        parts[part] += size
        formats[name] += size
    quantized = sum(size for (_, _, is_quantized), size in sizes.items() if is_quantized)
    total = sum(sizes.values())
    return WeightBytes(
        total=total,
        parts=dict(parts),
        workspace=workspace,
        quantized=quantized,
        kept=total - quantized,
        formats=dict(formats.most_common()),
        misfits=tuple(dict.fromkeys(misfits)),
    )


def _plain_bytes(spec: ModelSpec, group: TensorGroup, count: int) -> int:
    return group.parameters // group.count * count * DTYPE_BYTES[group.dtype or spec.dtype]


def _storage(
    spec: ModelSpec, group: TensorGroup, weight_bits: int
) -> Iterator[tuple[MatrixFormat | None, int]]:
    """(format, how many of the group's tensors are stored so); None: in their own dtype."""
    if spec.quantization is not None and weight_bits < 16:
        yield from checkpoint_storage(spec, group)
    elif weight_bits < 16 and group.part is Part.TEXT and group.role in _MATRICES:
        yield FORMATS[weight_bits], group.count
    else:
        yield None, group.count


def checkpoint_storage(
    spec: ModelSpec, group: TensorGroup
) -> Iterator[tuple[MatrixFormat | None, int]]:
    """What the checkpoint's rules say of one group, layer by layer; the first match wins."""
    quantization = spec.quantization
    rules = quantization.rules if quantization is not None else ()
    decoder_only = quantization is not None and quantization.decoder_only
    every = quantization is not None and quantization.every_matrix
    tower = group.part is not Part.TEXT
    roles = _EVERY_MATRIX if every else (*_MATRICES, Role.LM_HEAD)
    if (tower and decoder_only) or group.role not in roles:
        yield None, group.count
        return
    left = layers_of(spec, group)
    each = group.count // len(left) if left else 0
    rest = group.count - each * len(left)
    for rule in rules:
        named = rule.format is None or "lm_head" in rule.pattern
        if group.role is Role.LM_HEAD and not named and not every:
            continue  # no other tool quantizes the head unless it is named
        hit = rule.layers_matching(group.name, left)
        if hit:
            yield rule.format, each * len(hit) + (rest if hit == left else 0)
            left -= hit
            if not left:
                return
    yield None, each * len(left) + rest


def quantizes_any(spec: ModelSpec) -> bool:
    """Whether the checkpoint's rules meet any matrix of this model that their formats hold."""
    return any(
        stored is not None and all(stored.fits(*m) for m in matrices_of(spec, group))
        for group in spec.tensors
        for stored, count in checkpoint_storage(spec, group)
        if count
    )


def layers_of(spec: ModelSpec, group: TensorGroup) -> frozenset[int]:
    """Indices of the layers a group belongs to, by its name and how often it exists."""
    layers = range(len(spec.layers))
    if ".*." not in group.name or group.part is not Part.TEXT:
        return frozenset({0})
    kinds = (
        lambda layer: True,
        lambda layer: any(isinstance(m, Attention | LatentAttention) for m in layer.mixers),
        lambda layer: any(isinstance(m, RecurrentState) for m in layer.mixers),
        lambda layer: isinstance(layer.ffn, MoEFFN),
        lambda layer: isinstance(layer.ffn, DenseFFN),
    )
    name = group.name
    if "experts" in name or ".shared_expert" in name or ".router" in name:
        order: tuple[int, ...] = (3, 0)
    elif "self_attn" in name or ".attention." in name:
        order = (0, 1)
    elif "linear_attn" in name or "mamba" in name:
        order = (2, 0)
    else:
        order = (0, 4, 1, 2, 3)
    for index in order:
        of_kind = frozenset(i for i in layers if kinds[index](spec.layers[i]))
        if of_kind and group.count % len(of_kind) == 0:
            return of_kind
    return frozenset(range(min(group.count, len(layers))))


def stacked(group: TensorGroup) -> int:
    """Matrices stacked in one tensor of the group: its experts."""
    return group.shape[0] if group.role is Role.EXPERT and len(group.shape) == 3 else 1


def matrices_of(spec: ModelSpec, group: TensorGroup) -> list[tuple[int, int]]:
    """(out, in) of the matrices one expert or one linear layer of this group is stored as.

    transformers stacks experts as (experts, out, in) or (experts, in, out): the side that is the
    residual stream tells which. It fuses gate and up, which most checkpoints keep apart.
    """
    if group.role is not Role.EXPERT or len(group.shape) != 3:
        outputs = group.shape[0]
        return [(outputs, group.parameters // group.count // outputs)]
    _, first, second = group.shape
    leaf = group.name.removesuffix(".weight").rsplit(".", 1)[-1]
    transposed = first == spec.hidden if "down" not in leaf else second == spec.hidden
    outputs, inputs = (second, first) if transposed and first != second else (first, second)
    fused = "gate_up" in leaf and outputs % 2 == 0 and spec.model_type not in _FUSED_IN_CHECKPOINT
    return [(outputs // 2, inputs)] * 2 if fused else [(outputs, inputs)]
