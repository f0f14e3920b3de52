"""Libraries that an extra brings, where a command cannot use one: it is missing, or it is broken.

A broken one is there and fails while it is imported, with whatever its code happens to raise: an
OSError of a shared object that is gone, a RuntimeError of two versions that do not go together, an
ImportError of a part that is not there. What failed is read off the traceback: the innermost
module of such a library that was being executed.

A library may also lack one of its own, and seldom says so plainly: the absent one is looked for
among the causes of what was raised, and in its words.
"""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType, TracebackType

from .errors import MissingDependency, one_line
from .install import install_command, install_library_command, reinstall_command

_EXTRA_OF = {
    "torch": "runtime",
    "transformers": "runtime",
    "accelerate": "runtime",
    "safetensors": "runtime",
    "tokenizers": "runtime",
    "triton": "runtime",
    "sklearn": "calibrate",
    "scipy": "calibrate",
    "threadpoolctl": "calibrate",
    "joblib": "calibrate",
    "lm_eval": "harness",
    "gptqmodel": "awq",
    "ray": "ray",
    "gguf": "gguf",
    "matplotlib": "figures",
    "xllamacpp": "llamacpp",
    "vllm": "vllm",
}
"""Modules that only an extra brings, and the extra."""
_ALONE = ("huggingface_hub", "awq")
"""Modules that some commands take where they are, and that no extra of ours brings."""
_BASE = ("numpy", "pydantic", "rich", "typer", "platformdirs", "huggingface_hub")
"""Modules that kvpareto always brings."""
_NEEDS = {"transformers": ("tokenizers", "safetensors", "torch")}
"""Libraries without which another fails to be imported, at a line that does not name them."""
_TOLD = re.compile(r"pip install (?:-\S+ )*[\"']?([A-Za-z][\w.-]*)")
"""What libraries say where they lack one."""
NO_PLACE = "No usable temporary directory"
"""What Python says where no folder for temporary files can be written: torch wants one."""
_OF_THE_SYSTEM = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS)
"""Refusals that no library is to blame for, and that installing it again does not mend."""
_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "lm_eval": "lm-eval",
    "huggingface_hub": "huggingface-hub",
    "awq": "autoawq",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "google": "protobuf",
}
_MODULES = {distribution: module for module, distribution in _DISTRIBUTIONS.items()}


@contextmanager
def importing(what: str, extra: str | None = None) -> Iterator[None]:
    """Around imports that `what` needs: one that fails is raised as MissingDependency, which says
    what installs the library, or mends it."""
    try:
        yield
    except Exception as error:
        found = import_failure(error, what, extra)
        if found is None:
            raise
        raise found from error


def import_failure(
    error: BaseException, what: str = "this", extra: str | None = None
) -> MissingDependency | None:
    """What `error` says of a library that `what` needs: that it is missing, or that it is there
    and its import fails. None for an error of any other kind.

    `extra` is the one whose command is named for a missing library; by default that which brings
    the library.
    """
    broken, absent = _broken(error), _absent(error)
    if absent is None:
        absent = next((name for name in _NEEDS.get(broken or "", ()) if not _is_there(name)), None)
    if absent is not None:
        message = f"{what} needs {absent}, which is not installed"
        if absent in _EXTRA_OF or (extra is not None and absent in _ALONE):
            return missing_library(absent, message, extra)
        asks = broken or _at_work(error)
        if asks not in (None, absent):
            return _missing_alone(absent, f"{message}: {asks} asks for it")
        if absent in _BASE:
            return _missing_alone(absent, message)
    if isinstance(error, OSError) and (error.errno in _OF_THE_SYSTEM or NO_PLACE in str(error)):
        return None
    return None if broken is None else broken_library(broken, _said(error), what)


def _absent(error: BaseException) -> str | None:
    """The module that is not there, by `error`, by what it followed from, or by its words."""
    for one in _causes(error):
        if isinstance(one, ModuleNotFoundError) and one.name:
            told: str | None = one.name.split(".")[0]
        else:
            found = _TOLD.search(str(one))
            told = found[1] if found else None
        if told is not None and told.replace("-", "").replace("_", "").isalnum():
            module = _MODULES.get(told, told.replace("-", "_"))
            if module != __name__.split(".")[0] and not _is_there(module):
                return module
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What `error` followed from, the first first, and `error` last. What was being handled when it
    was raised counts only where both are about imports: libraries do without many others."""
    met: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in met:
        met.append(following)
        about = following.__context__
        both = isinstance(following, ImportError) and isinstance(about, ImportError)
        following = following.__cause__ or (about if both else None)
    return reversed(met)


def _missing_alone(name: str, message: str) -> MissingDependency:
    command = install_library_command(_DISTRIBUTIONS.get(name, name))
    return MissingDependency(message, f"run {command}", {"missing": name, "install": command})


def missing_library(name: str, message: str, extra: str | None = None) -> MissingDependency:
    """The error of a library that is not installed, with the command that installs it."""
    command = install_command(extra or _EXTRA_OF[name])
    return MissingDependency(message, f"run {command}", {"missing": name, "install": command})


def broken_library(name: str, said: str, what: str = "this") -> MissingDependency:
    """The error of a library that is installed and cannot be used, with what installs it again."""
    command = reinstall_command(_DISTRIBUTIONS.get(name, name))
    mends = f"install it again: {command}"
    if sys.flags.optimize > 1:  # transformers writes its documentation from docstrings
        mends = "run Python without -OO and PYTHONOPTIMIZE=2: libraries read their docstrings"
    return MissingDependency(
        f"{what} needs {name}, which is installed but cannot be imported: {one_line(said, 200)}",
        mends,
        {"missing": name, "install": command},
    )


def _said(error: BaseException) -> str:
    text = one_line(str(error), 160)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # a module that is blocked, or has no loader
        return False


def _broken(error: BaseException | None) -> str | None:
    """The library whose import failed, by the frames of `error` and of what caused it."""
    found = None
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        found = _left_over(error.obj)
    elif isinstance(error, ImportError) and error.name:
        found = _known(error.name)  # a part that this version does not have
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        found = _executed(error.__traceback__) or found
        error = error.__cause__
    return found


def _executed(trace: TracebackType | None) -> str | None:
    """The innermost known library of which a module's own lines were being executed."""
    found = None
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_name == "<module>":
            found = _known(trace.tb_frame.f_globals.get("__name__", "")) or found
        trace = trace.tb_next
    return found


def _at_work(error: BaseException) -> str | None:
    """The innermost known library whose code raised `error`."""
    found, trace = None, error.__traceback__
    while trace is not None:
        found = _known(trace.tb_frame.f_globals.get("__name__", "")) or found
        trace = trace.tb_next
    return found


def _left_over(module: ModuleType) -> str | None:
    """A folder that a library left behind: Python imports it as an empty package."""
    name = _known(module.__name__)
    whole = sys.modules.get(name or "")
    return name if whole is not None and getattr(whole, "__file__", None) is None else None


def _known(module: object) -> str | None:
    name = str(module).split(".")[0]
    return name if name in _EXTRA_OF or name in _ALONE or name in _BASE else None
