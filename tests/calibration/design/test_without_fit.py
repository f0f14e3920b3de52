"""A calibration that leaves nothing to plan with fails, and says what would give a fit."""

from dataclasses import replace
from pathlib import Path

import pytest

from kvpareto.calibration.design.without_fit import Ended, EveryRunFailed, NoFit, check_fitted
from kvpareto.calibration.records.record_file import LAYERS, Record
from tests.support.record_writer import row

AT = row(0).context
ENDED = Ended("no other run ends within 1 minute", 16, (AT,), 50.0, 30.0, 20.0)
WHOLE, PACKED = "w16a16-k16v16", "w16a16-k4v4"


def took(seconds: int, **fields: object) -> Record:
    """A row of the unquantized model that took so long."""
    times = {
        "started": "2026-11-29T06:00:00+00:00",
        "ended": f"2026-11-29T06:00:{seconds:02}+00:00",
    }
    return row(0, config=WHOLE).model_copy(update={**times, **fields})


def test_a_calibration_in_which_every_run_failed_is_none(tmp_path: Path) -> None:
    failed = row(0, outcome="crashed", reason="no driver")
    check_fitted(tmp_path, [failed, row(1)], True, ENDED)
    with pytest.raises(EveryRunFailed, match="all 2 runs failed, the last with no driver") as found:
        check_fitted(tmp_path, [row(0, task=LAYERS, items=()), failed, failed], False, ENDED)
    assert found.value.exit_code == 1


def test_time_for_the_unquantized_model_alone_is_no_calibration(tmp_path: Path) -> None:
    rows = [row(0, task=LAYERS, items=()), took(4), took(6, task="needle")]
    with pytest.raises(
        NoFit, match="no other run ends within 1 minute: no quantized configuration"
    ) as found:
        check_fitted(tmp_path, rows, False, ENDED)
    assert found.value.exit_code == 1
    # 40 s before the runs, 20 s for the fit: and one or 16 of 30 s, though the first took 10 s
    assert "one configuration takes about 30 s here: --resume --minutes 2.1 is" in found.value.hint
    assert "--minutes 9 for 16" in found.value.hint
    both = replace(ENDED, contexts=(AT, 2 * AT))
    with pytest.raises(NoFit) as found:  # the unquantized model is not there in full
        check_fitted(tmp_path, rows, False, both)
    assert "--minutes 2.8 is enough for a fit" in found.value.hint
    slow = [took(50)]
    with pytest.raises(NoFit) as found:
        check_fitted(tmp_path, slow, False, ENDED)
    assert "takes about 50 s here: --resume --minutes 1.7 is enough" in found.value.hint
    with pytest.raises(NoFit, match="no quantized") as found:
        check_fitted(tmp_path, rows, False, replace(ENDED, runs=1))
    assert "--resume --runs 16" in found.value.hint
    with pytest.raises(NoFit, match="no quantized") as found:  # two runs may be a fit: in more time
        check_fitted(tmp_path, rows, False, replace(ENDED, runs=2))
    assert "--resume --minutes 2.1 is" in found.value.hint


def test_no_time_for_one_run_is_said_by_the_forecast(tmp_path: Path) -> None:
    with pytest.raises(
        NoFit, match="no other run ends within 1 minute: no quantized configuration"
    ) as found:
        check_fitted(tmp_path, [row(0, task=LAYERS, items=())], False, ENDED)
    # 50 s until then, 20 s for the fit, and 2 or 16 times 30 s
    assert "30 s here: --resume --minutes 3.1 is enough for a fit, --min" in found.value.hint
    assert "--minutes 10 for 16" in found.value.hint


def test_quantized_runs_that_all_failed_say_why(tmp_path: Path) -> None:
    failed = row(0, config=PACKED, outcome="crashed", reason="no kernel")
    with pytest.raises(NoFit, match="all 1 failed, the last with no kernel") as found:
        check_fitted(tmp_path, [took(4), failed], False, ENDED)
    assert str(tmp_path) in found.value.hint
