"""Where the grammar's ranges end: the last value that is taken, and the first that is not."""

from itertools import pairwise

import pytest

from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import (
    CHUNKS,
    GROUP_SIZES,
    SPACE_BITS,
    Configuration,
    Granularity,
    Protection,
)
from kvpareto.planner.formats.dtypes import DTYPE_BYTES, MODEL_DTYPES
from kvpareto.planner.formats.gguf_types import GGUF_TYPES
from kvpareto.planner.formats.grammar import DEFAULT_CHANNEL_BLOCK
from kvpareto.planner.formats.kv_format import KVFormat
from kvpareto.planner.formats.without_effect import without_effect
from kvpareto.planner.memory.weights import ROUNDED_BITS
from kvpareto.planner.workload import Workload


def refused(text: str) -> str:
    with pytest.raises(BadInput) as error:
        Configuration.parse(text)
    return error.value.message


@pytest.mark.parametrize(
    ("axis", "first", "last"),
    [(CHUNKS, 64, 8192), (GROUP_SIZES, 32, 128), (SPACE_BITS, 16, 2), (ROUNDED_BITS, 16, 4)],
)
def test_axes_double_or_halve(axis: tuple[int, ...], first: int, last: int) -> None:
    assert (axis[0], axis[-1]) == (first, last)
    assert all(max(pair) == 2 * min(pair) for pair in pairwise(axis))


@pytest.mark.parametrize(("name", "most"), [("res", 2**20), ("sink", 8192), ("pc", 2**20)])
def test_windows_sinks_and_chunks_end_where_contexts_do(name: str, most: int) -> None:
    text = f"w4a16-k4v4+{name}"
    assert str(Configuration.parse(f"{text}{most}")) == f"{text}{most}"
    with pytest.raises(BadInput, match=rf"^\+{name}{most + 1} is out of range") as error:
        Configuration.parse(f"{text}{most + 1}")
    assert error.value.hint == f"+{name} takes 1 to {most:,} tokens"
    assert refused(f"{text}0") == f"+{name}0 is out of range"
    assert refused(f"{text}{'9' * 30}") == f"+{name}{'9' * 30} is out of range"
    with pytest.raises(BadInput, match="-1 is out of range"):
        Configuration(k_bits=4, **{{"res": "residual", "sink": "sinks", "pc": "chunk"}[name]: -1})


def test_a_chunk_of_no_tokens_is_as_none() -> None:
    assert Configuration(chunk=1).chunk == 1
    assert Configuration(k_bits=4, residual=1, sinks=1).residual == 1


@pytest.mark.parametrize("block", [16, 32, 64, 128, 256])
def test_token_blocks(block: int) -> None:
    assert Configuration.parse(f"w4a16-k4v4-pb{block}").block_tokens == block
    assert f"blocks of {block + 1}" in refused(f"w4a16-k4v4-pb{block + 1}")


def test_the_channel_block_without_a_number_is_32() -> None:
    assert DEFAULT_CHANNEL_BLOCK == 32
    assert Configuration.parse("w4a16-k4v4-kc").block_tokens == 32
    assert str(Configuration.parse("w4a16-k4v4-kc64")) == "w4a16-k4v4-kc64"


def test_a_text_of_2000_characters_is_read() -> None:
    text = "w4a16-k4v4"
    assert Configuration.parse(text + " " * (2000 - len(text))) == Configuration.parse(text)
    assert "not a configuration" in refused(text + " " * (2001 - len(text)))


def test_a_number_of_twelve_digits_is_no_format_and_one_of_thirteen_no_configuration() -> None:
    assert refused("w" + "9" * 12 + "a16-k4v4").endswith("is not a weight format")
    assert refused("w" + "9" * 13 + "a16-k4v4").startswith("not a configuration")
    assert "says something twice" in refused("w4a16-k4v4+res1+res2")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("w4a16-k4v4-pt8", "'-pt8' is not a granularity"),
        ("w4a16-k4v4-g", "'-g' is not a granularity"),
        ("w16a16-k16v16+smooth", "nothing is quantized"),
        ("w16a16-k16v16+res1", "nothing is quantized"),
        ("w16a16-k16v16+sink1", "nothing is quantized"),
        ("w16a16-k16v16-pt", "nothing is quantized"),
        ("w16a16-kq8_0v16+smooth", "q8_0 says itself"),
        ("w16a16-kq8_0v16+sink4", "q8_0 says itself"),
        ("w16a16-k16vq8_0-g64", "q8_0 says itself"),
    ],
)
def test_parts_that_mean_nothing(text: str, says: str) -> None:
    assert says in refused(text)


@pytest.mark.parametrize("layers", [(), (3, 1), (2, 2)])
def test_protected_layers_come_once_and_in_order(layers: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="once each, in order"):
        Configuration(k_bits=4, v_bits=4, protection=Protection(layers, 8, 8))


def test_a_token_block_needs_a_granularity_that_has_one() -> None:
    for granularity, block in ((Granularity.PER_TOKEN, 32), (Granularity.PER_BLOCK, None)):
        with pytest.raises(BadInput, match="token blocks belong to"):
            Configuration(k_bits=4, v_bits=4, granularity=granularity, block_tokens=block)
    with pytest.raises(BadInput, match="fixed or dynamic"):
        Configuration(chunk=64, dynamic_chunk=True)


def test_a_new_chunk_is_fixed() -> None:
    config = Configuration.parse("w4a16-k4v4+pcdyn")
    assert config.largest_chunk == 8192
    assert config.with_chunk(512) == Configuration.parse("w4a16-k4v4+pc512")
    assert config.with_chunk(512).largest_chunk == 512
    assert Configuration().largest_chunk is None


@pytest.mark.parametrize(
    ("text", "quantized"),
    [
        ("k16v8", True),
        ("k8v16", True),
        ("k16v16+protect{0}:k16v16", False),
        ("k16v16+protect{0}:k16v8", True),
        ("k16v16+protect{0}:k8v16", True),
    ],
)
def test_what_quantizes_the_cache(text: str, quantized: bool) -> None:
    assert Configuration.parse(f"w16a16-{text}").quantizes_kv is quantized


def test_sizes_of_elements() -> None:
    by_size = {8: "float64 int64", 4: "float32 int32", 2: "bfloat16 float16 int16"}
    by_size[1] = "int8 uint8 bool"
    expected = {name: size for size, names in by_size.items() for name in names.split()}
    assert expected == DTYPE_BYTES
    assert set(MODEL_DTYPES) < set(DTYPE_BYTES)


def test_rows_of_gguf_types() -> None:
    kind = GGUF_TYPES["Q4_K"]
    assert (kind.bits_per_weight, kind.quantized, kind.row_bytes(512)) == (4.5, True, 288)
    assert not GGUF_TYPES["BF16"].quantized
    with pytest.raises(ValueError, match="a row of 300 is no multiple of Q4_K's 256"):
        kind.row_bytes(300)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("-k4v4", (1, 0), (1, 0)),
        ("-k4v4-kc+res8", (32, 40), (1, 8)),
        ("-k4v4-pb16", (16, 16), (16, 16)),
    ],
)
def test_blocks_and_16_bit_tokens(text: str, key: tuple[int, int], value: tuple[int, int]) -> None:
    form = KVFormat.of(Configuration.parse(f"w16a16{text}"), 0)
    sides = [(side.block, side.residual_capacity) for side in (form.key, form.value)]
    assert sides == [key, value]


def test_only_quantized_keys_are_smoothed() -> None:
    smoothed = KVFormat.of(Configuration.parse("w16a16-k4v4+smooth"), 0)
    assert (smoothed.key.smoothing, smoothed.value.smoothing) == (True, False)
    assert not KVFormat.of(Configuration.parse("w16a16-k16v4+smooth"), 0).key.smoothing


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("w4a16-k4v4+res4095", 0),
        ("w4a16-k4v4+res4607", 1),  # the whole prompt, not what is generated
        ("w4a16-k4v4+res4096+sink512", 1),
        ("w4a16-k4v4+pc4096+sink4608", 2),
        ("w4a16-k8v8+protect{0}:k16v4", 1),
        ("w4a16-k8v8+protect{0}:k16v8", 0),
        ("w4a16-k8v4+protect{0}:k8v4", 1),
    ],
)
def test_each_part_without_effect_is_said_once(text: str, notes: int) -> None:
    said = without_effect(Configuration.parse(text), Workload(4096, output=512))
    assert len(said) == notes
    assert all("+sink" in note for note in said if "sink" in text and "+pc" not in note)
    assert all("+res0" not in note and "+sink0" not in note for note in said)
