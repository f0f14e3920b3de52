"""Names of models as people type them: addresses, tags, an extra slash; made plain.

    https://huggingface.co/org/name/tree/main    -> org/name
    hf.co/org/name, hf://org/name, org/name/     -> org/name

What names something else (a data set, a file of weights, another revision, an Ollama tag) is
refused by what it is, with what to type instead.
"""

import os
import re
from urllib.parse import unquote, urlsplit

from ..errors import BadInput

_HOSTS = ("huggingface.co", "hf.co", "hf-mirror.com")
_NO_MODELS = (
    "datasets", "spaces", "collections", "papers", "blog", "docs", "models", "organizations",
    "api", "settings", "join", "login", "search",
)  # fmt: skip
_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_TAGGED = re.compile(rf"{_PART}(/{_PART})?[:@][\w.:-]+", re.ASCII)
FORMAT_IN_NAME = re.compile(
    r"[-_](fp8(-dynamic)?|awq(-int4)?|gptq(-int[48])?|nvfp4|w[48]a(16|8)|bnb-4bit)$", re.IGNORECASE
)
"""What a name says of the format that a model's weights are stored in."""
_HINT = "give org/name, a folder or a config.json"


def plain_name(text: str) -> str:
    """The hub id in an address, else `text` as it is. Raises BadInput for an address that is not
    of a model's main revision, and for names with a tag."""
    wanted = text.strip()
    if wanted.lower().startswith("file://"):
        return unquote(urlsplit(wanted).path)
    address = _address(wanted)
    if address is not None:
        return _repo_of(wanted, *address)
    if os.path.exists(os.path.expanduser(wanted)):
        return wanted
    if _TAGGED.fullmatch(wanted):
        name, _, tag = re.split(r"([:@])", wanted, maxsplit=1)
        if "/" not in name:
            raise BadInput(
                f"{wanted!r} is an Ollama name, which says nothing of the model's shape",
                "give the hub id of the original model, as org/name, or "
                f"ollama:{wanted.removeprefix('ollama:')} if it is on this machine",
            )
        what = "revision" if "@" in wanted else "tag"
        raise BadInput(f"{wanted!r} names the {what} {tag!r}", f"only main is read: give {name}")
    slashed = re.fullmatch(rf"({_PART}/{_PART})/+", wanted, re.ASCII)
    return slashed[1] if slashed else wanted


def _address(text: str) -> tuple[str, str] | None:
    """(host, path) of a web address, with or without its scheme; None for any other text."""
    if text.lower().startswith("hf://"):
        return _HOSTS[0], text[5:]
    own = _own_host()
    hosts = (*_HOSTS, own) if own else _HOSTS
    if re.match(r"https?://", text, re.IGNORECASE):
        try:
            address = urlsplit(text)
        except ValueError as error:
            raise BadInput(f"no web address: {text!r}", _HINT) from error
        return address.netloc.lower().removeprefix("www."), unquote(address.path)
    host, slash, path = text.partition("/")
    if slash and host.lower().removeprefix("www.") in hosts:
        return host.lower().removeprefix("www."), re.split(r"[?#]", path)[0]
    return None


def _own_host() -> str:
    """The host of HF_ENDPOINT; empty where that is none, which only downloads have to mind."""
    try:
        return urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc.lower()
    except ValueError:
        return ""


def _repo_of(text: str, host: str, path: str) -> str:
    if host not in (*_HOSTS, _own_host()):
        raise BadInput(
            f"{text!r} is a web address, and not of a model on the hub",
            "fetch its config.json and give the file, or " + _HINT,
        )
    parts = [part for part in path.split("/") if part]
    if not parts or parts[0] in _NO_MODELS:
        raise BadInput(f"{text!r} is no model's page", _HINT)
    size = next(
        (i for i, part in enumerate(parts) if part in ("tree", "blob", "resolve", "raw")), 2
    )
    name = "/".join(parts[: min(size, 2)]).removesuffix(".git")
    rest = parts[min(size, 2) :]
    if len(rest) >= 2 and rest[0] in ("tree", "blob", "resolve", "raw"):
        if rest[1] != "main":
            raise BadInput(
                f"{text!r} is the revision {rest[1]!r} of {name}",
                f"only main is read: give {name}, or a folder that holds the revision",
            )
        file = "/".join(rest[2:])
        if file.lower().endswith(".gguf"):
            raise BadInput(
                f"{rest[-1]} is a file of GGUF weights on the hub, and only config.json is fetched",
                "fetch it and give the file, or give the hub id of the original model",
            )
        if "/" in file or (rest[0] == "tree" and file):
            raise BadInput(
                f"{text!r} is a folder inside {name}", "fetch it and give the folder on disk"
            )
    return name
