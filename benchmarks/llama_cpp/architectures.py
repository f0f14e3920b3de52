"""llama.cpp's sizes for a small model of every architecture: rows that say which are held.

    pip install "kvpareto[llamacpp]" gguf
    python benchmarks/llama_cpp/architectures.py profiles/llama_cpp/memory_architectures.jsonl

Each header of tests/data/gguf_headers.jsonl (written by llama.cpp's own converter) gets random
weights and a small vocabulary, and is loaded. The headers are made to try readers, with biases
that few models have: tensors that llama.cpp does not take are left out. What still does not load
is a row too, with what llama.cpp said; gguf_runnable.jsonl has those headers with sizes that it
takes.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from kvpareto.calibration.llama_cpp.start import run_library
from kvpareto.planner.engines.llama_cpp.run_settings import RunSettings
from kvpareto.planner.errors import BadInput

HEADERS = tuple(Path(f"tests/data/gguf_{name}.jsonl") for name in ("headers", "runnable"))
RUNS = (RunSettings(context=1000, micro_batch=128), RunSettings(context=3000, micro_batch=512))
LEFT_OUT: tuple[tuple[str, ...], ...] = ((), ("attn_output.bias",), (".bias",))
Tensor = tuple[str, tuple[int, ...], str]


def tensors_of(row: Mapping[str, Any]) -> Iterator[Tensor]:
    for text, layers in row["tensors"].items():
        name, shape, kind = text.rsplit(" ", 2)
        for layer in layers:
            sizes = tuple(int(n) for n in shape.split("x"))
            yield name.replace("*", str(layer), 1), sizes, kind


def write(row: Mapping[str, Any], without: Sequence[str], path: Path) -> list[Tensor]:
    """The file, and the tensors that it has."""
    from gguf import GGMLQuantizationType, GGUFWriter

    keys, random = row["keys"], np.random.default_rng(0)
    arch = keys["general.architecture"]
    writer = GGUFWriter(str(path), arch)
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
             str: writer.add_string, list: writer.add_array}  # fmt: skip
    for key, value in keys.items():
        if key != "general.architecture":
            kinds[type(value)](key, value)
    for norm in ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"):
        if f"{arch}.{norm}" not in keys:
            writer.add_float32(f"{arch}.{norm}", 1e-5)
    tensors = [t for t in tensors_of(row) if not any(t[0].endswith(end) for end in without)]
    vocab = next(shape[1] for name, shape, _ in tensors if name == "token_embd.weight")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"t{i}" for i in range(vocab)])
    writer.add_token_types([1] * vocab)
    writer.add_token_merges(["t 0"])
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(1)
    for name, sizes, kind in tensors:
        shape = tuple(reversed(sizes))
        values = (random.standard_normal(shape) * 0.02).astype(np.float32)
        if kind == "F32":
            writer.add_tensor(name, values)
        else:
            halves = (values.view(np.uint32) >> 16).astype(np.uint16)
            writer.add_tensor(name, halves, raw_dtype=GGMLQuantizationType.BF16, raw_shape=shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def rows_of(row: Mapping[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    from dataclasses import asdict

    said = ""
    known = {"name": row["name"], "architecture": row["keys"]["general.architecture"]}
    for without in LEFT_OUT:
        write(row, without, path)
        try:
            for run in RUNS:
                sizes = run_library(path, run, patience=60).breakdown
                more = {"without": list(without), "run": asdict(run)}
                yield known | more | sizes.row()
            return
        except BadInput as error:
            said = error.message.split(": ", 1)[-1][-160:]
    yield known | {"failed": said}


def main(out: Path) -> None:
    lines = out.read_text().splitlines() if out.exists() else []
    done = {json.loads(line).get("name") for line in lines}
    with tempfile.TemporaryDirectory() as folder, out.open("a") as file:
        if not lines:
            file.write(json.dumps({"build": f"xllamacpp {version('xllamacpp')}"}) + "\n")
        for line in "".join(path.read_text() for path in HEADERS).splitlines():
            row = json.loads(line)
            if row["name"] in done:
                continue
            for found in rows_of(row, Path(folder) / "model.gguf"):
                file.write(json.dumps(found) + "\n")
                file.flush()
            print(row["name"], found.get("failed", found.get("compute")), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    given = parser.parse_args()
    main(given.rows)
