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


def _read(repo_id: str, name: str, url: str) -> bytes:
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    headers = build_hf_headers() if url.startswith(constants.ENDPOINT) else {}
    data = b""
    with _stream(url, {**headers, "accept-encoding": "identity"}) as pieces:
        for piece in pieces:
            data += piece
            _limit(repo_id, name, len(data))
    return data


@contextmanager
def _stream(url: str, headers: dict[str, str]) -> Iterator[Iterator[bytes]]:
    """The body in pieces, by the session of huggingface_hub 1 (httpx) or before (requests)."""
    from huggingface_hub import get_session

    session: Any = get_session()
    if hasattr(session, "stream"):
        with session.stream(
            "GET", url, headers=headers, timeout=SECONDS, follow_redirects=True
        ) as answer:
            answer.raise_for_status()
            yield answer.iter_bytes(_PIECE)
        return
    with session.get(url, headers=headers, timeout=SECONDS, stream=True) as answer:
        answer.raise_for_status()
        yield answer.iter_content(_PIECE)


def _limit(repo_id: str, name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise BadInput(
            f"the {name} of {repo_id} has {size:,} bytes or more", f"it is no {Path(name).stem}"
        )
