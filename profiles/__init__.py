"""Data only: model configs, GPUs, published accuracy rows and fitted coefficients.

Every file names its source. Code reads them through `read`, or `importlib.resources` where it
must list a folder.
"""

import os
from typing import Any


def read(path: str) -> str:
    """Text of the data file `path` ("hardware/gpus.json")."""
    return read_beside(__spec__, path)


def read_beside(module: Any, path: str) -> str:
    """Text of a data file in the folder of a module, whose `__spec__` is given, or below it.

    Goes through the module's own loader, so that it works from a zip file too, without the
    10 ms that importing `importlib.resources` takes.
    """
    folder = os.path.dirname(module.origin)
    data: bytes = module.loader.get_data(os.path.join(folder, *path.split("/")))
    return data.decode("utf-8")
