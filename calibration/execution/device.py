"""Which of this machine's devices a command runs on, and what is too much for it.

Calibrating and verifying ask the same questions of `--device` and of a model's size, and answer
in the same words. torch is imported when it is asked.
"""

from ...planner.errors import BadInput, MissingDependency
from ...planner.memory.run_dtype import in_dtype
from ...planner.models.spec import ModelSpec

MOST_ON_CPU = 1_000_000_000
"""Parameters beyond which a CPU needs hours for what a GPU does in minutes."""


def check_name(asked: str | None) -> None:
    """Raise BadInput for what is no device; None leaves the choice open."""
    if asked not in (None, "cpu", "cuda"):
        raise BadInput(f"no device is called {asked!r}", "devices are cpu and cuda")


def choose(asked: str | None) -> str:
    """cpu or cuda. Raises MissingDependency where the GPU that was asked for is not there."""
    import torch

    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise MissingDependency(
            "no CUDA GPU is available to torch", "use --device cpu, or install torch with CUDA"
        )
    return asked or ("cuda" if has_gpu else "cpu")


def check_size(spec: ModelSpec, device: str, what: str, hint: str) -> None:
    """Raise MissingDependency for a model that a CPU is too slow for; `what` would take so long."""
    if device == "cpu" and spec.parameters > MOST_ON_CPU:
        raise MissingDependency(
            f"{spec.name} has {spec.parameters / 1e9:.1f} billion parameters, too many to "
            f"{what} on a CPU",
            hint,
        )


def as_loaded(spec: ModelSpec, device: str) -> ModelSpec:
    """`spec` in the dtype that `runtime.load` chooses for it on `device`."""
    if device == "cpu":
        return spec
    import torch

    from ...runtime.load_weights import dtype_on

    return in_dtype(spec, dtype_on(torch.device(device), spec.dtype))
