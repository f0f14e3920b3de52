"""A calibration's choices with several runs under way at once.

The unquantized model comes first, alone, since everything is compared with it. Then every idle
worker gets the next configuration: an anchor, one that was begun, or the choice of the acquisition,
which takes runs that are under way for known, with nothing learned from them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...planner.formats.configuration import Configuration
from ...planner.models.spec import ModelSpec
from ..design.campaign import FIRST, NOT_KNOWN, CalibrationPlan, Campaign, Ending, RunTimes
from ..design.candidates import chunk_for
from ..design.next_run import Measurement
from ..measure.rows import RowMaker, RowSubject
from ..records.record_file import DIVERGENCE, LAYERS, Record, now, parse_record
from .worker import Job
from .workers import Event, Workers

ATTEMPTS = 2
"""Workers that may be lost over one configuration before it is taken to be what loses them."""
PROBE: Job = ("", ())


class WorkerLost(Exception):
    """A worker's process ended while it measured."""


@dataclass
class _UnderWay:
    configs: list[Configuration] = field(default_factory=list)
    lost: dict[Job, int] = field(default_factory=dict)
    again: list[Job] = field(default_factory=list)
    since: dict[Job, float] = field(default_factory=dict)
    measured: set[Job] = field(default_factory=set)
    """Jobs of which a row came: of the others all was there before."""


class ClusterCampaign(Campaign):
    """A Campaign whose runs are done by workers; rows are appended by this process alone."""

    def __init__(
        self,
        spec: ModelSpec,
        plan: CalibrationPlan,
        workers: Workers,
        rows: RowMaker,
        records: Sequence[Record],
        append: Callable[[Record], None],
        step: Callable[[int, Configuration], None],
        say: Callable[[str], None],
    ) -> None:
        super().__init__(spec, plan, None, records, step)  # type: ignore[arg-type]
        self._workers, self._rows, self._append, self._say = workers, rows, append, say
        self._way = _UnderWay()
        self._times = RunTimes(plan, self._clock)

    def run(self) -> Ending:
        """Give out configurations until the plan is spent, and take in every row of them."""
        times = self._times
        begun: list[Configuration] = []
        ending: Ending | None = None
        while ending is None or self._workers.busy or self._way.again:
            while self._may_give(begun) and (self._way.again or ending is None):
                if self._way.again:
                    self._workers.give(*self._with_rows(self._way.again.pop()))
                    continue
                if len(begun) >= self._plan.runs:
                    ending = self._ending(self._ran(len(begun)), len(begun))
                elif not times.allow(self._plan.contexts, fit=len(begun) >= FIRST):
                    ending = self._ending(self._spent(), len(begun))
                else:
                    config, error = self._next(begun)
                    if config is None:
                        ending = self._ended("the frontier is settled", len(begun), error or 0.0)
                        continue
                    self._step(len(begun), config)
                    begun.append(config)
                    self._way.configs.append(config)
                    job = self._job(config)
                    self._way.since[job] = self._clock()
                    self._workers.give(*self._with_rows(job))
            if self._workers.busy:
                for event in self._workers.events():
                    self._take(event)
            elif self._way.again or ending is None:
                self._workers.wait_for_one()
        return ending

    def _may_give(self, begun: Sequence[Configuration]) -> bool:
        """Whether a worker is idle and may have something; the first configuration is alone."""
        alone = len(begun) == FIRST and bool(self._workers.busy or self._way.again)
        return self._workers.idle > 0 and (not alone or bool(self._way.again))

    def _next(self, begun: Sequence[Configuration]) -> tuple[Configuration | None, float | None]:
        config = next((c for c in self._certain() if c not in begun), None)
        return (config, None) if config is not None else self._choose(len(begun))

    def _tried(self) -> dict[int, Measurement]:
        """With what is under way as tried, and nothing known of it."""
        busy = {
            self._index[config]: Measurement(0.5, NOT_KNOWN)
            for config in self._way.configs
            if config in self._index
        }
        return busy | super()._tried()

    def _job(self, config: Configuration) -> Job:
        contexts = self._plan.contexts
        return str(config), tuple((str(config.with_chunk(chunk_for(c))), c) for c in contexts)

    def _with_rows(self, job: Job) -> tuple[Job, list[str]]:
        """A job with the rows that its measuring looks at: its own, and the unquantized ones."""
        configs = {config for config, _ in job[1]}
        whole = {str(Configuration().with_chunk(chunk_for(c))) for c in self._plan.contexts}
        known = [r for r in self._records if r.config in configs | whole and r.task != LAYERS]
        return job, [record.model_dump_json(by_alias=True) for record in known]

    def _take(self, event: Event) -> None:
        if event.kind == "row":
            self._way.measured.add(event.job)
            self._append(parse_record(event.row, "a worker's row"))
            return
        if event.kind == "lost":
            self._way.lost[event.job] = self._way.lost.get(event.job, 0) + 1
            self._say(f"a worker was lost ({event.reason}) at {event.job[0]}; its row is lost")
            if self._way.lost[event.job] < ATTEMPTS:
                self._way.again.append(event.job)
                return
            self._append(self._failure(event))
        took = self._clock() - self._way.since.get(event.job, self._clock())
        for _, context in event.job[1] if event.job in self._way.measured else ():
            self._times.add(context, took / len(event.job[1]))
        self._way.configs = [c for c in self._way.configs if str(c) != event.job[0]]

    def _failure(self, event: Event) -> Record:
        """The row at which the last worker was lost: the first that is not there."""
        done = {(r.config, r.context, r.task) for r in self._records}
        contexts = [c for c in event.job[1] if (*c, DIVERGENCE) not in done]
        config, context = contexts[0] if contexts else event.job[1][-1]
        tasks = sorted({r.task for r in self._records if r.task not in (DIVERGENCE, LAYERS)})
        left = [DIVERGENCE, *tasks]
        task = next((t for t in left if (config, context, t) not in done), DIVERGENCE)
        at = RowSubject(Configuration.parse(config), context, task, now())
        lost = self._way.lost[event.job]
        return self._rows.failure(at, WorkerLost(f"{lost} workers were lost at it"))
