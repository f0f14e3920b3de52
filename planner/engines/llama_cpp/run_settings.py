"""How llama.cpp is started, as far as memory depends on it, and the cells of its caches.

    -c     tokens of all sequences, rounded up to 256; each sequence has its own cells unless
           they share one cache (--kv-unified)
    -ub    tokens of a pass; -np sequences; -fa flash attention; -ctk, -ctv the cache's types

Layers with a sliding window have a cache of their own: the window and one pass, rounded up to 256
cells (all cells with --swa-full). Sources: src/llama-context.cpp, src/llama-kv-cache-iswa.cpp.
"""

from ...formats.named import NamedFormat, kv_format
from ...light_dataclass import dataclass
from ...models.spec import Attention, LatentAttention, ModelSpec

GRANULE = 256
"""Cells that a cache's length is rounded up to."""
DEFAULT_MICRO_BATCH, DEFAULT_BATCH = 512, 2048
IGNORES_WINDOWS = frozenset(
    {
        "mistral",
        "mixtral",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "starcoder2",
        "phi3",
        "phimoe",
    }
)
"""Model types whose windows llama.cpp does not read: every layer keeps all tokens."""
EXAONE_WINDOWS = 64
"""Layers of the one EXAONE 4 whose windows llama.cpp reads."""


def rounded(tokens: int) -> int:
    return -(-tokens // GRANULE) * GRANULE


@dataclass(frozen=True, slots=True)
class RunSettings:
    """`context`: tokens of each sequence. `keys`, `values`: names of KV formats."""

    context: int
    sequences: int = 1
    micro_batch: int = DEFAULT_MICRO_BATCH
    keys: str = "f16"
    values: str = "f16"
    flash: bool = True
    swa_full: bool = False
    unified: bool = False

    @property
    def total_context(self) -> int:
        """What -c says: tokens of all sequences."""
        each = rounded(self.context)
        return each * self.sequences

    @property
    def pass_tokens(self) -> int:
        """Tokens of a full pass: the micro-batch, or the whole context if that is shorter."""
        return min(self.micro_batch, self.total_context)

    @property
    def key_format(self) -> NamedFormat:
        return _known(self.keys)

    @property
    def value_format(self) -> NamedFormat:
        return _known(self.values)

    def attentions(self, spec: ModelSpec) -> list[Attention]:
        return [m for m, _ in spec.mixer_counts if isinstance(m, Attention)]

    def slides(self, mixer: Attention | LatentAttention, spec: ModelSpec) -> bool:
        """Whether the layer keeps its window alone."""
        kind = spec.decoder_type
        if kind in IGNORES_WINDOWS or (kind == "exaone4" and len(spec.layers) != EXAONE_WINDOWS):
            return False
        return _window(mixer) is not None

    def windows(self, spec: ModelSpec) -> bool:
        """Whether the model has caches of two kinds."""
        return any(self.slides(m, spec) for m in self.attentions(spec))

    def caches(self, spec: ModelSpec) -> tuple[bool, ...]:
        """Kinds of caches: full ones (False), and those of windows (True)."""
        return (False, True) if self.windows(spec) else (False,)

    def cells(self, sliding: bool, spec: ModelSpec) -> int:
        """Cells of each sequence's cache."""
        each = rounded(self.context)
        full = each * self.sequences if self.unified else each
        if not sliding or self.swa_full:
            return full
        window = max(_window(m) or 0 for m in self.attentions(spec))
        seen = window * (self.sequences if self.unified else 1) + self.pass_tokens
        return rounded(min(full, seen))

    def all_cells(self, spec: ModelSpec) -> list[tuple[bool, int]]:
        """Cells of each kind of cache."""
        return [(sliding, self.cells(sliding, spec)) for sliding in self.caches(spec)]

    def rotations(self, spec: ModelSpec, sliding: bool) -> tuple[int, int]:
        """Widths of the Hadamard matrices that turn quantized keys and values; 0: none."""
        here = [m for m in self.attentions(spec) if self.slides(m, spec) == sliding]
        widest = 0, 0
        for quantized, side in ((self.key_format.block > 1, 0), (self.value_format.block > 1, 1)):
            dims = {m.value_dim if side else m.head_dim for m in here}
            if not quantized or len(dims) != 1 or next(iter(dims)) % 64:
                continue
            width = 64
            while side == 0 and next(iter(dims)) % (2 * width) == 0:
                width *= 2
            widest = (width, widest[1]) if side == 0 else (widest[0], width)
        return widest


def _window(mixer: Attention | LatentAttention) -> int | None:
    return mixer.window or (mixer.local_chunk if isinstance(mixer, Attention) else None)


def _known(name: str) -> NamedFormat:
    row = kv_format(name)
    assert row is not None
    return row
