"""The KV Pareto paper's five models at 10k tokens: its memory reductions beside predicted ones.

    python benchmarks/paper_table.py

The paper (arXiv 2512.01953, table of frontier points) compares weights + KV + activation peak of
a configuration with 4-bit weights, packed KV and a chunk of 256 to W16 K16V16 in one shot. What
attention and which logits its baseline keeps is not said, and decides most of the number, so
three are predicted: SDPA with the last token's logits, SDPA and eager with all logits.
"""

from dataclasses import dataclass

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.engines.transformers_eager import TRANSFORMERS_EAGER
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.estimate import MemoryEstimate, estimate
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.units import GB
from kvpareto.planner.workload import Workload

CONTEXT = 10_240
PAPER = (
    # model, the paper's frontier point (its group size for that size of model), its reduction
    ("Qwen/Qwen2.5-3B-Instruct", "w4a16-k4v4-g32+pc256", 73),
    ("meta-llama/Llama-3.2-3B-Instruct", "w4a16-k4v4-g32+pc256", 76),
    ("Qwen/Qwen2.5-7B-Instruct", "w4a16-k8v8-g64+pc256", 68),
    ("meta-llama/Llama-3.1-8B-Instruct", "w4a16-k8v2-g64+pc256", 75),
    ("mistralai/Mistral-7B-Instruct-v0.3", "w4a16-k4v4-g64+pc256", 78),
)


@dataclass(frozen=True)
class PaperLine:
    """One model: what the paper says, and totals as the paper counts them."""

    model: str
    config: Configuration
    paper: int
    packed: MemoryEstimate
    sdpa: MemoryEstimate
    sdpa_all: MemoryEstimate
    eager: MemoryEstimate

    def reduction(self, baseline: MemoryEstimate) -> float:
        return 1 - self.packed.paper_total / baseline.paper_total


def line(model: str, text: str, paper: int) -> PaperLine:
    """Predict one model's totals."""
    spec: ModelSpec = load_model(model, offline=True)
    config, plain = Configuration.parse(text), Configuration()
    last, every = Workload(CONTEXT, 0), Workload(CONTEXT, 0, full_logits=True)
    return PaperLine(
        model,
        config,
        paper,
        packed=estimate(spec, config, last, KVPARETO, None),
        sdpa=estimate(spec, plain, last, TRANSFORMERS, None),
        sdpa_all=estimate(spec, plain, every, TRANSFORMERS, None),
        eager=estimate(spec, plain, every, TRANSFORMERS_EAGER, None),
    )


def paper() -> str:
    """The tables of reductions and of what makes them up (docs/recommendation.md has them)."""
    found = [line(*row) for row in PAPER]
    lines = [
        "| model | frontier point | paper | SDPA, last logits | SDPA, all logits | eager |",
        "|---|---|---|---|---|---|",
    ]
    for x in found:
        lines.append(
            f"| {x.model.split('/')[1]} | `{x.config}` | -{x.paper} % "
            f"| -{100 * x.reduction(x.sdpa):.0f} % | -{100 * x.reduction(x.sdpa_all):.0f} % "
            f"| -{100 * x.reduction(x.eager):.0f} % |"
        )
    lines += [
        "",
        "| model, GB | | weights | KV | activation | total |",
        "|---|---|---|---|---|---|",
    ]
    for x in found:
        rows = (
            ("packed", x.packed),
            ("SDPA, last logits", x.sdpa),
            ("SDPA, all logits", x.sdpa_all),
            ("eager, all logits", x.eager),
        )
        for name, size in rows:
            terms = (size.weights, size.kv, size.activation, size.paper_total)
            cells = " | ".join(f"{term / GB:.2f}" for term in terms)
            lines.append(f"| {x.model.split('/')[1]} | {name} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(paper())
