"""Attention over vLLM's pages of one scale a token and head: write, decode, stage for a prompt.

`page_format` says what lies where in a page and is the reference; `reference` attends over pages
in plain torch. `write_pages` and `stage_pages` are Triton, `decode_pages` is CUDA C++.
"""
