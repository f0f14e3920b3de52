"""kvpareto inside vLLM: an attention backend over vLLM's own pages of 4- and 8-bit keys and values.

vLLM calls `register` in each of its processes, through the entry point `vllm.general_plugins`.
`--attention-backend CUSTOM --kv-cache-dtype int4_per_token_head` then serves with the backend of
backend.py. docs/vllm_plugin.md describes the pages and what the interface allows.
"""

from .registration import register

__all__ = ["register"]
DOOR = ("registration",)
"""Modules that other rooms may import."""
