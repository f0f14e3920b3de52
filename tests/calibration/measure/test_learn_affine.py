"""`calibrate --affine`: maps of the included model, put beside its calibration."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from kvpareto.calibration.design.options import DEFAULT_MODEL, CalibrationOptions
from kvpareto.calibration.measure.bench import Bench
from kvpareto.calibration.measure.prompts import PromptTexts
from kvpareto.planner.accuracy.calibrations import AFFINE
from kvpareto.planner.errors import BadInput
from kvpareto.planner.load_model import load_model


def test_the_bench_learns_them_from_prose_that_is_in_no_prompt(tmp_path: Path) -> None:
    spec = load_model(DEFAULT_MODEL, offline=True)
    bench = Bench(DEFAULT_MODEL, spec, PromptTexts((512,), (), 1, 0), device="cpu", offline=True)
    try:
        said = bench.learn_affine(tmp_path)
    finally:
        bench.close()
    assert said.startswith(f"affine maps of {len(spec.layers)} layers, from ")
    maps = load_file(tmp_path / AFFINE)
    assert len(maps) == 2 * len(spec.layers)
    for each in maps.values():
        _, rows, dim = each.shape
        assert rows == 2 * dim + 1
        assert bool(each.isfinite().all())
    assert not list(tmp_path.glob("*.new"))


def test_a_cluster_learns_no_maps() -> None:
    with pytest.raises(BadInput, match="not on a Ray cluster"):
        CalibrationOptions(affine=True, ray="local").check()
