"""The bytes of one configuration, part by part, before anybody places them.

Each layer's weights, the experts among them, its KV cache; the token table and the head; the
compute buffers of the device and of the host. A token table that is the head too lies on both
sides: rows are looked up by the processor, and the device multiplies with its own copy.
"""

from functools import lru_cache

from ...errors import BadInput
from ...formats.configuration import Configuration
from ...light_dataclass import dataclass
from ...memory.gguf_weights import GgufWeights, gguf_sizes, gguf_weight_bytes
from ...models.spec import Attention, LatentAttention, ModelSpec, RecurrentState
from ...models.spec_key import SpecKey
from ...workload import Workload
from .cache_bytes import mixer_bytes
from .graph_kinds import GEMMA4
from .model_graph import compute_bytes, device_compute_bytes
from .run_settings import DEFAULT_MICRO_BATCH, RunSettings

BLOCK = 32
"""Elements of a block of every quantized cache type."""


@dataclass(frozen=True)
class Parts:
    """Bytes. `layers`, `experts`, `caches`: one entry a layer."""

    layers: tuple[int, ...]
    experts: tuple[int, ...]
    caches: tuple[int, ...]
    embedding: int
    head: int
    """What the head takes on a device: its own matrix, or a copy of the token table."""
    tied: bool
    compute: int
    """The compute buffer of the side that has all layers."""
    host_compute: int
    output: int
    """Logits of every sequence, in host memory."""
    file: int
    derived: bool
    wide: bool
    """Weights of 16 bits."""
    pass_inputs: int
    """What a card copies of each pass: all that the host's side of it holds."""

    @property
    def weights(self) -> int:
        """On one device, where the token table is stored once."""
        return sum(self.layers) + self.embedding + (0 if self.tied else self.head)


def run_settings(spec: ModelSpec, config: Configuration, workload: Workload) -> RunSettings:
    """How llama.cpp is started for this. Raises BadInput for formats that it does not have."""
    sides = []
    for side, bits, name in (
        ("k", config.k_bits, config.k_format),
        ("v", config.v_bits, config.v_format),
    ):
        if not name and bits != 16:
            raise BadInput(
                f"llama.cpp has no {side}{bits}, in {config}",
                "its caches are f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0 and iq4_nl: kq8_0vq8_0",
            )
        sides.append(name or "f16")
    if config.protection is not None or config.dynamic_chunk:
        raise BadInput(
            f"llama.cpp neither protects layers nor changes its micro-batch, in {config}",
            "leave +protect and +pcdyn out",
        )
    latent = any(isinstance(m, LatentAttention) for m, _ in spec.mixer_counts)
    if latent and sides[0] != sides[1]:
        raise BadInput(
            f"a latent is key and value at once: llama.cpp takes one type for both, not {config}",
            f"write k{sides[0]}v{sides[0]}",
        )
    bad = None if sides == ["f16", "f16"] else unblocked_head(spec)
    if bad is not None and any(side not in ("f16", "bf16") for side in sides):
        raise BadInput(
            f"llama.cpp quantizes caches in blocks of 32 channels, and {spec.name} has heads of "
            f"{bad}: {config} does not start",
            "its cache can be f16 or bf16: kf16vf16",
        )
    return RunSettings(
        context=workload.tokens,
        sequences=workload.batch,
        micro_batch=config.chunk or DEFAULT_MICRO_BATCH,
        keys=sides[0],
        values=sides[1],
    )


def unblocked_head(spec: ModelSpec) -> int | None:
    """Channels of a head that are no whole number of blocks: the cache cannot be quantized."""
    for mixer, _ in spec.mixer_counts:
        if isinstance(mixer, Attention):
            for width in (mixer.head_dim, mixer.value_dim):
                if width % BLOCK:
                    return width
        elif isinstance(mixer, LatentAttention) and (mixer.kv_rank + mixer.rope_dim) % BLOCK:
            return mixer.kv_rank + mixer.rope_dim
    return None


def weight_name(spec: ModelSpec, config: Configuration) -> str:
    """The GGUF type that a configuration's weights mean. Raises BadInput for 8 and 4 bits."""
    if config.weight_format:
        return config.weight_format
    if config.weight_bits == 16:
        return "F16" if spec.dtype == "float16" else "BF16"
    raise BadInput(f"llama.cpp has no w{config.weight_bits}a16", "name a GGUF type: wQ8_0, wQ4_K_M")


def parts_of(
    spec: ModelSpec, config: Configuration, workload: Workload, cuda: bool = False
) -> Parts:
    """`cuda`: compute buffers are those of a card. Raises BadInput for formats that llama.cpp, or
    this model, does not have."""
    run = run_settings(spec, config, workload)
    name = weight_name(spec, config)
    weights = _weights(SpecKey(spec), name)
    beside = _host_compute(SpecKey(spec), _of_graph(run))
    tied = not weights.output
    return Parts(
        layers=_padded(weights.by_layer, len(spec.layers)),
        experts=_padded(weights.experts_by_layer, len(spec.layers)),
        caches=_caches(SpecKey(spec), run),
        embedding=weights.embedding + weights.other,
        head=weights.output or weights.embedding,
        tied=tied,
        compute=_compute(SpecKey(spec), _of_graph(run), cuda),
        host_compute=beside,
        output=4 * spec.vocab * run.sequences,
        file=weights.file,
        derived=weights.derived,
        pass_inputs=beside,
        wide=name.upper() in ("BF16", "F16", "F32"),
    )


def host_compute(spec: ModelSpec, run: RunSettings) -> int:
    """What the processor's side of a pass takes where the layers are on a card: inputs, masks,
    rotations, and the embedded tokens with their unused branches."""
    tokens = run.pass_tokens
    widest = max((m.kv_heads * m.value_dim for m in run.attentions(spec)), default=1)
    total = 16 * spec.hidden * tokens + 20 * tokens
    total += masks(spec, run)
    for sliding, _ in run.all_cells(spec):
        total += 8 * tokens * (2 if run.flash else 1 + widest)
        total += sum(4 * width**2 for width in run.rotations(spec, sliding))
    if spec.decoder_type.startswith("gemma3"):
        total += 4 * tokens
    return total


def masks(spec: ModelSpec, run: RunSettings) -> int:
    """Bytes of every cache's mask."""
    item = 2 if run.flash else 4
    return sum(item * cells * run.pass_tokens for _, cells in run.all_cells(spec))


@lru_cache(maxsize=64)
def _weights(key: SpecKey, name: str) -> GgufWeights:
    return gguf_weight_bytes(key.spec, name)


@lru_cache(maxsize=256)
def _caches(key: SpecKey, run: RunSettings) -> tuple[int, ...]:
    of_mixer = {m: mixer_bytes(m, key.spec, run).total for m, _ in key.spec.mixer_counts}
    return tuple(sum(of_mixer[m] for m in layer.mixers) for layer in key.spec.layers)


@lru_cache(maxsize=256)
def _compute(key: SpecKey, run: RunSettings, cuda: bool) -> int:
    return (device_compute_bytes if cuda else compute_bytes)(key.spec, run)


@lru_cache(maxsize=256)
def _host_compute(key: SpecKey, run: RunSettings) -> int:
    return host_compute(key.spec, run)


def _of_graph(run: RunSettings) -> RunSettings:
    """The settings with names of formats that give the same graph."""
    keys = "q8_0" if run.key_format.block > 1 else run.keys
    values = "q8_0" if run.value_format.block > 1 else run.values
    return RunSettings(
        run.context, run.sequences, run.micro_batch, keys, values, run.flash, run.swa_full,
        run.unified,
    )  # fmt: skip


def _padded(sizes: tuple[int, ...], count: int) -> tuple[int, ...]:
    """One entry a layer; what a file has beyond them (prediction layers) goes with the last."""
    if len(sizes) <= count:
        return (*sizes, *(0,) * (count - len(sizes)))
    return (*sizes[: count - 1], sum(sizes[count - 1 :]))


def known_graph(spec: ModelSpec) -> bool:
    """Whether the compute buffer is held to runs of llama.cpp (profiles/llama_cpp)."""
    return spec.decoder_type in HELD


def new_on_cards(spec: ModelSpec) -> bool:
    """Whether the graph has nodes of which no run on a card is among the rows: recurrent layers,
    and layers with inputs of their own."""
    return has_states(spec) or spec.decoder_type in GEMMA4


def has_states(spec: ModelSpec) -> bool:
    return any(isinstance(m, RecurrentState) for m, _ in spec.mixer_counts)


HELD = frozenset(
    {"llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2"}
    | {"gemma3_text", "gpt_oss", "deepseek_v2", "smollm3", "phi3", "granite", "granitemoe"}
    | {"granitemoeshared", "olmo", "olmo2", "olmo3", "starcoder2", "seed_oss", "arcee", "ernie4_5"}
    | {"glm4", "glm4_moe", "hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v3", "llama4_text"}
    | {"nemotron", "gpt_bigcode", "bloom", "lfm2", "lfm2_moe", "exaone4", "cohere", "cohere2"}
    | {"stablelm", "falcon", "gpt2", "apertus", "olmoe", "dots1", "ernie4_5_moe", "minimax_m2"}
    | {"deepseek_v3", "gemma4_text", "mamba", "mamba2", "falcon_mamba", "jamba", "bamba"}
    | {"falcon_h1", "granitemoehybrid", "nemotron_h", "qwen3_next", "qwen3_5_text"}
    | {"qwen3_5_moe_text"}
)
"""Model types whose graph llama.cpp was run with, or that it converts to one of those
(profiles/llama_cpp: memory_cpu.jsonl, memory_architectures.jsonl)."""

__all__ = ["GgufWeights", "Parts", "gguf_sizes", "parts_of", "run_settings", "weight_name"]
