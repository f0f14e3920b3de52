"""Copies of the small model that tests damage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.support.data_files import STORIES

WEIGHTS = "model.safetensors"
Tensors = dict[str, torch.Tensor]


def copy(folder: Path) -> Path:
    """A copy of the small model that may be changed."""
    shutil.copytree(STORIES, folder, copy_function=shutil.copyfile)
    return folder


def with_tensors(folder: Path, change: Callable[[Tensors], Any]) -> Path:
    """A copy whose tensors `change` has changed."""
    copy(folder)
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def with_json(folder: Path, name: str, **values: Any) -> Path:
    """`folder` with fields of one of its JSON files set."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder
