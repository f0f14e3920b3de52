"""The frontiers of the measured pretrained models as a picture, from the rows that ship.

    python benchmarks/real_frontiers.py --plot docs/real_frontiers.svg

A panel a model: the share of the text's probability that is kept against the share of the cache's
bytes, at 4,096 tokens with 16-bit weights; every format a dot, the frontier a line. Needs
matplotlib (`pip install kvpareto[figures]`).
"""

import argparse
from pathlib import Path

import matplotlib as mpl

from kvpareto.calibration.fit.measured_models import SOURCES
from kvpareto.calibration.real_models.claims import (
    CONTEXT,
    cache_share,
    frontier,
    kept,
    points_of,
)
from kvpareto.calibration.real_models.rows import read_rows
from kvpareto.planner.formats.configuration import Configuration

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "kvpareto"
COLOURS = {"per channel": "tab:green", "rotated": "tab:orange", "smoothed": "tab:blue"}


def method(name: str) -> str:
    """What stands out in a format, the first that does."""
    for mark, said in (("-kc", "per channel"), ("+rot", "rotated"), ("+smooth", "smoothed")):
        if mark in name:
            return said
    return "other"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plot", type=Path, required=True)
    out = parser.parse_args().plot
    from matplotlib import pyplot

    rows = [row for _, row in read_rows(SOURCES.glob("real_*.jsonl"))]
    models = sorted({row["model"] for row in rows})
    figure, panels = pyplot.subplots(1, len(models), figsize=(11, 3.6), sharey=True)
    for panel, model in zip(panels, models, strict=True):
        points = points_of([row for row in rows if row["model"] == model])
        seen = set()
        for (name, context), row in points.items():
            if context != CONTEXT or not name.startswith("w16") or "+pc" in name:
                continue
            kind = method(name)
            panel.scatter(
                cache_share(model, Configuration.parse(name)),
                kept(row),
                s=9,
                color=COLOURS.get(kind, "0.6"),
                label=kind if kind not in seen else None,
            )
            seen.add(kind)
        front = frontier(model, points)
        panel.step([p[0] for p in front], [p[1] for p in front], where="post", color="black", lw=1)
        panel.set_title(model.split("/")[-1], fontsize=9)
        panel.set_xlabel("share of the 16-bit cache", fontsize=8)
        panel.set_xlim(0.1, 0.7)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("text's probability kept", fontsize=8)
    panels[0].legend(fontsize=7, loc="lower right")
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()
