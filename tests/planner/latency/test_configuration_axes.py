"""The axes that seconds are computed on: of a configuration by hand, and of a space as of each."""

from dataclasses import fields

import numpy as np
import pytest

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.latency.job import ConfigurationAxes
from kvpareto.planner.load_model import load_model
from kvpareto.planner.search.enumerate import enumerate_space, protection_presets
from kvpareto.planner.workload import Workload

MARKS = ("tail", "rotated", "smoothed", "by_channel", "per_tensor", "coded")


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("w4a16-k16v16+pc256", set()),
        ("w4a16-k4v4-g64+pc256", set()),
        ("w4a16-k16v4-g64+res64", {"tail"}),
        ("w4a16-k4v16-g64+res64", {"tail"}),
        ("w4a16-k4v4+sink4", {"tail"}),
        ("w4a16-k4v4-kc", {"tail", "by_channel"}),
        ("w4a16-k4v4-pb128", {"tail"}),
        ("w4a16-k4v4-pt", {"per_tensor"}),
        ("w4a16-k4v4+smooth", {"smoothed"}),
        ("w4a16-k4v16+rot", {"rotated"}),
        ("w4a16-k4v4+affine", {"rotated"}),
        ("w4a16-k5v4", {"coded"}),
        ("w4a16-k4v3", {"coded"}),
        ("w4a16-knf4vnf4", {"coded"}),
        ("w4a16-kfp8vfp8", {"coded"}),
    ],
)
def test_what_a_configuration_is_marked_with(text: str, marked: set[str]) -> None:
    config = Configuration.parse(text)
    axes = ConfigurationAxes.of(config, 1234)
    assert {name for name in MARKS if getattr(axes, name).item()} == marked
    assert (axes.weights, axes.chunks) == ((config.weight_bits,), (config.chunk,))
    assert axes.kv_bytes.item() == 1234
    assert (axes.k_bits.item(), axes.v_bits.item()) == (config.k_bits, config.v_bits)
    assert axes.rounded_rows == (False,)
    assert ConfigurationAxes.of(Configuration.parse("w4a8-k4v4"), 1).rounded_rows == (True,)


def test_a_space_is_marked_as_each_of_its_configurations() -> None:
    spec, work = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True), Workload(2048, 64)
    space = enumerate_space(spec, work, KVPARETO, protection_presets(spec))
    numbers = list(range(0, len(space.layout), 37))
    sizes = np.arange(len(space.layout), dtype=float)
    whole = ConfigurationAxes.of_space(space, sizes).at(numbers)
    names = [one.name for one in fields(ConfigurationAxes) if one.name not in ("weights", "chunks")]
    seen: set[str] = set()
    for place, number in enumerate(numbers):
        config = space.at(space.weights[0], number, space.chunks[0])
        alone = ConfigurationAxes.of(config, int(sizes[number]))
        for name in (n for n in names if n != "rounded_rows"):
            assert getattr(whole, name)[place] == getattr(alone, name).item(), (name, str(config))
        seen |= {name for name in MARKS if getattr(alone, name).item()}
    assert seen == {*MARKS} - {"coded"}
    assert whole.chunks == space.chunks
    assert whole.weights == space.weights
