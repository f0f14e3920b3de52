"""A chat: each turn is the conversation so far through the model's chat template.

The packed cache cannot be cut back, so a turn prefills the conversation again.
"""

from collections.abc import Callable, Iterable
from typing import Any

from ...planner.errors import BadInput
from .one_prompt import Spoken, show, tokens_of
from .open_session import OpenSession


def converse(
    opened: OpenSession,
    turns: Iterable[str],
    *,
    system: str | None,
    quiet: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Answer each of `turns` until they end; the conversation as a document. `say` gets a line
    about each answer.

    Raises BadInput for a model without a chat template, and where the conversation outgrows the
    cache.
    """
    tokenizer: Any = opened.session.tokenizer
    if not tokenizer.chat_template:
        raise BadInput(
            f"{opened.spec.name} has no chat template",
            'kvpareto run -m MODEL "text" continues text',
        )
    messages = [{"role": "system", "content": system}] if system is not None else []
    spoken: list[Spoken] = []
    for turn in turns:
        if not turn.strip():
            continue
        messages.append({"role": "user", "content": turn})
        said = show(opened, tokens_of(opened, messages, raw=False), quiet=quiet)
        messages.append({"role": "assistant", "content": said.text})
        spoken.append(said)
        say(said.summary)
    return {**opened.document(), "messages": messages, "turns": [x.document() for x in spoken]}
