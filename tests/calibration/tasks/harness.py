"""The evaluation harness in tests: whether it is there, and tasks that need no network."""

from pathlib import Path

import pytest

from tests.support.data_files import DATA


def installed() -> bool:
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        return False
    return True


needs_harness = pytest.mark.skipif(
    not installed(), reason='lm_eval is not installed: pip install "kvpareto[harness]"'
)
# The harness and `datasets` leave files open and use what Python deprecates.
third_party = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def local_tasks(monkeypatch, tmp_path: Path) -> Path:
    """The task files, with `datasets` reading them from here and caching nowhere else."""
    import datasets.config

    monkeypatch.chdir(DATA / "lm_eval")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    return DATA / "lm_eval"
