"""What a call of a session is given, looked at before anything runs: a mistake is one BadInput."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

from torch import Tensor

from ...planner.errors import BadInput, one_line
from .sampling import Sampling

_PROMPTS = (
    "a prompt is text, several texts, messages with role and content, token ids of one sequence or "
    "of several, or a tensor of token ids"
)


NEW_TOKENS = 128  # where nobody says how many


def new_tokens(asked: int | None, room: int) -> int:
    """How many to generate: what is asked; where nothing is, 128 or what there is room for. Raises
    BadInput for more than that."""
    if asked is None:
        return min(NEW_TOKENS, room)
    if asked > room:
        raise BadInput(
            f"{asked} new tokens do not fit: the cache has room for {room}",
            "load with a longer output",
        )
    return asked


def check_call(max_new_tokens: object, sampling: object, stops: object) -> None:
    """Raise BadInput for a number of tokens, a sampling or stop tokens that are none."""
    whole = max_new_tokens is None or _is_whole(max_new_tokens)
    if not whole or (max_new_tokens or 0) < 0:  # type: ignore[operator]
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


def check_requests(requests: object, kind: type, vocab: int) -> None:
    """Raise BadInput for what is no list of `kind` (serving/queue.py's PromptRequest), each with
    token ids below `vocab` and a whole number that may follow."""
    hint = "give a list of them: [PromptRequest(number=0, tokens=[1, 2, 3], most=64)]"
    if isinstance(requests, str) or not isinstance(requests, Sequence):
        raise _not("requests", requests, hint)
    for one in requests:
        if not isinstance(one, kind):
            raise _not("a request", one, hint)
        tokens: Any = getattr(one, "tokens", None)
        if not _is_row(tokens) or not all(0 <= token < vocab for token in tokens):
            raise _not("tokens of a request", tokens, f"token ids go from 0 to {vocab - 1}")
        most = getattr(one, "most", None)
        if not _is_whole(most):
            raise _not("most of a request", most, hint)


def check_tokenizer(tokenizer: object) -> None:
    """Raise BadInput for what neither is None nor turns text to tokens and back."""
    if tokenizer is None or (callable(tokenizer) and hasattr(tokenizer, "batch_decode")):
        return
    raise _not("tokenizer", tokenizer, "give one of transformers: AutoTokenizer.from_pretrained(…)")


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


def _is_row(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_whole, value))
