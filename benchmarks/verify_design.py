"""Which hundred plans benchmarks/verify_many.py makes and runs: ten models, budgets, contexts.

Each case is a question as a person asks it: a model, a budget, a context, what matters. The
planner answers it for the GPU that runs; the answer is run under the budget as a hard cap.

The models differ in what memory depends on: grouped-query attention with 8, 4 and 2 KV heads,
multi-head attention (Phi, OLMo 2), windows (Gemma 3, gpt-oss), sinks and experts (gpt-oss, Qwen3),
vocabularies from 32,064 to 262,208. The runtime refuses latent attention and recurrent layers.
gpt-oss-20b is run in 16 bits, as its experts' 4-bit floats are not what this runtime reads.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from typing import Any, Self

from run_design import architecture

from kvpareto.planner.engine import Engine
from kvpareto.planner.engines import find_engine
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.errors import NothingFits
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.gpus import Hardware
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory import estimate as memory
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.search.recommend import Request, recommend
from kvpareto.planner.units import GB
from kvpareto.planner.workload import Workload
from kvpareto.report.document_parts import point

OUTPUT = 12  # tokens decoded in each run: few, since transformers takes 20 to 80 ms for each
BASELINE_CHUNKS = (None, 4096, 1024)  # of transformers: the largest that fits

LLAMA8, LLAMA3 = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.2-3B-Instruct"
QWEN3B, QWEN7B = "Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-7B-Instruct"
MISTRAL, GEMMA = "mistralai/Mistral-7B-Instruct-v0.3", "google/gemma-3-4b-it"
PHI, OLMO = "microsoft/Phi-3.5-mini-instruct", "allenai/OLMo-2-1124-7B-Instruct"
MOE, OSS = "Qwen/Qwen3-30B-A3B-Instruct-2507", "gpt-oss-20b-16bit"

K = 1024
QUESTIONS: dict[str, tuple[tuple[float, int, str], ...]] = {
    # model: (budget in GB, context, what matters); "transformers" asks for that engine
    LLAMA8: (
        (8, 2 * K, "accuracy"), (9, 8 * K, "latency"), (10, 32 * K, "accuracy"),
        (12, 16 * K, "accuracy"), (14, 65_536, "accuracy"), (18, 8 * K, "accuracy"),
        (20, 32 * K, "accuracy"), (24, 32 * K, "latency"), (20, 10_240, "transformers"),
        (40, 32 * K, "transformers"),
    ),
    LLAMA3: (
        (4, 2 * K, "accuracy"), (5, 16 * K, "accuracy"), (6, 24 * K, "accuracy"),
        (6, 8 * K, "latency"), (8, 4 * K, "accuracy"), (9, 131_072 - OUTPUT, "accuracy"),
        (10, 16 * K, "accuracy"), (16, 32 * K, "latency"), (10, 8 * K, "transformers"),
        (80, 2 * K, "accuracy"),
    ),
    QWEN3B: (
        (4, 4 * K, "accuracy"), (5, 16 * K, "accuracy"), (5, 32_000, "latency"),
        (6, 8 * K, "accuracy"), (7, 2 * K, "latency"), (8, 32_000, "accuracy"),
        (9, 16 * K, "accuracy"), (12, 24 * K, "accuracy"), (10, 10_240, "transformers"),
        (40, 32_000, "accuracy"),
    ),
    QWEN7B: (
        (8, 4 * K, "accuracy"), (9, 16 * K, "accuracy"), (10, 32_000, "accuracy"),
        (11, 8 * K, "latency"), (12, 24 * K, "accuracy"), (16, 2 * K, "accuracy"),
        (18, 16 * K, "accuracy"), (20, 32_000, "latency"), (24, 32_000, "transformers"),
        (64, 8 * K, "accuracy"),
    ),
    MISTRAL: (
        (6, 2 * K, "accuracy"), (7, 16 * K, "accuracy"), (8, 32_000, "accuracy"),
        (9, 8 * K, "accuracy"), (10, 24 * K, "latency"), (12, 32_000, "accuracy"),
        (16, 4 * K, "accuracy"), (18, 32_000, "accuracy"), (20, 16 * K, "transformers"),
        (48, 32_000, "latency"),
    ),
    GEMMA: (
        (5.5, 4 * K, "accuracy"), (6, 32 * K, "accuracy"), (6, 8 * K, "latency"),
        (7, 16 * K, "accuracy"), (8, 131_072 - OUTPUT, "accuracy"), (9, 2 * K, "accuracy"),
        (10.5, 32 * K, "accuracy"), (11, 65_536, "latency"), (14, 8 * K, "transformers"),
        (30, 32 * K, "accuracy"),
    ),
    PHI: (
        (5, 4 * K, "accuracy"), (6, 8 * K, "accuracy"), (8, 32 * K, "accuracy"),
        (9, 16 * K, "latency"), (10, 2 * K, "accuracy"), (18, 24 * K, "accuracy"),
        (14, 8 * K, "accuracy"), (20, 16 * K, "accuracy"), (24, 16 * K, "transformers"),
        (60, 32 * K, "accuracy"),
    ),
    OLMO: (
        (6.5, 2 * K, "accuracy"), (7, 4000, "accuracy"), (8, 3 * K, "latency"),
        (9, 4000, "accuracy"), (10, 2 * K, "latency"), (12, 4000, "accuracy"),
        (16, 3 * K, "accuracy"), (18, 4000, "accuracy"), (24, 4000, "transformers"),
        (70, 2 * K, "accuracy"),
    ),
    MOE: (
        (20, 4 * K, "accuracy"), (22, 16 * K, "latency"), (34, 8 * K, "accuracy"),
        (40, 16 * K, "accuracy"), (66, 2 * K, "accuracy"), (70, 24 * K, "accuracy"),
        (80, 16 * K, "latency"), (65, 8 * K, "accuracy"), (68, 32 * K, "accuracy"),
        (72, 16 * K, "transformers"),
    ),
    OSS: (
        (24, 4 * K, "accuracy"), (25, 12 * K, "accuracy"), (26, 16 * K, "latency"),
        (27, 24 * K, "accuracy"), (44, 8 * K, "accuracy"), (44, 2 * K, "latency"),
        (45, 32 * K, "accuracy"), (46, 131_072 - OUTPUT, "accuracy"), (60, 16 * K, "accuracy"),
        (80, 32 * K, "latency"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A question and its answer. `answer` is None where nothing fits: `reason` says it."""

    model: str
    budget: int
    context: int
    objective: str
    engine: Engine
    config: Configuration | None = None
    planned: dict[str, Any] | None = None
    """As report.document.point writes it."""
    next_up: dict[str, Any] | None = None
    """The smallest point beyond the budget that is worth it, likewise."""
    reason: str = ""

    @property
    def workload(self) -> Workload:
        return Workload(self.context, OUTPUT)

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        return self.model, self.engine.name, self.budget, self.context, self.objective

    def row(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "engine": self.engine.name, "config": str(self.config or "")}

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        config = Configuration.parse(row["config"]) if row["config"] else None
        return cls(**(row | {"engine": find_engine(row["engine"]), "config": config}))


@cache
def spec_of(model: str) -> ModelSpec:
    config = architecture(model)
    return load_model(model, offline=True) if config is None else read_model(config, model)


def cases(gpu: str, only: str = "") -> list[Case]:
    """All questions, answered for `gpu`, in processes beside each other."""
    asked = [
        (model, budget, context, kind, gpu)
        for model, questions in QUESTIONS.items()
        for budget, context, kind in questions
        if only.lower() in model.lower()
    ]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return list(pool.map(_answer, asked, chunksize=2))


def _answer(asked: tuple[str, float, int, str, str]) -> Case:
    model, size, context, kind, name = asked
    budget, gpu, spec = int(size * GB), find_gpu(name), spec_of(model)
    if kind == "transformers":
        return _baseline(Case(model, budget, context, "accuracy", TRANSFORMERS), spec, gpu)
    case = Case(model, budget, context, kind, KVPARETO)
    request = Request(spec, case.workload, case.engine, budget, gpu, objective=kind)
    try:
        plan = recommend(request)
    except NothingFits as error:
        return Case(*case.key[:1], budget, context, kind, case.engine, reason=error.message)
    best, up = plan.recommended, plan.next_up
    return Case(
        model, budget, context, kind, case.engine, best.config,
        point(best.config, best.memory, best.accuracy, best.latency),
        point(up.config, up.memory, up.accuracy, up.latency) if up else None,
    )  # fmt: skip


def _baseline(case: Case, spec: ModelSpec, gpu: Hardware) -> Case:
    """transformers at 16 bits, in the largest chunks that fit."""
    from kvpareto.planner.accuracy import predict as accuracy
    from kvpareto.planner.latency import predict as latency

    for chunk in BASELINE_CHUNKS:
        config = Configuration(chunk=chunk)
        estimate = memory.estimate(spec, config, case.workload, case.engine, gpu)
        if estimate.total_high <= case.budget:
            kept = accuracy.predict(spec, config, case.context)
            seconds = latency.predict(spec, config, case.workload, case.engine, gpu)
            planned = point(config, estimate, kept, seconds)
            return Case(
                case.model, case.budget, case.context, case.objective, case.engine, config, planned
            )
    return Case(
        case.model, case.budget, case.context, case.objective, case.engine,
        reason="transformers does not fit at 16 bits",
    )  # fmt: skip
