"""Lower ends of formats whose key noise was read: rotated keys of 4 to 6 bits are worth 4."""

from dataclasses import replace

import numpy as np
import pytest

from kvpareto.planner.accuracy.format_arrays import formats_of, with_read_keys
from kvpareto.planner.accuracy.formula import FormatArrays
from kvpareto.planner.accuracy.predict import published
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model

CODER = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
TEXTS = ("k4v4", "k5v5", "k6v6", "k8v8", "k3v3", "k4v4+rot", "k5v5+rot", "k6v6+rot", "k8v8+rot",
         "k3v3+rot", "k16v16")  # fmt: skip


@pytest.fixture(scope="module")
def read() -> tuple[dict[str, float], dict[str, float]]:
    """Read noise of each format, and as the lower end takes it."""
    spec = load_model(CODER, offline=True)
    features = published().models.of(spec).features
    formats = formats_of(spec, [Configuration.parse(f"w16a16-{text}") for text in TEXTS])
    count = len(TEXTS)
    found, _ = with_read_keys(
        features, formats, [()], np.zeros(count, dtype=np.int64), np.full(count, 16.0)
    )
    assert found.read is not None
    assert found.worst.read is not None
    worst = dict(zip(TEXTS, found.worst.read.tolist(), strict=True))
    return dict(zip(TEXTS, found.read.tolist(), strict=True)), worst


def test_a_fifth_bit_of_rotated_keys_may_bring_nothing_back(
    read: tuple[dict[str, float], dict[str, float]],
) -> None:
    middle, worst = read
    assert middle["k5v5+rot"] < 0.5 * middle["k4v4+rot"]
    assert worst["k5v5+rot"] == pytest.approx(middle["k4v4+rot"])


@pytest.mark.parametrize("text", [t for t in TEXTS if t != "k5v5+rot"])
def test_all_other_formats_are_worth_their_bits(
    read: tuple[dict[str, float], dict[str, float]], text: str
) -> None:
    """Six bits and more, four and fewer, and keys that are not rotated."""
    middle, worst = read
    assert worst[text] == middle[text]


def test_named_formats_between_4_and_6_bits_too() -> None:
    """q5_1 of llama.cpp, which rotates keys: 11 of 16 needles, where 5 bits as such keep them."""
    spec = load_model(CODER, offline=True)
    features = published().models.of(spec).features
    formats = formats_of(spec, [Configuration.parse("wQ4_K_M-kq5_1vq5_1")])
    assert 4 < formats.k_bits[0] < 6
    found, _ = with_read_keys(features, formats, [()], np.array([0]), np.array([16.0]))
    assert found.read_worst is not None
    assert found.read is not None
    assert found.read_worst[0] > 2 * found.read[0]


def test_only_the_pessimistic_end_takes_it() -> None:
    """The predicted value and the upper end are those of formats without."""
    spec, predictor = load_model(CODER, offline=True), published()
    features = predictor.models.of(spec).features
    effects = predictor.models.unseen(features)
    formats, shares = with_read_keys(
        features,
        formats_of(spec, [Configuration.parse("w16a16-k5v5+rot")]),
        [()],
        np.array([0]),
        np.array([16.0]),
    )
    ends = (1.0, 0.0, -1.0)

    def kept(of: FormatArrays) -> list[float]:
        cache, _ = predictor.retention(
            effects, of, of, shares, 4096, np.array([16.0]), ("retrieval",), ends
        )
        return cache[:, 0, 0].tolist()

    known, taken = kept(replace(formats, read_worst=None)), kept(formats)
    assert taken[1:] == known[1:]
    assert taken[0] < 0.5 * known[0]
