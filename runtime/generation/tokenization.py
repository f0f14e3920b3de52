"""Between text and tokens: prompts, chat messages, left padding, streamed text, stop tokens."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...planner.errors import BadInput, one_line
from ...planner.libraries import import_failure
from .check_call import check_prompt

Prompt = (
    str
    | Sequence[str]
    | Sequence[Mapping[str, str]]
    | Sequence[int]
    | Sequence[Sequence[int]]
    | Tensor
)
"""Text, several texts, chat messages ({"role": …, "content": …}), tokens of one sequence or of
several (of any lengths), or a tensor of tokens [T] or [B, T]."""


def encode(
    prompt: Prompt, tokenizer: PreTrainedTokenizerBase | None, pad_id: int
) -> tuple[Tensor, Tensor]:
    """Tokens int64 [B, T], padded on the left, and each sequence's padding int64 [B].

    Raises BadInput for what is no prompt, for an empty one, or text without a tokenizer.
    """
    check_prompt(prompt)
    rows = _rows(prompt, tokenizer)
    if not rows or not all(rows):
        raise BadInput("the prompt is empty", "give at least one token for every sequence")
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, longest - len(row) :] = torch.tensor(row, dtype=torch.long)
    return ids, torch.tensor([longest - len(row) for row in rows])


def _rows(prompt: Prompt, tokenizer: PreTrainedTokenizerBase | None) -> list[list[int]]:
    if isinstance(prompt, Tensor):
        return prompt[None].tolist() if prompt.dim() == 1 else prompt.tolist()
    items: list[Any] = [prompt] if isinstance(prompt, str) else list(prompt)
    if items and isinstance(items[0], int):
        return [items]
    if items and isinstance(items[0], list | tuple):
        return [list(row) for row in items]
    if tokenizer is None:
        raise BadInput(
            "this model was loaded without a tokenizer", "give token ids instead of text"
        )
    if items and isinstance(items[0], Mapping):
        if not tokenizer.chat_template:
            raise BadInput(
                "this model's tokenizer has no chat template", "give plain text instead of messages"
            )
        text = _templated(items, tokenizer)
        return [tokenizer(text, add_special_tokens=False)["input_ids"]]
    return [tokenizer(text)["input_ids"] for text in items]


def _templated(messages: list[Any], tokenizer: PreTrainedTokenizerBase) -> Any:
    """Messages as the tokenizer's chat template writes them. A template is somebody's code: it
    refuses roles and orders that its model was not trained on, or is damaged. Raises BadInput."""
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:
        broken = import_failure(error, "a chat template")
        if broken is not None:
            raise broken from error
        raise BadInput(
            "the model's chat template does not take these messages: "
            f"{one_line(str(error), 160) or type(error).__name__}",
            "give the roles and the order that it knows, a system message perhaps not, or plain "
            "text (--raw)",
        ) from error


def stop_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None
) -> frozenset[int]:
    """End-of-sequence tokens that the model's generation config, its config or tokenizer name."""
    stops: set[int] = set()
    named = [getattr(model.generation_config, "eos_token_id", None)]
    named.append(getattr(model.config.get_text_config(), "eos_token_id", None))
    named.append(getattr(tokenizer, "eos_token_id", None))
    for ids in named:
        stops.update([ids] if isinstance(ids, int) else ids or [])
    return frozenset(stops)


def stream_text(
    tokens: Iterable[int], tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]
) -> Iterator[str]:
    """Pieces of text as tokens arrive, held back while they end inside a character."""
    pending: list[int] = []
    shown = ""
    for token in tokens:
        if token in stops:
            break
        pending.append(token)
        text: Any = tokenizer.decode(pending, skip_special_tokens=True)
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            continue
        if len(text) > len(shown):
            yield text[len(shown) :]
        shown = text
        if text.endswith("\n"):  # a line is settled: what follows does not change it
            pending, shown = [], ""
    rest: Any = tokenizer.decode(pending, skip_special_tokens=True) if pending else ""
    if len(rest) > len(shown):
        yield rest[len(shown) :]
