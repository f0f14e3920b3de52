"""Documents of `run` and `chat`."""

from typing import Literal

from typing_extensions import TypedDict


class RunMemoryRecord(TypedDict):
    """Bytes of what is loaded and allocated."""

    weights: int
    kv: int


class AnswerRecord(TypedDict):
    """One generated text; `finish` says why it ended."""

    text: str
    prompt_tokens: int
    new_tokens: int
    finish: Literal["stop", "length"]
    ttft_s: float
    tokens_per_s: float | None


class OpenedRecord(TypedDict):
    """What runs, and where."""

    schema: Literal[1]
    model: str
    config: str
    device: str
    context: int
    output: int
    memory: RunMemoryRecord


class RunRecord(OpenedRecord, AnswerRecord):
    """`run`."""


class BatchAnswerRecord(TypedDict):
    """One line's text; `id` is the line's own, or its number."""

    id: str | int
    text: str
    prompt_tokens: int
    new_tokens: int
    finish: Literal["stop", "length"]


class RunBatchRecord(OpenedRecord):
    """`run --batch`: the answers in the file's order; `joined` began while others went on."""

    at_once: int
    answers: list[BatchAnswerRecord]
    prompt_tokens: int
    new_tokens: int
    seconds: float
    tokens_per_s: float
    joined: int


class MessageRecord(TypedDict):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatRecord(OpenedRecord):
    """`chat`: the whole conversation, and each answer's numbers."""

    messages: list[MessageRecord]
    turns: list[AnswerRecord]
