"""A cluster's workers as the one writer of rows sees them.

`Workers.events()` gives rows as they come, jobs that are done, and jobs whose worker was lost: its
process or its machine is gone, and with it the row it was at. Another worker takes its place, and
the job is given out again, rows that are there being left out.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...planner.errors import KVParetoError
from ...planner.libraries import importing
from .worker import CardWorker, Job

ANSWER_S = 600.0
"""Seconds within which one worker at least has its model loaded."""
POLL_S = 1.0
"""Longest wait for a row before workers are looked for that came or were lost."""


class NoWorkers(KVParetoError):
    """No worker is left, and none comes (exit code 1)."""

    exit_code = 1


@dataclass(frozen=True)
class Event:
    """`row`: JSON of one. `done`, `lost`: a job's end."""

    kind: Literal["row", "done", "lost"]
    job: Job
    row: str = ""
    reason: str = ""


def connect(address: str) -> dict[str, float]:
    """Join a cluster ("local": one of this machine alone); what it has, by Ray's names.

    Raises MissingDependency without Ray, KVParetoError where there is no cluster.
    """
    with importing("calibrate --ray", "ray"):
        import ray
    try:
        if not ray.is_initialized():
            ray.init(
                address=None if address == "local" else address,
                include_dashboard=False if address == "local" else None,
                log_to_driver=False,
                logging_level="error",
            )
        found: dict[str, float] = ray.cluster_resources()
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise NoWorkers(
            f"no Ray cluster at {address}: {error}", "start one (ray start --head), or --ray local"
        ) from None
    return found


class Workers:
    """`count` actors, one for each card (or processor where `gpus` is 0)."""

    def __init__(self, make: Callable[[], Any], count: int) -> None:
        """`make` starts an actor of CardWorker."""
        self._make = make
        self._starting = {self._start(): None for _ in range(count)}
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, Job]] = {}
        self._heard = time.monotonic()
        self.environment = ""
        """Where the first worker is that answered, JSON of an Environment."""

    @classmethod
    def of(cls, count: int, gpu: bool, *args: Any) -> "Workers":
        """Actors of CardWorker(*args)."""
        import ray

        kind = ray.remote(num_gpus=1 if gpu else 0, num_cpus=1)(CardWorker)
        return cls(lambda: kind.remote(*args), count)

    def _start(self) -> tuple[Any, Any]:
        """An actor that is on its way, and what answers when its model is loaded."""
        actor = self._make()
        return actor.environment.remote(), actor

    @property
    def idle(self) -> int:
        """Workers that wait for a job."""
        return len(self._idle)

    @property
    def busy(self) -> int:
        return len(self._running)

    def wait_for_one(self) -> None:
        """Until a worker is idle. Raises NoWorkers."""
        while not self._idle:
            self._admit(POLL_S)

    def give(self, job: Job, known: Sequence[str], probe: bool = False) -> None:
        """Have an idle worker do it; the layers' probe, if `probe`."""
        actor = self._idle.pop()
        stream = actor.probe.remote() if probe else actor.rows.remote(job, list(known))
        self._running[stream] = actor, job

    def events(self) -> Iterator[Event]:
        """What happens until a job ends or is lost, or a worker came. Raises what a job raises."""
        import ray

        while self._running:
            if self._admit(0.0):
                return
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=POLL_S)
            for stream in ready:
                actor, job = self._running[stream]
                self._heard = time.monotonic()
                try:
                    row = ray.get(next(stream))
                except StopIteration:
                    del self._running[stream]
                    self._idle.append(actor)
                    yield Event("done", job)
                    return
                except ray.exceptions.RayTaskError as error:
                    del self._running[stream]
                    self._idle.append(actor)
                    cause = error.cause if isinstance(error.cause, Exception) else error
                    raise cause from None
                except ray.exceptions.RayError as error:
                    del self._running[stream]
                    self._starting[self._start()] = None
                    yield Event("lost", job, reason=type(error).__name__)
                    return
                yield Event("row", job, row)

    def _admit(self, patience: float) -> bool:
        """Take in workers whose models are loaded; whether there was one."""
        import ray

        before = len(self._idle)
        refs = {ref: (ref, actor) for ref, actor in self._starting}
        if refs:
            ready, _ = ray.wait(list(refs), num_returns=1, timeout=patience)
            for ref in ready:
                del self._starting[refs[ref]]
                try:
                    self.environment = self.environment or ray.get(ref)
                except ray.exceptions.RayTaskError as error:
                    raise (error.cause or error) from None
                except ray.exceptions.RayError:  # it died while loading: another comes
                    self._starting[self._start()] = None
                    continue
                self._idle.append(refs[ref][1])
                self._heard = time.monotonic()
        if not (self._idle or self._running) and time.monotonic() - self._heard > ANSWER_S:
            raise NoWorkers(
                "no worker of the cluster answers", "see `ray status`; --resume goes on"
            )
        return len(self._idle) > before

    def close(self) -> None:
        """Let go of every worker."""
        import ray

        actors = [a for _, a in self._starting] + self._idle
        actors += [actor for actor, _ in self._running.values()]
        for actor in actors:
            ray.kill(actor)
