"""A chat: each turn is the conversation so far through the model's chat template.

The packed cache cannot be cut back, so a turn prefills the conversation again.
"""

from collections.abc import Callable, Iterable
from typing import Any

from ...planner.errors import BadInput
from .one_prompt import Spoken, messages_of, show, tokens_of
from .open_session import OpenSession, PreparedRun


def check_chat(run: PreparedRun, system: str | None) -> None:
    """Raise BadInput for a model without a chat template, and for a template that does not take
    the system message, or for which the cache has no room."""
    if not run.tokenizer.chat_template:
        raise BadInput(
            f"{run.spec.name} has no chat template",
            'kvpareto run -m MODEL "text" continues text',
        )
    tokens_of(run, messages_of("Hi", system), raw=False)


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

    Raises BadInput where the conversation outgrows the cache.
    """
    messages = [{"role": "system", "content": system}] if system is not None else []
    spoken: list[Spoken] = []
    for turn in turns:
        if not turn.strip():
            continue
        messages.append({"role": "user", "content": turn})
        said = show(opened, tokens_of(opened.run, messages, raw=False), quiet=quiet)
        messages.append({"role": "assistant", "content": said.text})
        spoken.append(said)
        say(said.summary)
    return {**opened.document(), "messages": messages, "turns": [x.document() for x in spoken]}
