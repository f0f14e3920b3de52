"""Bytes of the packed cache: each layer in the buffers of KVFormat that the runtime allocates."""

from collections import Counter
from collections.abc import Iterable

from ...errors import BadInput
from ...formats.configuration import Configuration, Granularity
from ...formats.kv_format import KVFormat
from ...light_dataclass import dataclass
from ...memory.kv_cache import compressed_rest, index_bytes, state_bytes
from ...models.spec import Attention, CompressedAttention, LatentAttention, Mixer, ModelSpec
from ...workload import Workload


def packed_bytes(spec: ModelSpec, config: Configuration, workload: Workload, tokens: int) -> int:
    """Bytes of buffers for `tokens` tokens of every sequence, recurrent states included.

    Raises BadInput for latents in a format that they are not packed in.
    """
    check_latents(spec, config)
    protected: Counter[Mixer] = Counter()
    total = state_bytes(spec, workload.batch)
    if config.protection is not None:
        for index in config.protection.layers:
            if index < len(spec.layers):
                protected.update(spec.layers[index].mixers)
        form = KVFormat.of(config, config.protection.layers[0])
        total += _packed_layers(protected.items(), form, config, workload, tokens)
    index = next(i for i in range(2**20) if config.layer_bits(i) == (config.k_bits, config.v_bits))
    rest = ((mixer, count - protected[mixer]) for mixer, count in spec.mixer_counts)
    form = KVFormat.of(config, index)
    return total + _packed_layers(rest, form, config, workload, tokens)


def check_latents(spec: ModelSpec, config: Configuration) -> None:
    """Raise BadInput for a format that latents have not, and for rotary keys that are none."""
    if not any(isinstance(m, LatentAttention) for m, _ in spec.mixer_counts):
        if config.rope_bits < 16:
            raise BadInput(
                f"+rope{config.rope_bits} is of latent attention, which {spec.model_type} has not",
                "leave +rope out",
            )
        return
    pairs = [(config.k_bits, config.v_bits)]
    if config.protection is not None:
        pairs.append((config.protection.k_bits, config.protection.v_bits))
    if any(k != v for k, v in pairs) or config.k_format != config.v_format:
        raise BadInput(
            f"a latent is key and value at once: K and V take the same bits, not {config}",
            "k8v8 or k4v4; +rope8 is for the rotary keys, which stay in 16 bits without it",
        )
    turned = config.smoothing or config.rotation or config.affine
    if config.granularity is not Granularity.PER_TOKEN or turned:
        raise BadInput(
            f"latents are packed with one scale a token and group, not as {config} says",
            "k8v8-g64 or k4v4-g64, without +smooth and +rot",
        )


def _packed_layers(
    mixers: Iterable[tuple[Mixer, int]],
    form: KVFormat,
    config: Configuration,
    workload: Workload,
    tokens: int,
) -> int:
    batch = workload.batch
    total = 0
    for mixer, count in mixers:
        own = form.of_latent(config.rope_bits) if isinstance(mixer, LatentAttention) else form
        part = packed_part(mixer, own, tokens, config.largest_chunk)
        if count and part is not None:
            shape = batch, part.heads, part.key_dim, part.value_dim, part.tokens
            total += count * (own.nbytes(*shape) + batch * part.beside)
    return total


@dataclass(frozen=True, slots=True)
class PackedPart:
    """What one mixer keeps for each sequence: buffers of this shape, and bytes beside them."""

    heads: int
    key_dim: int
    value_dim: int
    tokens: int
    beside: int = 0


def packed_part(mixer: Mixer, form: KVFormat, tokens: int, chunk: int | None) -> PackedPart | None:
    """The buffers' shape for `tokens` tokens prefilled in chunks; None where nothing is packed."""
    match mixer:
        case LatentAttention():
            kept = form.capacity(mixer.window, tokens, chunk)
            beside = kept * index_bytes(mixer, "bfloat16")
            return PackedPart(1, mixer.kv_rank, mixer.rope_dim, kept, beside)
        case CompressedAttention():
            beside = 2 * compressed_rest(mixer, tokens)
            return PackedPart(1, mixer.head_dim, 0, tokens // mixer.rate, beside)
        case Attention() if mixer.shares_kv_with is None:
            capacity = form.capacity(mixer.window or mixer.local_chunk, tokens, chunk)
            beside = capacity * index_bytes(mixer, "bfloat16")
            return PackedPart(mixer.kv_heads, mixer.head_dim, mixer.value_dim, capacity, beside)
        case _:
            return None
