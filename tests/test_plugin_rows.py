"""What docs/vllm_plugin.md says of whole models is what its rows say."""

import json
from pathlib import Path
from typing import Any

import pytest

from kvpareto.planner.engines.vllm.plugin import AWQ_USERS
from kvpareto.profiles import read

DOCS = Path(__file__).parents[1] / "docs/vllm_plugin.md"
ROWS = [json.loads(line) for line in read("vllm/plugin_0.26_h200.jsonl").splitlines()]
SAID = {
    "TPOT at 131,000 tokens": ("tpot_ms", "{:.2f} ms"),
    "TTFT of 131,000": ("ttft_s", "{:.2f} s"),
    "decoding 16 x 16,000": ("decode_16x16k_tokens_s", "{:,.0f} tokens/s"),
    "16 prompts of 16,000": ("prefill_16x16k_s", "{:.2f} s"),
    **{
        f"decoding {users} x {tokens:,}": (f"decode_{users}x{tokens}_tokens_s", "{:,.0f} tokens/s")
        for users, tokens in ((24, 2000), (40, 4000), (48, 2000))
    },
    "decoding 64 x 4,000": ("decode_64x4000_tokens_s", "{:,.0f} tokens/s"),
    "decoding 8 x 65,000": ("decode_8x65000_tokens_s", "{:,.0f} tokens/s"),
    "64 clients of 16,000 who each take 1,024 tokens": ("clients_tokens_s", "{:,.0f} tokens/s"),
}
STARTED = {
    "AWQ, torch.compile": ("awq", 32, True),
    "bfloat16, torch.compile": ("bf16", 32, True),
    "bfloat16, torch.compile, +pdl": ("bf16", 32, True),
    "bfloat16, torch.compile, both +pdl": ("bf16", 32, True),
    "AWQ": ("awq", 32, False),
    "bfloat16": ("bf16", 32, False),
    "bfloat16, 8 of 32 layers": ("bf16", 8, False),
}
"""Weights, layers, and whether torch.compile was on."""


def measured(engine: str, layers: int, compiled: bool, key: str, run: int = 1) -> float | None:
    """The last such row; `run` 2 is the one in which vLLM's launches overlapped too."""
    wanted = {"engine": engine, "layers": layers, "compiled": compiled}.items()
    found = [r[key] for r in ROWS if r.items() >= wanted and r.get("run", 1) == run and key in r]
    return float(found[-1]) if found else None


def table() -> list[tuple[str, ...]]:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("| weights | what |")) + 2
    count = next(i for i, line in enumerate(lines[begin:]) if not line.startswith("|"))
    return [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in lines[begin:][:count]]


@pytest.mark.parametrize("row", table(), ids=lambda row: f"{row[0]}, {row[1]}")
def test_a_line_of_the_table_is_its_rows(row: tuple[str, ...]) -> None:
    name, what, theirs, ours, ratio, own, own_ratio = row
    stored, layers, compiled = STARTED[name]
    key, shape = SAID[what]
    said, cache = theirs.removesuffix(")").split(" (")
    run, theirs_too = (2, "+pdl") if "both" in name else (1, "")
    their_cache = f"fp8{theirs_too}" if cache == "fp8" else "auto"
    base = measured(f"{stored}:{their_cache}", layers, compiled, key, run)
    assert base is not None
    assert said == shape.format(base)
    for cell, factor, engine in ((ours, ratio, stored), (own, own_ratio, f"k{stored}")):
        cache = "plugin+pdl" if name.endswith("+pdl") else "plugin"
        value = measured(f"{engine}:{cache}", layers, compiled, key, run)
        assert cell == ("" if value is None else shape.format(value))
        assert factor == ("" if value is None else f"{value / base:.2f}")


def test_every_row_says_where_it_is_from() -> None:
    wanted: dict[str, Any] = {"vllm": "0.26.0", "gpu": "NVIDIA H200"}
    assert all(row.items() >= wanted.items() and row["date"] for row in ROWS)


@pytest.mark.parametrize("key", ["decode_16x16k_tokens_s", "decode_64x4000_tokens_s"])
def test_awqs_own_products_are_named_where_they_were_faster(key: str) -> None:
    ours, theirs = (measured(f"{name}:plugin", 32, True, key, 2) for name in ("kawq", "awq"))
    assert ours is not None
    assert theirs is not None
    assert ours > theirs
    assert AWQ_USERS == 64
