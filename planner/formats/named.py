"""Formats that go by their field's names instead of a number of bits: Q4_K_M, q8_0, fp8, nvfp4.

One row a format. A format is a row of WEIGHTS (printed as `wQ4_K_M`) or of KV (`kq8_0vq5_1`); the
same name in both is two rows. Names are read in any case and by their aliases, which hold the
spellings that engines' own flags take, and printed as they stand here. A further format is a row.

Sources: llama.cpp, ggml/src/ggml-common.h (blocks) and src/llama-quant.cpp (mixes); vLLM,
vllm/config/cache.py (cache dtypes) and vllm/model_executor/layers/quantization (weights).
"""

from collections.abc import Iterable
from functools import lru_cache

from ..light_dataclass import dataclass

LLAMA_CPP, VLLM, SGLANG = "llama.cpp", "vllm", "sglang"
OURS = "kvpareto"


@dataclass(frozen=True, slots=True)
class NamedFormat:
    """A format of weights or of one side of a KV cache.

    `bits`: bits of a code, what the grammar's integers would call it. `block` elements of a row
    take `block_bytes`, scales included; `block` 0: a head's codes take `bits` an element and
    `block_bytes` go beside them. A mix of types (`mixed`) has the block of the type it is named
    for; its size follows from the mix's rule. `at_start`: the engine makes such weights itself of a
    16-bit checkpoint; others are a checkpoint to get or to make.
    """

    name: str
    bits: int
    block: int
    block_bytes: int
    engines: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    mixed: bool = False
    at_start: bool = False

    @property
    def of_files(self) -> bool:
        """Whether llama.cpp alone has it."""
        return self.engines == (LLAMA_CPP,)

    def nbytes(self, elements: int) -> int:
        """Bytes of a row of `elements`, whole blocks (a head's of them where `block` is 0)."""
        if not self.block:
            return -(-elements * self.bits // 8) + self.block_bytes
        return -(-elements // self.block) * self.block_bytes


def _gguf(name: str, bits: int, block: int, size: int, *aliases: str) -> NamedFormat:
    return NamedFormat(name, bits, block, size, (LLAMA_CPP,), aliases)


def _mix(name: str, bits: int, size: int, *aliases: str) -> NamedFormat:
    return NamedFormat(name, bits, 256, size, (LLAMA_CPP,), aliases, mixed=True)


def _vllm(name: str, bits: int, block: int, size: int, *aliases: str) -> NamedFormat:
    return NamedFormat(name, bits, block, size, (VLLM,), aliases)


def _served(name: str, bits: int, block: int, size: int, *aliases: str) -> NamedFormat:
    return NamedFormat(name, bits, block, size, (VLLM, SGLANG), aliases)


WEIGHTS = (
    _gguf("F32", 32, 1, 4),
    _gguf("F16", 16, 1, 2),
    _gguf("BF16", 16, 1, 2),
    _gguf("Q8_0", 8, 32, 34),
    _mix("Q6_K", 6, 210),
    _mix("Q5_K_M", 5, 176, "Q5_K"),
    _mix("Q5_K_S", 5, 176),
    _gguf("Q5_1", 5, 32, 24),
    _gguf("Q5_0", 5, 32, 22),
    _mix("Q4_K_M", 4, 144, "Q4_K"),
    _mix("Q4_K_S", 4, 144),
    _gguf("Q4_1", 4, 32, 20),
    _gguf("Q4_0", 4, 32, 18),
    _gguf("IQ4_NL", 4, 32, 18),
    _mix("IQ4_XS", 4, 136),
    _mix("Q3_K_L", 3, 110),
    _mix("Q3_K_M", 3, 110, "Q3_K"),
    _mix("Q3_K_S", 3, 110),
    _mix("IQ3_M", 3, 110),
    _mix("IQ3_S", 3, 110),
    _mix("IQ3_XS", 3, 110),
    _mix("IQ3_XXS", 3, 98),
    _mix("Q2_K", 2, 84),
    _mix("Q2_K_S", 2, 84),
    _mix("IQ2_M", 2, 82),
    _mix("IQ2_S", 2, 82),
    _mix("IQ2_XS", 2, 74),
    _mix("IQ2_XXS", 2, 66),
    _mix("IQ1_M", 1, 56),
    _mix("IQ1_S", 1, 50),
    _mix("TQ2_0", 2, 66),
    _mix("TQ1_0", 2, 54),
    NamedFormat("mxfp4", 4, 32, 17, (LLAMA_CPP, VLLM), ("mxfp4_moe",)),
    NamedFormat("fp8", 8, 1, 1, (VLLM, SGLANG), ("fp8_e4m3",), at_start=True),
    _vllm("nvfp4", 4, 16, 9, "modelopt_fp4"),
    _vllm("int8", 8, 1, 1, "int8_w8a8"),
    _served("awq", 4, 128, 68, "awq4"),
    _served("gptq8", 8, 128, 130),
    _served("gptq4", 4, 128, 66, "gptq"),
    NamedFormat("nf4", 4, 64, 34, (VLLM,), ("bitsandbytes",), at_start=True),
)

KV = (
    _gguf("f32", 32, 1, 4),
    NamedFormat("f16", 16, 1, 2, (LLAMA_CPP, VLLM, SGLANG), ("float16", "half")),
    NamedFormat("bf16", 16, 1, 2, (LLAMA_CPP, VLLM, SGLANG), ("bfloat16",)),
    _gguf("q8_0", 8, 32, 34),
    _gguf("q5_1", 5, 32, 24),
    _gguf("q5_0", 5, 32, 22),
    _gguf("q4_1", 4, 32, 20),
    _gguf("q4_0", 4, 32, 18),
    _gguf("iq4_nl", 4, 32, 18),
    NamedFormat("fp8", 8, 1, 1, (VLLM, SGLANG, OURS), ("fp8_e4m3",)),
    NamedFormat("nf4", 4, 0, 4, (OURS,)),
    NamedFormat("lloyd3", 3, 0, 4, (OURS,)),
    NamedFormat("lloyd2", 2, 0, 4, (OURS,)),
    _vllm("fp8_e5m2", 8, 1, 1),
    _vllm("fp8_per_token_head", 8, 0, 4),
    _vllm("int8_per_token_head", 8, 0, 4),
    _vllm("int4_per_token_head", 4, 0, 4),
    NamedFormat("nvfp4", 4, 16, 9, (VLLM, OURS)),
    NamedFormat("mxfp4", 4, 32, 17, (OURS,)),
)


@lru_cache(maxsize=2)
def _by_name(side: str) -> dict[str, NamedFormat]:
    rows = WEIGHTS if side == "w" else KV
    return {name.lower(): row for row in rows for name in (row.name, *row.aliases)}


def weight_format(name: str) -> NamedFormat | None:
    """The weight format called so, in any case or by an alias."""
    return _by_name("w").get(name.lower())


def kv_format(name: str) -> NamedFormat | None:
    """The format of keys or values called so, in any case or by an alias."""
    return _by_name("kv").get(name.lower())


def names(rows: Iterable[NamedFormat], engine: str | None = None) -> tuple[str, ...]:
    """Names of `rows`, all of them or those that an engine runs."""
    return tuple(row.name for row in rows if engine is None or engine in row.engines)
