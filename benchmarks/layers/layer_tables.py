"""Rows of verify_layers.py as lines and as tables of the docs."""

import statistics
from typing import Any

from ..measure.row_file import held


def line(row: dict[str, Any]) -> str:
    """One row: what was predicted, what was measured, the difference of each."""
    planned, run, used = row["predicted"], row["execution"], held(row)
    if used is None or row["outcome"] != "ok":
        return f"{row['key']} {row['outcome']}: {row['reason']!s:.300}"
    peak = max(run.get("peaks", {}).values(), default=0)
    return (
        f"{row['key']} {row['outcome']}: total {used / 1e9:.3f} GB, planned "
        f"{planned['total'] / 1e9:.3f} ({planned['total'] / used - 1:+.2%}); weights "
        f"{planned['weights'] - run.get('weights', 0):+d}, kv {planned['kv'] - run.get('kv', 0):+d}"
        f", allocated peak {peak / 1e9:.3f} planned {planned['allocated_peak'] / 1e9:.3f}; "
        f"TTFT {run.get('ttft_s', 0):.2f} s, TPOT {1e3 * run.get('tpot_s', 0):.2f} ms"
    )


def summary(rows: list[dict[str, Any]]) -> str:
    """A line for each model and one for all, in Markdown."""
    measured = [row for row in rows if row["outcome"] == "ok" and held(row) is not None]
    if not measured:
        return "no rows"
    lines = [
        "| model | plans | longest | total off: median | worst | tokens as without graphs | TPOT |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in dict.fromkeys(row["key"][0] for row in measured):
        ours = [row for row in measured if row["key"][0] == model]
        runs = [row["execution"] for row in ours]
        checks = [row["check"] for row in ours if row["check"]]
        same = min((check["same_tokens"] for check in checks), default=None)
        captured = not any(check["why_eager"] for check in checks)
        steps = [1e3 * run["tpot_s"] for run in runs]
        lines.append(
            f"| {model} | {len(ours)} | {max(run['context'] for run in runs):,} | "
            f"{statistics.median(map(off, ours)):.2%} | {max(map(off, ours)):.2%} | "
            f"{'-' if same is None else f'{same:.0%}' if captured else 'no graphs'} | "
            f"{min(steps):.1f} to {max(steps):.1f} ms |"
        )
    gaps = [off(row) for row in measured]
    lost = sum(row["outcome"] != "ok" for row in rows)
    models = len({row["key"][0] for row in measured})
    return "\n".join(lines) + (
        f"\n\n{len(rows)} plans of {models} models, {lost} not within the cap; total off by "
        f"{statistics.median(gaps):.2%} in the median, {max(gaps):.2%} at worst"
    )


def off(row: dict[str, Any]) -> float:
    """How far the planned total was from the device's, as a share of this."""
    used = held(row)
    assert used is not None
    return float(abs(row["predicted"]["total"] / used - 1))
