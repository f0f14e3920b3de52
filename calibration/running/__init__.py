"""A recommendation put to use: one prompt, a conversation, or a file of prompts.

open_session    the model, its configuration and a cache for what is asked
one_prompt      text as it is generated, and how fast
prompts_file    a file of prompts of unlike length, several at once
conversation    turns of a chat over one session
"""

DOOR = (
    "conversation",
    "one_prompt",
    "open_session",
    "prompts_file",
)
"""Modules that other rooms may import."""
