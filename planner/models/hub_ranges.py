"""Ranges of a hub repository's safetensors files, under one limit of bytes and one of time.

A checkpoint has gigabytes, and its headers and small vectors a few hundred kilobytes. A server that
does not honour ranges would send all, so an answer that is not exactly the range is dropped before
its body is read. Requests go through huggingface_hub's own session (proxies, certificates); its
token goes to the hub's own endpoint and to no other host, such as the storage that large files are
redirected to.
"""

import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from threading import Lock
from typing import Any

from ..errors import BadInput
from .checkpoint_tensors import INDEX, SINGLE
from .untrusted_json import parse_json_object

MOST_BYTES = 8 * 2**20
"""Of all that is read of one repository."""
SECONDS = 5.0
"""For all of it."""
AT_ONCE = 8
"""Requests that are under way together: each waits for the network more than it moves."""
_NAME = re.compile(r"[\w.-]+\.safetensors", re.ASCII)
_HINT = "fetch the model, and its keys are read from the disk"


class HubRepository:
    """One commit of a repository. Its reads raise BadInput beyond the limits and for answers that
    are no such range, and huggingface_hub's exceptions for all that it knows."""

    def __init__(self, repo_id: str, commit: str) -> None:
        self.repo_id, self.commit = repo_id, commit
        self._end = time.monotonic() + SECONDS
        self._left, self._lock = MOST_BYTES, Lock()

    def files(self, wanted: re.Pattern[str]) -> list["HubFile"]:
        """The safetensors files that hold a tensor whose name `wanted` matches."""
        from huggingface_hub.errors import EntryNotFoundError

        index = HubFile(self, INDEX)
        try:
            content = parse_json_object(index.whole(), INDEX)
        except EntryNotFoundError:
            return [HubFile(self, SINGLE)]
        listed = content.get("weight_map")
        if not isinstance(listed, dict):
            raise BadInput(f"{INDEX} does not say which files the tensors are in", _HINT)
        names = {file for name, file in listed.items() if wanted.search(name)}
        if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
            raise BadInput(f"{INDEX} names files that are no safetensors", _HINT)
        files = [HubFile(self, name) for name in sorted(names)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(HubFile.fetch_header, files))
        return files

    def seconds_left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise BadInput(f"the hub took more than {SECONDS:g} seconds", _HINT)
        return left

    def bytes_left(self) -> int:
        return self._left

    def spend(self, count: int) -> None:
        """Count bytes before they are asked for."""
        with self._lock:
            if count > self._left:
                raise BadInput(f"more than {MOST_BYTES:,} bytes would have to be read", _HINT)
            self._left -= count


class HubFile:
    """A file of the repository as a thing that gives bytes of a range."""

    def __init__(self, repository: HubRepository, name: str) -> None:
        self.name, self._repository = name, repository
        self._kept: dict[tuple[int, int], bytes] = {}

    @cached_property
    def _metadata(self) -> Any:
        import huggingface_hub as hub

        where = self._repository
        url = hub.hf_hub_url(where.repo_id, self.name, revision=where.commit)
        return hub.get_hf_file_metadata(url, timeout=where.seconds_left())

    @property
    def size(self) -> int:
        size = self._metadata.size
        if not isinstance(size, int) or size <= 0:
            raise BadInput(f"the hub does not say how long {self.name} is", _HINT)
        return size

    def read(self, first: int, last: int) -> bytes:
        """Bytes first to last, the last not included; fewer where the file ends before."""
        kept = self._kept.get((first, last))
        last = min(last, self.size)
        if kept is not None or first >= last:
            return kept or b""
        self._repository.spend(last - first)
        return self._ask(first, last)

    def fetch(self, first: int, last: int) -> None:
        """Keep a range for later reads."""
        self._kept[first, last] = self.read(first, last)

    def fetch_header(self) -> None:
        """Keep the length and the header, where the file has as much."""
        self.fetch(0, 8)
        end = 8 + int.from_bytes(self._kept[0, 8], "little")
        if end <= self.size:
            self.fetch(8, end)

    def whole(self) -> bytes:
        """All of a small file, which some servers give no ranges of."""
        self._repository.spend(self.size)
        return self._ask(0, self.size, whole=True)

    def _ask(self, first: int, last: int, whole: bool = False) -> bytes:
        from .hub_get import own_headers, stream

        where = self._metadata.location
        headers = {**own_headers(where), "accept-encoding": "identity"}
        if not whole:
            headers["range"] = f"bytes={first}-{last - 1}"
        data = b""
        with stream(where, headers, self._repository.seconds_left()) as (answer, pieces):
            told = str(answer.headers.get("content-range", ""))
            is_range = answer.status_code == 206 and told.startswith(f"bytes {first}-{last - 1}/")
            if not (whole or is_range):
                raise BadInput(f"the hub gives no ranges of {self.name}", _HINT)
            for piece in pieces:
                data += piece
                self._repository.seconds_left()
                if len(data) > last - first:
                    break
        if len(data) != last - first:
            raise BadInput(f"the hub gave another length of {self.name} than asked", _HINT)
        return data


def fetch_all(spans: Iterable[tuple[HubFile, int, int]]) -> None:
    """Keep ranges of several files, AT_ONCE asked for together."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda span: span[0].fetch(*span[1:]), spans))
