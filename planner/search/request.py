"""A request to the planner: model, workload, engine, budget and limits."""

from ..accuracy.task_kinds import REPORTED_KINDS, TASKS
from ..engine import Engine
from ..errors import BadInput
from ..hardware.gpus import Hardware
from ..light_dataclass import dataclass
from ..models.spec import ModelSpec
from ..placement import Machine
from ..serving import Parallel
from ..workload import Workload

OBJECTIVES = ("accuracy", "latency", "memory")
SAFE_LOSS = 0.10
"""What may be recommended keeps at least the rest of the score, at its interval's lower end."""


MOST_USERS = 65536
"""Users at once of one server: each is a TCP connection, and steps are simulated user by user."""


def check_workload(workload: Workload, engine: Engine) -> None:
    """Raise BadInput for what an engine has not: several lengths, logits of a whole prompt, more
    users than a server takes."""
    if engine.serves and workload.batch > MOST_USERS:
        raise BadInput(
            f"{workload.batch:,} users at once are more than {engine.name} is planned for",
            f"at most {MOST_USERS:,}: give the part that one server takes",
        )
    if workload.full_logits and engine.places:
        raise BadInput(
            f"--full-logits: {engine.name} is planned with logits of the last token alone",
            "leave it out, or --engine kvpareto or transformers",
        )
    if workload.lengths and not engine.serves:
        raise BadInput(
            f"{engine.name} plans for one length, and --context gives {len(workload.lengths)}",
            f"--context {workload.context}, the longest; or --engine vllm",
        )


@dataclass(frozen=True)
class Request:
    """A model, a workload, an engine and a `budget` in bytes; `max_loss` as a fraction of the
    unquantized score, held by the lower end of predicted retention. Raises BadInput for an unknown
    objective or task.

    `task`: the kind of task whose retention counts; None: the weakest generated kind.
    `reserve`: bytes of the GPU's memory that are not in the budget; None where it was typed.
    `accept_risk`: a loss need not be held by the lower end, the prediction is enough, and without
    `max_loss` any usable configuration is.
    """

    spec: ModelSpec
    workload: Workload
    engine: Engine
    budget: int
    hardware: Hardware | None = None
    max_loss: float | None = None
    objective: str = "accuracy"
    reserve: int | None = None
    task: str | None = None
    accept_risk: bool = False
    ram: int | None = None
    """Bytes of host memory that may hold a part of the model; None: nobody said."""
    host_only: bool = False
    """There is no device: `budget` is of host memory."""
    gpus: tuple[Hardware, ...] = ()
    """Every card, where there are several: `hardware` is the first, `budget` of all together."""
    parallel: Parallel | None = None
    """How cards share the model; None: as the engine does best."""
    ttft: float | None = None
    """Seconds within which the first token must come, and each further one."""
    tpot: float | None = None
    budget_typed: bool = True
    """False where there is no device, and the budget is what --ram said."""
    at_once: str = "batch"
    """The option that said how many sequences run at once: batch or users. Hints name it again."""

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise BadInput(
                f"unknown objective: {self.objective!r}", f"choose {', '.join(OBJECTIVES)}"
            )
        if self.task is not None and self.task not in REPORTED_KINDS:
            raise BadInput(f"unknown kind of task: {self.task!r}", f"choose {', '.join(TASKS)}")
        check_workload(self.workload, self.engine)
        if self.budget < 1:
            raise BadInput(
                f"a budget of {self.budget} bytes holds nothing", "say how much there is"
            )

    @property
    def machine(self) -> Machine:
        """Where the engine may put the model; a budget of several cards is shared by their size."""
        if self.host_only:
            return Machine((), (), self.budget)
        gpus = self.gpus or ((self.hardware,) if self.hardware is not None else ())
        if len(gpus) < 2:
            return Machine(gpus, (self.budget,), self.ram, self.parallel)
        desktops = sum(gpu.consumer for gpu in gpus)
        kept = (self.reserve or 0) // (desktops or len(gpus))
        sizes = [max(1, gpu.memory_bytes - kept * (gpu.consumer or not desktops)) for gpu in gpus]
        shares = tuple(self.budget * size // sum(sizes) for size in sizes)
        return Machine(gpus, shares, self.ram, self.parallel)

    @property
    def accepted_loss(self) -> float | None:
        """The largest loss accepted; None where every usable configuration is."""
        if self.max_loss is None:
            return None if self.accept_risk else SAFE_LOSS
        return self.max_loss
