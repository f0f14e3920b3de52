"""A promise as a CPU can keep it: of tensors alone.

A plan's overhead is of a GPU: the driver's context, library workspaces, blocks that torch's
allocator holds free. A CPU has none of them, and its total is that of weights, cache and
activations.
"""

from ...planner.engine import Engine
from ...planner.formats.configuration import Configuration
from ...planner.memory.estimate import MODEL_ERROR
from ...planner.memory.overhead import workspace
from ...planner.models.spec import ModelSpec
from ...report.saved_plan import Planned


def on_cpu(planned: Planned) -> Planned:
    """The same promise without what only a GPU holds."""
    memory = planned.memory
    tensors = memory.weights + memory.kv + memory.activation
    error = int(MODEL_ERROR * memory.activation)
    sizes = {
        "overhead": 0,
        "total": tensors,
        "total_low": tensors - error,
        "total_high": tensors + error,
    }
    return planned.model_copy(update={"memory": memory.model_copy(update=sizes)})


def gpu_only_bytes(spec: ModelSpec, engine: Engine) -> int:
    """What every plan for a GPU that nobody named keeps free, at most: a CPU's budget reaches that
    much further. Slack that grows with activations is left in, on the safe side."""
    fixed = int(engine.slack(Configuration(), None).fixed[2])
    return engine.context(None).high + workspace(spec, None) + fixed
