"""Marks that not every terminal can show, and what stands for them there.

An encoding such as cp1252 or ASCII lacks box characters, arrows or both. Each has a plainer mark of
the same width, so that tables and pictures stay in line.
"""

import os

_PLAINER = {
    "█": "#", "░": ".", "┊": ":", "│": "|", "└": "+", "─": "-", "╎": "|",
    "…": "~", "±": "~", "→": ">", "≤": "<", "≥": ">", "×": "x", "·": ".", "–": "-", "µ": "u",
    "━": "=", "╸": "=", "╺": "=",
}  # fmt: skip


def encodable(text: str, encoding: str) -> str:
    """`text` with a plainer mark for each that `encoding` lacks; itself where it lacks none."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(c if _has(encoding, c) else _PLAINER.get(c, "?") for c in text)
    except LookupError:
        return text
    return text


def _has(encoding: str, character: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def without_escapes() -> bool:
    """Whether nothing but text may be written: NO_COLOR (no-color.org) or a terminal that says it
    obeys nothing. What forces colours does not count against it."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in ("dumb", "unknown")
