"""What docs/vllm_plugin.md says of whole models is what its rows say."""

import json
from pathlib import Path
from typing import Any

import pytest

from kvpareto.profiles import read

DOCS = Path(__file__).parents[1] / "docs/vllm_plugin.md"
ROWS = [json.loads(line) for line in read("vllm/plugin_0.26_h200.jsonl").splitlines()]
SAID = {
    "TPOT at 131,000 tokens": ("tpot_ms", "{:.2f} ms"),
    "TPOT at 131,000": ("tpot_ms", "{:.2f} ms"),
    "TTFT of 131,000": ("ttft_s", "{:.2f} s"),
    "decoding 16 x 16,000": ("decode_16x16k_tokens_s", "{:,.0f}"),
    "16 prompts of 16,000": ("prefill_16x16k_s", "{:.2f} s"),
    "64 clients of 16,000 who each take 1,024 tokens": ("clients_tokens_s", "{:,.0f}"),
}
WEIGHTS = {"AWQ": ("awq", 32), "bfloat16": ("bf16", 32), "bfloat16, 8 of 32 layers": ("bf16", 8)}


def measured(engine: str, layers: int, key: str) -> float:
    found = [r[key] for r in ROWS if (r["engine"], r["layers"]) == (engine, layers) and key in r]
    return float(found[-1])


def table() -> list[tuple[str, ...]]:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    begin = lines.index("| weights | what | vLLM | plugin, int4 | ratio |") + 2
    count = next(i for i, line in enumerate(lines[begin:]) if not line.startswith("|"))
    return [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in lines[begin:][:count]]


@pytest.mark.parametrize("row", table(), ids=lambda row: f"{row[0]}, {row[1]}")
def test_a_line_of_the_table_is_its_rows(row: tuple[str, ...]) -> None:
    weights, what, theirs, ours, ratio = row
    stored, layers = WEIGHTS[weights]
    key, shape = SAID[what]
    cache = "fp8" if "(fp8" in theirs else "auto"
    base = measured(f"{stored}:{cache}", layers, key)
    new = measured(f"{stored}:plugin", layers, key)
    assert theirs.split(" (")[0].removesuffix(" tokens/s") == shape.format(base)
    assert ours == shape.format(new)
    assert ratio == f"{new / base:.2f}"


def test_every_row_says_where_it_is_from() -> None:
    wanted: dict[str, Any] = {"vllm": "0.26.0", "gpu": "NVIDIA H200"}
    assert all(row.items() >= wanted.items() and row["date"] for row in ROWS)
