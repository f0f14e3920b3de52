"""Where a run is made: GPU, driver, versions, commit. Nothing here can fail a calibration."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ... import __version__
from .record_file import Environment


@cache
def environment(device: str) -> Environment:
    """The environment of runs on `device` ("cpu" or "cuda")."""
    return Environment(
        gpu=_gpu() if device.startswith("cuda") else None,
        driver=_driver() if device.startswith("cuda") else None,
        python=platform.python_version(),
        torch=_version("torch"),
        transformers=_version("transformers"),
        kvpareto=__version__,
        commit=_commit(),
    )


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name()


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    return _output(query)


def _commit() -> str | None:
    """The commit of a checkout; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    return _output(["git", "-C", str(root), "rev-parse", "HEAD"])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _output(command: list[str]) -> str | None:
    """What a command prints, in one line; None where it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else None
