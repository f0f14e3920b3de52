"""A calibration over workers: stand-ins in this process, and Ray's, which are killed."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kvpareto.calibration.cluster.campaign import ClusterCampaign
from kvpareto.calibration.cluster.worker import CardWorker, Job
from kvpareto.calibration.cluster.workers import Event, Workers, connect
from kvpareto.calibration.design.campaign import CalibrationPlan, Ending
from kvpareto.calibration.measure.rows import ProfileIdentity, RowMaker
from kvpareto.calibration.measure.runner import ConfigurationRunner
from kvpareto.calibration.records.record_file import DIVERGENCE, Record, parse_record
from kvpareto.planner.accuracy import calibrations
from kvpareto.planner.formats.configuration import Configuration
from tests.support.fake_bench import ITEMS, LLAMA, MadeUpModel, MadeUpTrial
from tests.support.record_writer import ENVIRONMENT

IDENTITY = LLAMA.name, calibrations.fingerprint(LLAMA), 0


class Here:
    """Workers in this process, a job at a time; `lose` says before which row of it one is lost."""

    environment = ENVIRONMENT.model_dump_json()

    def __init__(self, count: int, lose: Callable[[Job, int], bool] = lambda job, row: False):
        self.idle, self._lose = count, lose
        self._waiting: list[tuple[Job, Sequence[str]]] = []
        self.most = 0

    @property
    def busy(self) -> int:
        return len(self._waiting)

    def wait_for_one(self) -> None:
        assert self.idle

    def give(self, job: Job, known: Sequence[str], probe: bool = False) -> None:
        self.idle -= 1
        self._waiting.append((job, known))
        self.most = max(self.most, self.busy)

    def events(self) -> Iterator[Event]:
        job, known = self._waiting.pop(0)
        self.idle += 1
        worker = CardWorker(MadeUpModel, *IDENTITY, ITEMS, "cpu")
        for number, row in enumerate(worker.rows(job, known)):
            if self._lose(job, number):
                yield Event("lost", job, reason="ActorDiedError")
                return
            yield Event("row", job, row)
        yield Event("done", job)


def _run(workers: Any, records: list[Record], runs: int = 8) -> tuple[Ending, list[str]]:
    said: list[str] = []
    plan = CalibrationPlan((2048, 8192), (16,), runs, None, 0.0, 0)
    rows = RowMaker(ProfileIdentity(*IDENTITY, ENVIRONMENT), {})
    campaign = ClusterCampaign(
        LLAMA, plan, workers, rows, records, records.append, lambda n, c: None, said.append
    )
    return campaign.run(), said


def _configurations(records: Sequence[Record]) -> set[str]:
    return {r.config for r in records if r.context == 8192}


def test_every_row_is_there_once_and_the_unquantized_model_is_first() -> None:
    records: list[Record] = []
    workers = Here(3)
    ending, _ = _run(workers, records)
    assert ending.configurations == 8
    assert len(_configurations(records)) == 8
    assert workers.most == 3
    assert len({r.key for r in records}) == len(records)
    first = next(Configuration.parse(r.config) for r in records if r.context == 2048)
    assert (first.k_bits, first.v_bits) == (16, 16)
    short = {Configuration.parse(r.config).with_chunk(None) for r in records if r.context == 2048}
    long = {Configuration.parse(r.config).with_chunk(None) for r in records if r.context == 8192}
    assert short == long
    assert len([r for r in records if r.task == DIVERGENCE]) == 2 * 8


def test_a_lost_worker_costs_its_row_only() -> None:
    lost: list[Job] = []

    def lose(job: Job, number: int) -> bool:
        if job not in lost and len(lost) < 3 and number == 1:
            lost.append(job)
            return True
        return False

    whole: list[Record] = []
    _run(Here(2), whole)
    records: list[Record] = []
    _, said = _run(Here(2, lose), records)
    assert len(lost) == 3
    assert sum("a worker was lost" in text for text in said) == 3
    assert all(record.outcome == "ok" for record in records)
    assert {r.key for r in records} == {r.key for r in whole}


def test_what_loses_every_worker_is_a_row_and_the_rest_goes_on() -> None:
    bad: list[Job] = []

    def lose(job: Job, number: int) -> bool:
        if not bad and Configuration.parse(job[0]).k_bits < 16:
            bad.append(job)
        return job in bad and number == 1

    records: list[Record] = []
    ending, _ = _run(Here(2, lose), records)
    crashed = [r for r in records if r.outcome == "crashed"]
    assert len(crashed) == 1
    assert "2 workers were lost" in (crashed[0].reason or "")
    assert crashed[0].config in {config for config, _ in bad[0][1]}
    assert ending.configurations == 8


def test_rows_that_are_there_are_not_measured_again() -> None:
    records: list[Record] = []
    _run(Here(2), records, runs=4)
    before = list(records)
    _run(Here(2), records, runs=6)
    assert records[: len(before)] == before
    assert len({r.key for r in records}) == len(records)
    assert len(_configurations(records)) == 6


class _Dies(MadeUpModel):
    """Kills its own process at the first two configurations of 4 bits and fewer, each once."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = Path(folder)

    @contextmanager
    def open(self, config: Configuration, context: int) -> Iterator[MadeUpTrial]:
        marks = list(self._folder.iterdir())
        mark = self._folder / str(config).replace("/", "_")
        if config.k_bits <= 4 and len(marks) < 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        with super().open(config, context) as trial:
            yield trial


@pytest.mark.filterwarnings("ignore")
def test_ray_with_workers_that_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two actors, two of them killed by the system: nothing but rows under way is lost."""
    ray = pytest.importorskip("ray", reason="pip install kvpareto[ray]")
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    folder = tmp_path / "marks"
    folder.mkdir()
    place = str(folder)
    connect("local")
    try:
        workers = Workers.of(2, False, lambda: _Dies(place), *IDENTITY, ITEMS, "cpu")
        workers.wait_for_one()
        records: list[Record] = []
        ending, said = _run(workers, records)
        workers.close()
    finally:
        ray.shutdown()
    assert len(list(folder.iterdir())) == 2
    assert sum("a worker was lost" in text for text in said) == 2
    assert ending.configurations == 8
    assert all(record.outcome == "ok" for record in records)
    assert len(_configurations(records)) == 8
    assert len({r.key for r in records}) == len(records)


def test_without_ray_exit_3_and_the_line_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    from kvpareto.cli import run

    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(["calibrate", "--ray", "local"]) == 3
    said = capsys.readouterr().err
    assert "needs ray" in said
    assert "[ray]" in said


@pytest.mark.parametrize("where", ["__init__", "run"])
def test_an_error_of_a_worker_is_raised_wherever_it_is_made(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are asked for in a thread: with an error that is lost they would be waited for."""

    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("the runner is broken")

    monkeypatch.setattr(ConfigurationRunner, where, broken)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    worker = CardWorker(MadeUpModel, *IDENTITY, ITEMS, "cpu")
    job: Job = ("w16a16-k16v16", (("w16a16-k16v16+pc512", 2048),))
    raised: list[str] = []

    def ask() -> None:
        with pytest.raises(ValueError, match="is broken") as caught:
            list(worker.rows(job, []))
        raised.append(str(caught.value))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout=20)
    assert raised == ["the runner is broken"]


def test_a_row_of_a_worker_is_a_row_of_the_file() -> None:
    worker = CardWorker(MadeUpModel, *IDENTITY, ITEMS, "cpu")
    job: Job = ("w16a16-k16v16", (("w16a16-k16v16+pc512", 2048),))
    rows = [parse_record(row, "here") for row in worker.rows(job, [])]
    assert rows[0].task == DIVERGENCE
    assert {r.context for r in rows} == {2048}
    again = list(worker.rows(job, [row.model_dump_json(by_alias=True) for row in rows]))
    assert again == []
