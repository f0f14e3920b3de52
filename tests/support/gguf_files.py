"""GGUF files as bytes, written here: headers as llama.cpp writes them, data left empty.

`HEADERS` are those that llama.cpp's own converter (convert_hf_to_gguf.py, build 11549) wrote for
small models of transformers with random weights; `config` is what the model was made of.
"""

import json
import struct
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from kvpareto.planner.formats.gguf_types import GGUF_TYPES

DATA = Path(__file__).parents[1] / "data" / "gguf_headers.jsonl"
RUNNABLE = DATA.with_name("gguf_runnable.jsonl")
Tensor = tuple[str, tuple[int, ...], str]


def headers() -> dict[str, dict[str, Any]]:
    rows = map(json.loads, DATA.read_text(encoding="utf-8").splitlines())
    return {row["name"]: row for row in rows}


def runnable() -> dict[str, dict[str, Any]]:
    """Headers changed in the sizes that llama.cpp refuses; `of`: the one that each is made of."""
    rows = map(json.loads, RUNNABLE.read_text(encoding="utf-8").splitlines())
    return {row["name"]: row for row in rows}


def tensors_of(row: Mapping[str, Any]) -> list[Tensor]:
    found = []
    for text, layers in row["tensors"].items():
        name, shape, kind = text.rsplit(" ", 2)
        sizes = tuple(int(n) for n in shape.split("x"))
        found += [(name.replace("*", str(layer), 1), sizes, kind) for layer in layers]
    return found


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def value(item: object) -> bytes:
    """A key's value with its type before it."""
    kind, data = _typed(item)
    return struct.pack("<I", kind) + data


def _typed(item: object) -> tuple[int, bytes]:
    match item:
        case bool():
            return 7, struct.pack("<?", item)
        case int():
            return (4, struct.pack("<I", item)) if item >= 0 else (5, struct.pack("<i", item))
        case float():
            return 6, struct.pack("<f", item)
        case str():
            return 8, text(item)
        case list() | tuple():
            typed = [_typed(one) for one in item]
            kind = typed[0][0] if typed else 4
            head = struct.pack("<IQ", kind, len(typed))
            return 9, head + b"".join(data for _, data in typed)
    raise TypeError(type(item))


def gguf_bytes(
    keys: Mapping[str, object],
    tensors: Iterable[Tensor],
    *,
    version: int = 3,
    alignment: int = 32,
) -> tuple[bytes, int]:
    """(the header, padded; how many bytes of data follow it)."""
    tensors, offset, infos, end = list(tensors), 0, b"", 0
    for name, shape, kind in tensors:
        infos += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        infos += struct.pack("<IQ", GGUF_TYPES[kind].number, offset % 2**64)
        end = offset + GGUF_TYPES[kind].row_bytes(shape[0]) * prod(shape[1:])
        offset = -(-end // alignment) * alignment
    body = b"".join(text(name) + value(item) for name, item in keys.items())
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + body + infos
    return head + bytes(-len(head) % alignment), end


def write_gguf(
    path: Path, keys: Mapping[str, object], tensors: Iterable[Tensor], **more: int
) -> Path:
    """A whole file; its data is a hole."""
    head, data = gguf_bytes(keys, tensors, **more)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + data)
    return path


LLAMA: dict[str, object] = {
    "general.architecture": "llama",
    "general.file_type": 15,
    "llama.block_count": 2,
    "llama.context_length": 512,
    "llama.embedding_length": 256,
    "llama.feed_forward_length": 512,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["a", "bc", "d"],
}


def llama_tensors(layers: int = 2, first: int = 0) -> list[Tensor]:
    found: list[Tensor] = [("token_embd.weight", (256, 96), "Q6_K")] if first == 0 else []
    for i in range(first, first + layers):
        found += [
            (f"blk.{i}.attn_norm.weight", (256,), "F32"),
            (f"blk.{i}.attn_q.weight", (256, 256), "Q4_K"),
            (f"blk.{i}.attn_k.weight", (256, 64), "Q4_K"),
            (f"blk.{i}.attn_v.weight", (256, 64), "Q6_K"),
            (f"blk.{i}.attn_output.weight", (256, 256), "Q4_K"),
            (f"blk.{i}.ffn_norm.weight", (256,), "F32"),
            (f"blk.{i}.ffn_gate.weight", (256, 512), "Q4_K"),
            (f"blk.{i}.ffn_up.weight", (256, 512), "Q4_K"),
            (f"blk.{i}.ffn_down.weight", (512, 256), "IQ4_XS"),
        ]
    return found + ([("output_norm.weight", (256,), "F32")] if first == 0 else [])
