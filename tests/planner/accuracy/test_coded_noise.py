"""What tables and clipped ranges are worth, by rounding normal values again."""

import numpy as np
import pytest

from kvpareto.planner.accuracy import coded_noise
from kvpareto.planner.accuracy.coded_noise import WIDTHS, worth
from kvpareto.planner.accuracy.format_arrays import formats_of
from kvpareto.planner.accuracy.predict import predict_many, published
from kvpareto.planner.formats.code_tables import boundaries, levels
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model

NORMAL = np.random.default_rng(3).standard_normal(1_000_000)


def squared_error(grid: np.ndarray, edges: np.ndarray, width: int) -> float:
    """Of normal values in groups of `width`, rounded to a grid whose last integer is the range."""
    x = NORMAL[: NORMAL.size // width * width].reshape(-1, width)
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    most = len(grid) - 1
    scaled = (x - low) / (high - low) * most
    rounded = grid[np.searchsorted(edges, scaled)]
    return float((((rounded - scaled) * (high - low) / most) ** 2).mean())


def integers(bits: int, clip: int = 100) -> tuple[np.ndarray, np.ndarray]:
    middle = (2**bits - 1) / 2
    grid = (np.arange(2.0**bits) - middle) * clip / 100 + middle
    return grid, (grid[1:] + grid[:-1]) / 2


def as_bits(bits: int, error: float, whole: float) -> float:
    return float(np.log2(1 + (2**bits - 1) / np.sqrt(error / whole)))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("name", "bits"), [("nf4", 4), ("lloyd3", 3), ("lloyd2", 2)])
def test_tables(name: str, bits: int, width: int) -> None:
    config = Configuration.parse(f"w16a16-k{name}v{name}")
    whole = squared_error(*integers(bits), width)
    found = squared_error(levels(name, width), boundaries(name, width), width)
    assert worth(config, width) == pytest.approx([as_bits(bits, found, whole)] * 2, abs=0.02)


def test_blocks_are_worth_what_the_fields_names_say() -> None:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    texts = ("knvfp4vmxfp4", "k4vnvfp4-kc", "k8vmxfp4-g64")
    found = formats_of(spec, [Configuration.parse(f"w16a16-{text}") for text in texts])
    assert found.k_bits.tolist() == [3.74, 4.0, 8.0]
    assert found.v_bits.tolist() == [3.52, 3.74, 3.52]
    assert found.group.tolist() == [32.0, 128.0, 64.0]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("bits", "clip"), [(2, 90), (2, 70), (2, 50), (3, 90), (3, 80)])
def test_clipped_ranges(bits: int, clip: int, width: int) -> None:
    config = Configuration.parse(f"w16a16-k{bits}v{bits}+clip{clip}")
    whole = squared_error(*integers(bits), width)
    found = squared_error(*integers(bits, clip), width)
    assert worth(config, width) == pytest.approx([as_bits(bits, found, whole)] * 2, abs=0.02)


def test_what_says_nothing_of_levels_is_worth_its_bits() -> None:
    assert worth(Configuration.parse("w16a16-k6v3-g64+rot"), 128) == (6.0, 3.0)
    assert worth(Configuration.parse("w16a16-k4v2+clip70"), 128)[0] == 4.0
    protected = Configuration.parse("w16a16-k2v2+clip70+protect{0,1}:k8v8")
    assert worth(protected, 64) == worth(Configuration.parse("w16a16-k2v2+clip70"), 64)


def test_between_widths_and_beside_integers() -> None:
    low, middle, high = (
        worth(Configuration.parse("w16a16-klloyd2v4"), d)[0] for d in (64, 96, 128)
    )
    assert low < middle < high
    assert worth(Configuration.parse("w16a16-klloyd2v4-kc"), 128)[0] == pytest.approx(2.237)
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    texts = ("kfp8v4-g64+rot", "knf4v4-g64", "kfp8vfp8", "k3v3")
    found = formats_of(spec, [Configuration.parse(f"w16a16-{text}") for text in texts])
    assert found.k_bits.tolist() == [5.5, 3.989, 5.5, 3.0]
    assert found.v_bits.tolist() == [4.0, 4.0, 5.5, 3.0]
    assert found.group.tolist() == [64.0, 64.0, 32.0, 128.0]
    assert found.rotate_k.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_maps_turn_keys_but_not_those_with_scales_by_channel() -> None:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    texts = ("k2v2+affine", "k2v2-kc128+affine", "k2v2-kc128", "k2v2+smooth+rot")
    found = formats_of(spec, [Configuration.parse(f"w16a16-{text}") for text in texts])
    assert found.smoothing.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert found.rotate_k.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert found.rotate_v.tolist() == [1.0, 1.0, 0.0, 1.0]
    assert found.k_bits.tolist() == [2.6, 2.6, 2.0, 2.0]


def test_what_no_row_has_is_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    texts = ("k3v3-g64+rot", "klloyd3vlloyd3-g64+rot", "k3v3-g64+rot+clip90", "k3v3-g64+affine")
    configs = [Configuration.parse(f"w16a16-{text}") for text in texts]
    wide = predict_many(spec, configs, 8192, published())
    for name in ("CODED_DOUBT", "AFFINE_DOUBT"):
        monkeypatch.setattr(coded_noise, name, 0.0)
    narrow = predict_many(spec, configs, 8192, published())
    assert wide[0] == narrow[0]
    for one, other in zip(wide[1:], narrow[1:], strict=True):
        assert one.retention == other.retention
        assert one.low < other.low < other.high < one.high
    said = [" ".join(each.notes) for each in wide]
    assert "no row has" not in said[0]
    assert "tables: judged by their error of normal values" in said[1]
    assert "clipped ranges" in said[2]
    assert "affine maps: their gain is that of three small models" in said[3]
    assert narrow[0].retention < narrow[1].retention < narrow[3].retention


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("k4v4", 0.0),
        ("kfp8vfp8", 0.0),
        ("knf4v4", 0.3),
        ("knvfp4vnvfp4", 0.3),
        ("k2v2+clip70", 0.3),
        ("k4v4+affine", 0.7),
    ],
)
def test_doubt(text: str, bits: float) -> None:
    assert coded_noise.doubt(Configuration.parse(f"w16a16-{text}")) == bits


def test_sinks_that_hold_the_whole_prompt_leave_nothing_to_lose() -> None:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    texts = ("k2v2+sink4096", "k2v2+sink4000+res96", "k2v2+sink4000", "k2v2+res4096")
    found = predict_many(spec, [Configuration.parse(f"w16a16-{t}") for t in texts], 4096)
    assert [one.retention for one in found[:2]] == [found[3].retention] * 2 == [1.0, 1.0]
    assert found[2].retention < 0.1
