"""The table of named formats: llama.cpp's blocks are ggml's, vLLM's are by their definitions."""

import pytest

from kvpareto.planner.formats.gguf_types import GGUF_TYPES, KV_TYPES
from kvpareto.planner.formats.named import KV, LLAMA_CPP, VLLM, WEIGHTS, NamedFormat, kv_format

GGML = [row for row in (*WEIGHTS, *KV) if LLAMA_CPP in row.engines]
# A mix is named for a type and a size; those whose name is no type with a size are listed.
TYPE_OF_MIX = {"IQ3_M": "IQ3_S", "IQ3_XS": "IQ3_S", "IQ2_M": "IQ2_S"}


def ggml_type(row: NamedFormat) -> str:
    name = TYPE_OF_MIX.get(row.name, row.name.upper())
    return name if name in GGUF_TYPES else name.rsplit("_", 1)[0]


@pytest.mark.parametrize("row", GGML, ids=lambda row: row.name)
def test_llama_cpps_rows_have_ggmls_blocks(row: NamedFormat) -> None:
    kind = GGUF_TYPES[ggml_type(row)]
    assert (row.block, row.block_bytes) == (kind.block, kind.block_bytes)
    digits = "".join(filter(str.isdigit, row.name.split("_")[0]))
    assert row.bits == (2 if row.name.startswith("TQ") else int(digits))
    assert row.mixed is (row.block == 256)


def test_every_cache_type_of_llama_cpp_is_a_row() -> None:
    assert set(KV_TYPES) | {"f32"} == {row.name for row in KV if LLAMA_CPP in row.engines}


@pytest.mark.parametrize(
    ("rows", "name", "bits", "elements", "nbytes"),
    [
        (WEIGHTS, "fp8", 8, 4096, 4096),
        (WEIGHTS, "int8", 8, 4096, 4096),
        (WEIGHTS, "nvfp4", 4, 4096, 2048 + 256),  # a byte of scale for 16
        (WEIGHTS, "mxfp4", 4, 4096, 2048 + 128),  # a byte for 32
        (WEIGHTS, "awq", 4, 4096, 2048 + 32 * 4),  # fp16 scale, zeros of 4 bits in int32 words
        (WEIGHTS, "gptq8", 8, 4096, 4096 + 32 * 2),
        (WEIGHTS, "gptq4", 4, 4096, 2048 + 32 * 2),
        (WEIGHTS, "nf4", 4, 4096, 2048 + 64 * 2),
        (KV, "fp8", 8, 128, 128),
        (KV, "fp8_e5m2", 8, 128, 128),
        (KV, "fp8_per_token_head", 8, 128, 128 + 4),
        (KV, "int8_per_token_head", 8, 128, 128 + 4),
        (KV, "int4_per_token_head", 4, 128, 64 + 4),
        (KV, "nvfp4", 4, 128, 64 + 8),
    ],
)
def test_vllms_rows_by_definition(
    rows: tuple[NamedFormat, ...], name: str, bits: int, elements: int, nbytes: int
) -> None:
    (row,) = (row for row in rows if row.name == name)
    assert VLLM in row.engines
    assert row.bits == bits
    assert row.nbytes(elements) == nbytes
    assert row.nbytes(2 * elements) == 2 * nbytes - (row.block_bytes if not row.block else 0)


def test_rows_are_whole_blocks() -> None:
    q8 = kv_format("q8_0")
    assert q8 is not None
    assert [q8.nbytes(n) for n in (1, 32, 33, 64)] == [34, 34, 68, 68]
    head = kv_format("int4_per_token_head")
    assert head is not None
    assert [head.nbytes(n) for n in (1, 2, 3)] == [5, 5, 6]
