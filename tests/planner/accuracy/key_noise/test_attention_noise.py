"""What formats make of a model's attention, as a table: where each format stands in it."""

import numpy as np
import pytest

from kvpareto.planner.accuracy.format_arrays import formats_of
from kvpareto.planner.accuracy.formula import span
from kvpareto.planner.accuracy.key_noise.attention_noise import (
    KEY_STRUCTURES,
    TURNED,
    VALUE_STRUCTURES,
    AttentionNoise,
    never_finer_worse,
)
from kvpareto.planner.accuracy.key_noise.key_ranges import BITS, TRANSFORMS
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model

LAYERS = 3


@pytest.fixture
def table() -> AttentionNoise:
    """Every entry another number; layer 1 has twice of layer 0's, layer 2 three times."""
    shapes = (
        (len(BITS), len(TRANSFORMS), len(KEY_STRUCTURES), 1),
        (len(BITS), len(TURNED), len(VALUE_STRUCTURES), 1),
    )
    sides = [1e-3 * (1.0 + np.arange(np.prod(shape))).reshape(shape) for shape in shapes]
    return AttentionNoise(*(side * np.array([1.0, 2.0, 3.0]) for side in sides))


def noise_of(table: AttentionNoise, text: str) -> list[float]:
    """Of one format: keys, keys beyond the loss of a layer, values."""
    config = Configuration.parse(f"w16a16-{text}")
    protection = config.protection
    kept = (protection.k_bits, protection.v_bits) if protection else (16, 16)
    found = table.noise(
        formats_of(load_model("recall", offline=True), [config]),
        [protection.layers if protection else ()],
        np.array([0]),
        (np.array([float(kept[0])]), np.array([float(kept[1])])),
    )
    return [float(side[0]) for side in found]


def entry(table: AttentionNoise, bits: int, transform: str, structure: str) -> np.ndarray:
    place = BITS.index(bits), TRANSFORMS.index(transform), KEY_STRUCTURES.index(structure)
    return np.asarray(table.keys[place])


@pytest.mark.parametrize(
    ("text", "bits", "transform", "structure"),
    # heads of recall have 64 channels
    [
        ("k4v16", 4, "plain", "g64"),
        ("k2v16-g32", 2, "plain", "g32"),
        ("k2v16-g32+smooth", 2, "smooth", "g32"),
        ("k4v16+rot", 4, "rot", "g64"),
        ("k8v16+smooth+rot", 8, "smooth+rot", "g64"),
        ("k2v16-kc", 2, "plain", "kc32"),
        ("k2v16-kc128", 2, "plain", "kc128"),
        ("k4v16-pb64-g32", 4, "plain", "t32"),
        ("k4v16-pb64", 4, "plain", "thead"),
        ("k4v16-pt+res128", 4, "plain", "tensor"),
    ],
)
def test_each_format_has_its_own_entry(
    table: AttentionNoise, text: str, bits: int, transform: str, structure: str
) -> None:
    layers = entry(table, bits, transform, structure)
    lost = layers**2 / (1 + layers)
    keys, beyond, values = noise_of(table, text)
    assert beyond == pytest.approx(lost.sum())
    assert keys == pytest.approx((layers - lost).sum())
    assert values == 0.0


def test_values_of_keys_with_channel_scales_stand_with_their_group(table: AttentionNoise) -> None:
    place = BITS.index(4), 0, VALUE_STRUCTURES.index("g32")
    assert noise_of(table, "k4v4-kc-g32")[2] == pytest.approx(table.values[place].sum())


def test_protected_layers_have_the_noise_of_their_own_bits(table: AttentionNoise) -> None:
    two, eight = (entry(table, bits, "plain", "g64") for bits in (2, 8))
    mixed = np.array([two[0], eight[1], two[2]])
    found = noise_of(table, "k2v2+protect{1}:k8v4")
    assert found[0] == pytest.approx((mixed / (1 + mixed)).sum())
    values = [table.values[BITS.index(b), 0, VALUE_STRUCTURES.index("g64")] for b in (2, 4)]
    assert found[2] == pytest.approx(values[0][0] + values[1][1] + values[0][2])


def test_longer_tiles_have_more_by_the_span_of_normal_values(table: AttentionNoise) -> None:
    short, long = (noise_of(table, f"k4v4-pb{block}")[2] for block in (64, 128))
    wide = float((span(np.array(64.0 * 128)) / span(np.array(64.0 * 64))) ** 2)
    assert long / short == pytest.approx(wide)


def test_three_bits_lie_between_two_and_four(table: AttentionNoise) -> None:
    two, three, four = (noise_of(table, f"k{bits}v16")[0] for bits in (2, 3, 4))
    assert min(two, four) < three < max(two, four)


def test_channels_scales_over_64_tokens_lie_between_those_over_32_and_128(
    table: AttentionNoise,
) -> None:
    short, middle, long = (noise_of(table, f"k2v16-kc{block}")[0] for block in (32, 64, 128))
    assert middle == pytest.approx((short * long) ** 0.5)
    assert noise_of(table, "k2v16-kc16")[0] == short
    assert noise_of(table, "k2v16-kc256")[0] == long


def test_what_is_kept_in_a_file_comes_back(table: AttentionNoise) -> None:
    again = AttentionNoise.of(table.flat, LAYERS)
    np.testing.assert_allclose(again.keys, table.keys, rtol=5e-3)
    np.testing.assert_allclose(again.values, table.values, rtol=5e-3)


@pytest.mark.parametrize("number", [-1.0, float("nan"), 1e9])
def test_numbers_that_are_no_noise_are_refused(table: AttentionNoise, number: float) -> None:
    with pytest.raises(ValueError, match="attention"):
        AttentionNoise.of([number, *table.flat[1:]], LAYERS)
    with pytest.raises(ValueError, match="attention"):
        AttentionNoise.of(table.flat, LAYERS + 1)


def test_coarser_formats_never_have_less() -> None:
    rng = np.random.default_rng(0)
    found = never_finer_worse(rng.random((3, 4, len(KEY_STRUCTURES), 2)), KEY_STRUCTURES)
    assert (np.diff(found, axis=0) <= 0).all()  # fewer bits come first
    of = {name: found[:, :, i] for i, name in enumerate(KEY_STRUCTURES)}
    for finer, coarser in (("g32", "g64"), ("g32", "head"), ("g32", "thead"), ("kc32", "kc128")):
        assert (of[coarser] >= of[finer]).all()
