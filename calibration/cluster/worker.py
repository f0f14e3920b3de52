"""One card's part of a calibration: configurations measured, each row handed on when it is known.

A CardWorker is the body of a Ray actor, and an ordinary object where there is no Ray. It imports
torch when it is made, on its own node.
"""

from collections.abc import Callable, Iterator, Sequence
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..measure.prompts import PromptTexts
    from ..measure.runner import LoadsModel

Job = tuple[str, tuple[tuple[str, int], ...]]
"""A configuration's name, and what is run of it: the configuration of each context."""


class CardWorker:
    """`make_bench` loads the model; `identity` is what rows say alike but for where they ran."""

    def __init__(
        self,
        make_bench: "Callable[[], LoadsModel]",
        model: str,
        fingerprint: str,
        seed: int,
        items: int,
        device: str,
    ) -> None:
        from ..measure.rows import ProfileIdentity
        from ..records.environment import environment

        self._bench = make_bench()
        self._items = items
        self._identity = ProfileIdentity(model, fingerprint, seed, environment(device))

    def environment(self) -> str:
        """Where this worker is, as JSON of an Environment; answered once the model is loaded."""
        return self._identity.environment.model_dump_json()

    def probe(self) -> Iterator[str]:
        """The row of the layers' probe."""
        yield from self._rows([], lambda runner: runner.probe())

    def rows(self, job: Job, known: Sequence[str]) -> Iterator[str]:
        """Rows of a job, as JSON, each when it is known; `known` are those that are there."""
        from ...planner.formats.configuration import Configuration

        def measure(runner: Any) -> None:
            for config, context in job[1]:
                runner.run(Configuration.parse(config), context)

        yield from self._rows(known, measure)

    def _rows(self, known: Sequence[str], measure: Callable[[Any], Any]) -> Iterator[str]:
        """What `measure` appends, while it goes on in a thread. Raises what it raises."""
        from ..measure.runner import ConfigurationRunner
        from ..records.record_file import Record, parse_record

        records = [parse_record(line, "a row of the calibration") for line in known]
        made: Queue[Record | BaseException | None] = Queue()

        def append(record: Record) -> None:
            records.append(record)
            made.put(record)

        def run() -> None:
            try:
                runner = ConfigurationRunner(
                    self._bench,
                    self._identity,
                    records,
                    append,
                    items=self._items,
                    notice=lambda text: None,
                )
                measure(runner)
            except BaseException as error:
                made.put(error)
            else:
                made.put(None)

        Thread(target=run, daemon=True).start()
        while (row := made.get()) is not None:
            if isinstance(row, BaseException):
                raise row
            yield row.model_dump_json(by_alias=True)


def bench_maker(
    source: str,
    material: "PromptTexts",
    device: str,
    offline: bool,
    trusted: bool,
) -> "Callable[[], LoadsModel]":
    """What makes a worker's bench, on its own node."""

    def make() -> "LoadsModel":
        from ...planner.load_model import load_model
        from ..execution.device import as_loaded
        from ..measure.bench import Bench

        spec = as_loaded(load_model(source, offline=offline), device)
        bench = Bench(
            source, spec, material, device=device, offline=offline, trust_remote_code=trusted
        )
        bench.load()
        return bench

    return make
