"""From a GGUF file to a folder that transformers loads: bfloat16 weights beside a config.

transformers reads GGUF itself, but on one core: 94 s for 0.5 B parameters, where this takes two
on a GPU. Config and tokenizer come from a folder that was converted once; only weights are read.

    header: magic, version, tensor and key counts; keys with their values; tensors' names,
    shapes, types and offsets; then the data, aligned
"""

import hashlib
import json
import mmap
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...planner.errors import BadInput
from .gguf_blocks import FORMATS

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}  # fmt: skip
_STRING, _ARRAY = 8, 9
_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output.weight": "lm_head.weight",
    "output_norm.weight": "model.norm.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}
_GEMMA = {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
WEIGHTS, SOURCE, TEXT = "model.safetensors", "source.json", "text.safetensors"
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")


@dataclass(frozen=True)
class Stored:
    """One tensor of a file: its shape as torch has it, and where its blocks are."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


class GGUFFile:
    """The keys and tensors of a file, which stays mapped while this lives.

    Raises BadInput for another kind of file or a tensor type that is not read here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        size = path.stat().st_size
        self._bytes = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        if self._map[:4] != b"GGUF":
            raise BadInput(f"{path} is no GGUF file", "give a .gguf file")
        self._at = 4
        version, tensors, keys = self._take("I"), self._take("Q"), self._take("Q")
        if version not in (2, 3):
            raise BadInput(f"{path} is GGUF version {version}", "convert it to version 3")
        self.keys: dict[str, Any] = {}
        for _ in range(keys):
            name = self._text()
            self.keys[name] = self._value(self._take("I"))
        self.tensors = [self._tensor() for _ in range(tensors)]
        aligned = int(self.keys.get("general.alignment", 32))
        self._data = -(-self._at // aligned) * aligned

    def read(self, stored: Stored, device: torch.device | str) -> Tensor:
        """A tensor as float32 on `device`."""
        form = FORMATS[stored.kind]
        count = prod(stored.shape) // form.weights
        raw = self._bytes[self._data + stored.offset :][: count * form.size]
        return form.dequantize(raw.to(device).view(count, form.size)).reshape(stored.shape)

    def _take(self, kind: str) -> Any:
        (value,) = struct.unpack_from("<" + kind, self._map, self._at)
        self._at += struct.calcsize("<" + kind)
        return value

    def _text(self) -> str:
        size = self._take("Q")
        self._at += size
        return self._map[self._at - size : self._at].decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            inner, count = self._take("I"), self._take("Q")
            return [self._value(inner) for _ in range(count)]
        return self._take(_SCALARS[kind])

    def _tensor(self) -> Stored:
        name, dimensions = self._text(), self._take("I")
        shape = tuple(reversed([self._take("Q") for _ in range(dimensions)]))
        kind, offset = self._take("I"), self._take("Q")
        if kind not in FORMATS:
            known = ", ".join(form.name for form in FORMATS.values())
            raise BadInput(f"{name} has tensor type {kind}", f"types read here are {known}")
        return Stored(name, shape, kind, offset)


def unpack(
    file: Path, like: Path, out: Path, *, name: str, device: torch.device | str = "cpu"
) -> None:
    """Write `out`: bfloat16 weights of a GGUF file with the other files of the folder `like`,
    and source.json, which says what model it is (`name`, its hub id), which file, and its
    SHA-256."""
    gguf = GGUFFile(file)
    tensors = dict(named_tensors(gguf, device))
    config = json.loads((like / "config.json").read_text())
    if config.get("tie_word_embeddings"):
        tensors.pop("lm_head.weight", None)
    out.mkdir(parents=True, exist_ok=True)
    for path in like.iterdir():
        if path.is_file() and path.name != WEIGHTS and path.parent != out:
            shutil.copy(path, out / path.name)
    types: dict[str, int] = {}
    for stored in gguf.tensors:
        types[FORMATS[stored.kind].name] = types.get(FORMATS[stored.kind].name, 0) + 1
    source = {
        "model": name,
        "file": file.name,
        "bytes": file.stat().st_size,
        "sha256": sha256(file),
        "tensor_types": types,
    }
    (out / SOURCE).write_text(json.dumps(source, indent=1) + "\n")
    save_file(tensors, out / f".{WEIGHTS}", metadata={"format": "pt"})
    (out / f".{WEIGHTS}").rename(out / WEIGHTS)  # last: a folder with weights is whole


def named_tensors(gguf: GGUFFile, device: torch.device | str) -> Iterator[tuple[str, Tensor]]:
    """All tensors in bfloat16 on the CPU under transformers' names. Raises BadInput for an
    architecture or a tensor whose place is not known."""
    architecture = str(gguf.keys["general.architecture"])
    if architecture not in ARCHITECTURES:
        raise BadInput(f"GGUF architecture {architecture!r}", f"known: {', '.join(ARCHITECTURES)}")
    for stored in gguf.tensors:
        if stored.name == "rope_freqs.weight":
            continue
        tensor = gguf.read(stored, device)
        name = transformers_name(stored.name, architecture)
        if architecture == "gemma3" and name.endswith("norm.weight"):
            tensor = tensor - 1  # llama.cpp stores 1 + weight
        if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            side = "head_count" if "q_proj" in name else "head_count_kv"
            tensor = _in_halves(tensor, int(gguf.keys[f"llama.attention.{side}"]))
        yield name, tensor.to(torch.bfloat16).cpu().contiguous()


def transformers_name(name: str, architecture: str) -> str:
    """Where transformers keeps the tensor that llama.cpp calls `name`."""
    if name in _TOP:
        return _TOP[name]
    places = {**_LAYER, **_GEMMA} if architecture == "gemma3" else _LAYER
    parts = name.split(".")
    if len(parts) != 4 or parts[0] != "blk" or parts[2] not in places:
        raise BadInput(f"GGUF tensor {name!r} has no known place", "this architecture has more")
    return f"model.layers.{parts[1]}.{places[parts[2]]}.{parts[3]}"


def _in_halves(tensor: Tensor, heads: int) -> Tensor:
    """Rows of q and k as transformers rotates them, in two halves; llama.cpp has pairs."""
    rows, width = tensor.shape
    pairs = tensor.view(heads, rows // heads // 2, 2, width)
    return pairs.transpose(1, 2).reshape(rows, width)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
