"""What a calibration is asked for: defaults, terms of a resumed one, what fits a time."""

import json
from pathlib import Path

import pytest

from kvpareto.calibration.design.options import (
    ASKED,
    CalibrationSettings,
    default_contexts,
    settle,
)
from kvpareto.calibration.design.time_estimate import ConfigurationTime, TimeEstimate
from kvpareto.calibration.fit.collapse import broken_configurations
from kvpareto.calibration.records.record_file import Record
from kvpareto.planner.accuracy.measured_configs import MeasuredConfigurations
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from tests.calibration.design.typed_options import NOTHING, begun, options
from tests.support.fake_bench import LLAMA
from tests.support.record_writer import row


def test_the_defaults_are_two_contexts_that_the_device_can_bear() -> None:
    from dataclasses import replace

    assert settle(NOTHING, LLAMA, "cuda", None).contexts == (4096, 16384)
    assert settle(NOTHING, LLAMA, "cpu", None).contexts == (512, 1024)
    short = replace(LLAMA, max_context=8192)
    assert default_contexts(short, "cuda") == (2048, 8192)
    assert default_contexts(replace(LLAMA, max_context=400), "cpu") == (400,)


def test_a_resumed_calibration_has_the_terms_it_was_begun_with(tmp_path: Path) -> None:
    before = begun(contexts=(1000,), items=5, tasks="needle", seed=3, runs=9)
    (tmp_path / ASKED).write_text(before.to_text())
    assert CalibrationSettings.read(tmp_path) == before
    assert settle(NOTHING, LLAMA, "cuda", before) == before
    more = settle(options(runs=40, context="2k, 1000"), LLAMA, "cuda", before)
    assert (more.runs, more.contexts, more.items) == (40, (1000, 2048), 5)
    assert CalibrationSettings.read(tmp_path / "none") is None
    (tmp_path / ASKED).write_text(json.dumps({"runs": 3}))
    assert CalibrationSettings.read(tmp_path) is None


def test_rows_that_cannot_be_compared_are_not_mixed(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("One sentence. Another one.")
    before = settle(options(haystack=text), LLAMA, "cuda", None)
    for typed, named in (({"items": 7}, "--items"), ({"text": text}, "--text")):
        with pytest.raises(BadInput, match=f"another {named}"):
            settle(options(**typed), LLAMA, "cuda", before)
        assert settle(options(seed=1, **typed), LLAMA, "cuda", before).seed == 1
    text.write_text("Another text. It is longer.")
    with pytest.raises(BadInput, match="another --haystack"):
        settle(NOTHING, LLAMA, "cuda", before)
    text.unlink()
    with pytest.raises(BadInput, match="cannot read"):
        settle(NOTHING, LLAMA, "cuda", before)


@pytest.mark.parametrize(
    ("minutes", "free", "items", "contexts"),
    [
        (100.0, (True, True), 32, (512, 1024)),
        (4.0, (True, True), 16, (512, 1024)),
        (2.0, (True, True), 8, (512, 1024)),
        (1.5, (True, True), 16, (512,)),
        (1.0, (True, True), 8, (512,)),
        (0.01, (True, True), 8, (512,)),
        (0.01, (True, False), 8, (512, 1024)),
        (0.01, (False, True), 32, (512,)),
        (0.01, (False, False), 32, (512, 1024)),
    ],
)
def test_what_is_left_open_is_made_to_fit_the_minutes(
    minutes: float, free: tuple[bool, bool], items: int, contexts: tuple[int, ...]
) -> None:
    # 32 items: 1 + 16 and 2 + 32 s; 16: 9 and 18; 8: 5 and 10; eight configurations are to fit
    forecast = TimeEstimate(
        {512: ConfigurationTime(1.0, 0.5, 4), 1024: ConfigurationTime(2.0, 1.0, 4)}
    )
    assert forecast.seconds(32, (512, 1024)) == 51.0
    asked = begun(contexts=(512, 1024), items=32)
    found = forecast.fit(asked, minutes, items=free[0], contexts=free[1])
    assert (found.items, found.contexts) == (items, contexts)


def kept(config: str, context: int, retention: float, task: str = "needle") -> Record:
    return row(0, config=config, context=context, retention=retention, task=task)


def test_a_configuration_breaks_where_it_keeps_less_than_half_from_there_on() -> None:
    records = [
        *(kept("w16a16-k4v4", c, r) for c, r in ((1000, 0.9), (2000, 0.4), (4000, 0.1))),
        *(kept("w16a16-k4v4-g64", c, r) for c, r in ((1000, 0.3), (2000, 0.8))),
        *(kept("w16a16-k8v8", c, 0.9) for c in (1000, 4000)),
        # two tasks, one of them lost: their mean counts, and the divergence does not
        kept("w16a16-k4v2", 1000, 0.8),
        kept("w16a16-k4v2", 1000, 0.1, "variables"),
        kept("w16a16-k4v2", 1000, 1.0, "divergence"),
        # no task was run, the text is lost
        kept("w16a16-k2v2", 1000, 0.2, "divergence"),
        kept("w16a16-k16v16", 4000, 0.0),
    ]
    assert broken_configurations(records) == [
        {"config": "w16a16-k4v4", "context": 2000},
        {"config": "w16a16-k4v2", "context": 1000},
        {"config": "w16a16-k2v2", "context": 1000},
    ]


def test_what_broke_is_broken_beyond_and_so_is_what_has_fewer_bits() -> None:
    entries = [
        {"config": "w16a16-k4v4-g64", "context": c, "kinds": {"retrieval": [r, 0.01]}}
        for c, r in ((1000, 0.9), (2000, 0.3))
    ]
    known = MeasuredConfigurations(entries, [{"config": "w16a16-k4v4-g64", "context": 2000}])
    config = Configuration.parse("w16a16-k4v4-g64+pc256")
    assert known.of(config, 1000)["retrieval"].retention == 0.9
    assert known.of(config, 9000)["retrieval"].retention == 0.3
    assert known.of(Configuration.parse("w16a16-k8v8"), 9000) == {}
    run = Configuration.parse("w16a16-k4v4-g64")
    assert known.broken(config, 1999) is None
    assert known.broken(config, 2000) == (run, 2000)
    for text, found in (
        ("w4a16-k4v2-g64", True),
        ("w16a16-k8v4-g64", False),
        ("w4a16-k4v4", False),
    ):
        assert (known.broken(Configuration.parse(text), 5000) == (run, 2000)) is found
