"""What a call of a session is given, looked at before anything runs: a mistake is one BadInput."""

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

from torch import Tensor

from ...planner.errors import BadInput, one_line
from .sampling import Sampling

_PROMPTS = (
    "a prompt is text, several texts, messages with role and content, token ids of one sequence or "
    "of several, or a tensor of token ids"
)


def check_call(max_new_tokens: object, sampling: object, stops: object) -> None:
    """Raise BadInput for a number of tokens, a sampling or stop tokens that are none."""
    if not _is_whole(max_new_tokens) or max_new_tokens < 0:  # type: ignore[operator]
        raise _not("max_new_tokens", max_new_tokens, "give a whole number, 0 or more")
    if not isinstance(sampling, Sampling):
        raise _not("sampling", sampling, "give Sampling(temperature=0.7, top_p=0.9)")
    if stops is not None and (
        isinstance(stops, str) or not isinstance(stops, Iterable) or not all(map(_is_whole, stops))
    ):
        raise _not("stops", stops, "give a set of token ids: {2}")


def check_prompt(prompt: object) -> None:
    """Raise BadInput for what is no prompt."""
    if isinstance(prompt, Tensor):
        if prompt.dim() not in (1, 2) or prompt.is_floating_point() or prompt.is_complex():
            what = f"{str(prompt.dtype).removeprefix('torch.')} {list(prompt.shape)}"
            raise BadInput(f"not a prompt: a tensor {what}", "give token ids [T] or [B, T]")
        return
    rows = [prompt] if isinstance(prompt, str) else prompt
    if isinstance(rows, bytes | Mapping) or not isinstance(rows, Iterable):
        raise _not("prompt", prompt, _PROMPTS)
    items = list(rows)
    kinds = (_is_text, _is_message, _is_whole, _is_row)
    if items and not any(all(map(kind, items)) for kind in kinds):
        raise _not("prompt", prompt, _PROMPTS)


def _not(name: str, value: object, hint: str) -> BadInput:
    shown = one_line(repr(value), 60)
    return BadInput(f"not a value for {name}: {shown} ({type(value).__name__})", hint)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            "the prompt has characters that are no Unicode text (lone surrogates)",
            f"look at character {error.start}: its bytes were not UTF-8",
        ) from None
    return True


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str) and "content" in value


def _is_row(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_whole, value))
