"""What tests of several rooms of the calibration ask for."""

import pytest

from kvpareto.calibration.fit import profile


@pytest.fixture
def few_published_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile is fitted beside every eighth published row: for tests that ask what becomes of the
    model's own rows, not what a fit is worth. A fit beside all of them takes seconds."""
    whole = profile.read_rows
    monkeypatch.setattr(profile, "read_rows", lambda path: whole(path)[::8])
