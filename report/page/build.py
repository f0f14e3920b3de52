"""The page as one file: template, style, script, libraries and data, nothing fetched.

Data is JSON inside a script element that no browser runs, with `<` escaped, so that nothing in it
can end the element; the page's own policy (Content-Security-Policy) forbids any request.
"""

import html
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from ..output import to_json

MAX_BYTES = 2_000_000
_LIBRARIES = ("d3.min.js", "plot.umd.min.js")
_SCRIPTS = ("base.js", "figures.js", "page.js")


def build_page(data: Mapping[str, Any], live: Mapping[str, Any] | None = None) -> str:
    """The page for `data` of page_data(). `live`: what a served page needs to ask its server
    again; None: a page that stands alone."""
    place = files(__package__)
    names = ", ".join(plan["document"]["model"] for plan in data["plans"])
    names = names.encode(errors="replace").decode()  # a folder's name need not be UTF-8
    parts = {
        "TITLE": html.escape(f"{names}: kvpareto"),
        "POLICY": "connect-src 'self'; " if live is not None else "",
        "STYLE": (place / "page.css").read_text(encoding="utf-8"),
        "LIBRARIES": "\n".join(
            _script((place / "vendor" / name).read_text(encoding="utf-8")) for name in _LIBRARIES
        ),
        "DATA": _inert({**data, "live": dict(live) if live is not None else None}),
        "SCRIPT": _script(
            "\n".join((place / name).read_text(encoding="utf-8") for name in _SCRIPTS)
        ),
    }
    page = (place / "page.html").read_text(encoding="utf-8")
    before, *pieces = page.split("{{")
    filled = [before]
    for piece in pieces:
        name, rest = piece.split("}}", 1)
        filled += [parts[name], rest]
    return "".join(filled)


def _script(source: str) -> str:
    if "</script" in source.lower():
        raise ValueError("a script would end its own element")
    return f"<script>{source}</script>"


def _inert(data: Mapping[str, Any]) -> str:
    """JSON that may stand inside an element: as `to_json`, without any `<`."""
    text = to_json(data).strip().replace("<", "\\u003c")
    json.loads(text)
    return text
