"""Tables of pages that are written by hand: the page with a line `<!-- name -->` has the table of
that name, and `make docs` writes it through write_generated.py."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def keys() -> str:
    """Of the recall models' keys, as the grid has them."""
    from kvpareto.calibration.evidence.readme_table import keys_table
    from kvpareto.calibration.grid.held_out import FILE
    from kvpareto.calibration.grid.reading import read_runs

    return keys_table(read_runs(FILE))


def digest() -> str:
    """Of how good predicted accuracy is: figures of tables that take fits."""
    from kvpareto.calibration.evidence.accuracy_tables import digest_table

    return digest_table(ROOT / "docs")


def points() -> str:
    """Of the points of real models that ship."""
    from kvpareto.calibration.evidence.left_out_models import points_table

    return points_table()


def families() -> str:
    """Of what each model type of transformers' mappings is."""
    coverage = json.loads((ROOT / "tests" / "data" / "coverage.json").read_text("utf-8"))
    lines = [
        "| mapping | types | exact | bounded | unchecked | refused |",
        "|---|---|---|---|---|---|",
    ]
    others = []
    for mapping, title in (("causal", "causal LM"), ("image", "image and text to text")):
        verdicts = list(coverage[mapping].values())
        counts = [verdicts.count(v) for v in ("exact", "bounded", "unchecked", "refused")]
        lines.append(f"| {title} | {len(verdicts)} | {' | '.join(map(str, counts))} |")
        for verdict in ("bounded", "unchecked"):
            named = ", ".join(k for k, v in coverage[mapping].items() if v == verdict)
            others.append(f"- {title}, {verdict}: {named or 'none'}.")
    return "\n".join([*lines, "", *others])


def paper() -> str:
    """Of the paper's reductions of memory beside what is predicted."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from paper_table import paper as tables

    return str(tables())


def mixes() -> str:
    """Of what weights of GGUF types are predicted to keep."""
    from kvpareto.calibration.evidence.marked_tables import markdown_table
    from kvpareto.planner.accuracy.predict import predict
    from kvpareto.planner.formats.configuration import Configuration
    from kvpareto.planner.load_model import load_model

    spec = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
    names = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K", "IQ2_XXS", "IQ1_S")
    kept = [
        predict(spec, Configuration.named(name, "f16", "f16"), 4096, task="reasoning")
        for name in names
    ]
    shown = [f"{100 * one.retention:.1f}" for one in kept]
    ends = [f"{100 * one.low:.1f} to {100 * one.high:.1f}" for one in kept]
    return markdown_table(("", *names), [("kept, %", *shown), ("90 % interval", *ends)])


def runtime_runs() -> str:
    """Of runs of our engine beside the memory that is predicted."""
    from kvpareto.calibration.evidence.memory_tables import runtime_rows, runtime_table

    return runtime_table(runtime_rows())


def transformers_runs() -> str:
    """The same of transformers."""
    from kvpareto.calibration.evidence.memory_tables import baseline_rows, fleet_rows, table

    return table((*baseline_rows(), *fleet_rows()))


def transformers_times() -> str:
    """Of transformers' seconds on whole models beside what is predicted."""
    from kvpareto.calibration.evidence.latency_tables import whole_table

    return whole_table()


def newest_times() -> str:
    """Of our engine's newest runs beside what is predicted."""
    from kvpareto.calibration.evidence.latency_tables import newest_table
    from kvpareto.calibration.fit.hardware.engine_runs import shipped_runs

    return newest_table(shipped_runs())


TABLES = (
    transformers_times, newest_times, digest, points, keys, families, paper, mixes, runtime_runs,
    transformers_runs,
)  # fmt: skip
