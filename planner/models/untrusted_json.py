"""JSON that somebody else wrote, read without trust: size, encoding, nesting and keys checked.

A config.json can be a 100 MB file of something else, a folder, a device, a list, a thousand
brackets deep. Each of those is one clear BadConfig here, so that no reader behind it has to ask.
"""

import json
import stat
from pathlib import Path

from ..errors import BadConfig
from ..reading import read_at_most, unblocked

MAX_BYTES = 16 * 2**20  # the largest config.json known (per-module quantization of an MoE) is 3 MB

_HINT = "give a Hugging Face config.json, a folder that holds one, or a hub id"


def read_json_object(path: Path, limit: int = MAX_BYTES) -> dict[str, object]:
    """The JSON object in `path`. Raises BadConfig, naming the file, for anything else.

    NaN and Infinity are read as the floats they mean (published Mamba configs contain them);
    whoever needs a count or a width rejects them there.
    """
    return parse_json_object(read_capped(path, limit), path.name)


def read_capped(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Bytes of a regular file of at most `limit` bytes; BadConfig otherwise."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise BadConfig(f"not a file: {str(path)!r}", _HINT)
        if info.st_size > limit:
            raise BadConfig(f"{path.name} has {info.st_size:,} bytes, too many for a config", _HINT)
        with open(path, "rb", opener=unblocked) as file:
            data = read_at_most(file, limit + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise BadConfig(f"cannot read {str(path)!r}: {reason}", _HINT) from None
    if len(data) > limit:
        raise BadConfig(f"{path.name} is too long for a config", _HINT)
    return data


def parse_json_object(data: bytes, name: str) -> dict[str, object]:
    """Decode and parse `data`; `name` is what the error calls it."""
    try:
        parsed = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_agreeing_pairs)
    except UnicodeDecodeError:
        raise BadConfig(f"{name} is not UTF-8 text", _HINT) from None
    except RecursionError:
        raise BadConfig(f"{name} is nested too deeply for a config", _HINT) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadConfig(f"{name} is not JSON: {error.msg} at {where}", _HINT) from None
    except _Contradiction as error:
        raise BadConfig(f"{name} gives {error.args[0]!r} two different values", _HINT) from None
    except ValueError:  # an integer of more digits than Python converts
        raise BadConfig(f"{name} holds a number too long to read", _HINT) from None
    if not isinstance(parsed, dict):
        raise BadConfig(f"{name} is JSON, but not an object", _HINT)
    return parsed


class _Contradiction(Exception):
    """One key with two different values in one object; its only argument is the key."""


def _agreeing_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        for key, value in pairs:
            if result[key] != value:
                raise _Contradiction(key)
    return result
