"""The command that installs this package's extras, as this copy was installed.

A command that is printed must work where it is read: in a checkout `pip install ".[calibrate]"`,
after a wheel or an archive that very file, after an index the name alone. pip leaves the place in
`direct_url.json` beside the distribution (PEP 610). Where the place is gone, the extra's own
requirements are named, which an index always has.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

NAME = "kvpareto"


def install_command(extra: str) -> str:
    """A shell command that adds `extra` to this installation."""
    return f"{_pip()} install {_target(extra)}"


def install_library_command(distribution: str) -> str:
    """A shell command that installs a library which another one imports."""
    return f"{_pip()} install {distribution}"


def reinstall_command(distribution: str) -> str:
    """A shell command that installs a library that is here anew, whatever is left of it."""
    return f"{_pip()} install --force-reinstall {distribution}"


def _pip() -> str:
    """`pip` where that is this interpreter's own, else the interpreter's module."""
    pip = shutil.which("pip")
    if pip and Path(pip).parent == Path(sys.executable).parent:
        return "pip"
    return f"{_quoted(sys.executable)} -m pip"


def _target(extra: str) -> str:
    from importlib.metadata import PackageNotFoundError, distribution

    checkout = _checkout()
    if checkout is not None:
        return _of_folder(checkout, extra)
    try:
        installed = distribution(NAME)
    except PackageNotFoundError:
        return f'"{NAME}[{extra}]"'
    try:
        origin = json.loads(installed.read_text("direct_url.json") or "{}")
    except ValueError:
        origin = {}
    url = origin.get("url", "") if isinstance(origin, dict) else ""
    if not url:
        return f'"{NAME}[{extra}]"'
    if "vcs_info" in origin:
        return f'"{NAME}[{extra}] @ {origin["vcs_info"].get("vcs", "git")}+{url}"'
    if urlsplit(url).scheme != "file":
        return f'"{NAME}[{extra}] @ {url}"'
    path = Path(unquote(urlsplit(url).path))
    if not path.exists():
        return " ".join(f'"{name}"' for name in _requirements(installed.requires or [], extra))
    return _of_folder(path, extra) if path.is_dir() else f'"{NAME}[{extra}] @ {url}"'


def _checkout() -> Path | None:
    """The source checkout this package is imported from, if it is one."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "pyproject.toml").is_file() else None


def _of_folder(folder: Path, extra: str) -> str:
    try:
        here = folder.samefile(os.getcwd())
    except OSError:
        here = False
    return f'".[{extra}]"' if here else f'"{folder}[{extra}]"'


def _requirements(requires: list[str], extra: str) -> list[str]:
    """What `extra` asks for, extras of this package that it includes resolved."""
    requirements: list[str] = []
    for line in requires:
        wanted, _, marker = (part.strip() for part in line.partition(";"))
        if f"extra == {extra!r}" not in marker.replace('"', "'"):
            continue
        if wanted.startswith(f"{NAME}["):
            inner = wanted[len(NAME) + 1 :].split("]")[0].split(",")
            requirements += [
                line for name in inner for line in _requirements(requires, name.strip())
            ]
        else:
            requirements.append(wanted)
    return list(dict.fromkeys(requirements))


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text else text
