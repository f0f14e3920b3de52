"""What a process of llama.cpp holds beside its buffers, for vocabularies of several sizes.

    pip install "kvpareto[llamacpp]" gguf
    python benchmarks/llama_cpp/process.py profiles/llama_cpp/memory_process.jsonl

Small models with random weights answer one prompt each; a row is what the process held at most,
Python included, and the buffers that llama.cpp printed. The file is written anew.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from kvpareto import profiles
from kvpareto.calibration.llama_cpp.random_models import write_model
from kvpareto.calibration.llama_cpp.start import run_library
from kvpareto.planner.engines.llama_cpp.run_settings import RunSettings

SHAPES = ("llama-gqa", "qwen3-norms", "gemma3", "gpt-oss")
VOCABULARIES = (4_000, 32_000, 152_000, 262_000)
RUN = RunSettings(context=2048, micro_batch=128, keys="f16", values="f16")
PROMPT = list(range(5, 205))


def main(path: Path) -> None:
    """Run every shape with every vocabulary, and write the rows."""
    shapes = json.loads(profiles.read("llama_cpp/shapes.json"))
    rows: list[dict[str, object]] = [{"build": f"xllamacpp {version('xllamacpp')}"}]
    with tempfile.TemporaryDirectory() as folder:
        for name in SHAPES:
            for vocabulary in VOCABULARIES:
                model = Path(folder) / "model.gguf"
                write_model({**shapes[name], "vocab_size": vocabulary}, model)
                readings = run_library(model, RUN, prompts=[PROMPT], predict=4)
                buffers = readings.breakdown.row()
                rows.append(
                    {"shape": name, "vocabulary": vocabulary, "resident": readings.resident}
                    | {"model": sum(buffers["model"].values()), "keys": buffers["keys"]}
                    | {"values": buffers["values"], "states": buffers["states"]}
                    | {"compute": sum(buffers["compute"].values()), "output": buffers["output"]}
                )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
