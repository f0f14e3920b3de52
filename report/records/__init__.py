"""The documents of schema 1 as types: what `--json` prints and the Python functions return.

docs/schemas/ holds the same as JSON Schema, written by `make docs`. A field that a document gains
is added here first.
"""

DOOR = ("measuring",)
"""Modules that other rooms may import."""
