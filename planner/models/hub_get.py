"""One small file from the hub, read to a limit, whatever the server says its size is.

huggingface_hub downloads what it is given, and a server that announces 600 bytes can send for
ever. So a config is streamed through huggingface_hub's own session (its token, proxies and
certificates), counted, and put into the hub's cache in the cache's documented layout, where
transformers finds it too.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import BadInput
from ..whole_file import write_whole, writing
from .untrusted_json import MAX_BYTES

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PIECE = 2**16
SECONDS = 5.0
"""For the server's next word."""


def fetch_small(repo_id: str, name: str, cache: Path) -> Path:
    """Download `name` of the main revision; its path in the cache.

    Raises BadInput for more than MAX_BYTES, and huggingface_hub's exceptions for all that it knows.
    """
    import huggingface_hub as hub

    url = hub.hf_hub_url(repo_id, name)
    # One request without retries tells a wrong id or a dead network apart at once.
    metadata = hub.get_hf_file_metadata(url, timeout=SECONDS)
    _limit(repo_id, name, metadata.size or 0)
    commit = metadata.commit_hash or ""
    if _COMMIT.fullmatch(commit) is None:
        raise BadInput(
            f"the hub does not say which revision of {repo_id} it has", "try again later"
        )
    data = _read(repo_id, name, metadata.location or url)
    place = cache / f"models--{repo_id.replace('/', '--')}"
    path = place / "snapshots" / commit / name
    text = data.decode("utf-8", "surrogateescape")
    for file, content in ((path, text), (place / "refs" / "main", commit)):
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, content)
    return path


def own_headers(url: str) -> dict[str, str]:
    """huggingface_hub's headers, its token among them, for the hub's own endpoint; none for any
    other host, whatever its name begins with."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    asked, own = urlsplit(url), urlsplit(constants.ENDPOINT)
    if (asked.scheme, asked.netloc) != (own.scheme, own.netloc):
        return {}
    return dict(build_hf_headers())


def _read(repo_id: str, name: str, url: str) -> bytes:
    data = b""
    headers = {**own_headers(url), "accept-encoding": "identity"}
    with stream(url, headers, SECONDS) as (_, pieces):
        for piece in pieces:
            data += piece
            _limit(repo_id, name, len(data))
    return data


@contextmanager
def stream(
    url: str, headers: dict[str, str], seconds: float
) -> Iterator[tuple[Any, Iterator[bytes]]]:
    """The answer and its body in pieces, by the session of huggingface_hub 1 (httpx) or before
    (requests). A body that is not read is not downloaded."""
    from huggingface_hub import get_session

    session: Any = get_session()
    if hasattr(session, "stream"):
        with session.stream(
            "GET", url, headers=headers, timeout=seconds, follow_redirects=True
        ) as answer:
            answer.raise_for_status()
            yield answer, answer.iter_bytes()  # as they come, so that a trickle is seen
        return
    with session.get(url, headers=headers, timeout=seconds, stream=True) as answer:
        answer.raise_for_status()
        yield answer, answer.iter_content(_PIECE)


def _limit(repo_id: str, name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise BadInput(
            f"the {name} of {repo_id} has {size:,} bytes or more", f"it is no {Path(name).stem}"
        )
