"""Formats that go by names: which texts mean them, how they are printed, who runs them."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvpareto.planner.engines import find_engine
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import KV_BITS, Configuration
from kvpareto.planner.formats.kv_format import KVFormat
from kvpareto.planner.formats.named import KV, WEIGHTS, kv_format, names, weight_format
from kvpareto.planner.formats.space import PLAIN, KVLayout, Space

SIDES = (*map(str, KV_BITS), *names(KV))


def test_every_pair_of_sides_is_read_as_what_it_says() -> None:
    """Names with a `v` in them (nvfp4) are cut in the right place."""
    for k, v in product(SIDES, SIDES):
        config = Configuration.parse(f"w4a16-k{k}v{v}")
        assert (config.k_format or str(config.k_bits), config.v_format or str(config.v_bits)) == (
            k,
            v,
        )
        assert str(config) == f"w4a16-k{k}v{v}"


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("wq4_k_m-kQ8_0vQ5_1", "wQ4_K_M-kq8_0vq5_1"),
        ("wQ4_K-kf16vq4_0+pc512", "wQ4_K_M-kf16vq4_0+pc512"),
        ("wFP8-kfp8_e4m3vFP8", "wfp8-kfp8vfp8"),
        ("wgptq-knvfp4vnvfp4", "wgptq4-knvfp4vnvfp4"),
        ("wmxfp4_moe-kbf16viq4_nl", "wmxfp4-kbf16viq4_nl"),
        (
            "w16a16-kint4_per_token_headvint8_per_token_head",
            "w16a16-kint4_per_token_headvint8_per_token_head",
        ),
        ("wQ8_0-k4v4-g64", "wQ8_0-k4v4-g64"),
        ("w8a16-kfp8vfp8+protect{1,0}:k16v16", "w8a16-kfp8vfp8+protect{0,1}:k16v16"),
        ("w4a16-kNVFP4vmxfp4+rot+res128+sink4", "w4a16-knvfp4vmxfp4+rot+res128+sink4"),
        ("w4a16-k4vnvfp4-kc+affine", "w4a16-k4vnvfp4-kc+affine"),
        ("w4a16-kmxfp4v2-g32", "w4a16-kmxfp4v2-g32"),
    ],
)
def test_any_case_and_alias_is_printed_one_way(written: str, canonical: str) -> None:
    assert str(Configuration.parse(written)) == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("wQ9_K-k4v4", "'Q9_K' is not a weight format"),
        ("wQ8_0a16-k4v4", "'Q8_0a16' is not a weight format"),
        ("w4a16-kq9vq4_0", "not a configuration: 'kq9vq4_0' names no KV formats"),
        ("w4a16-kQ4_K_Mv4", "names no KV formats"),
        ("w4a16-kq8_0", "not a configuration"),
        ("w4a16-kq8_0v", "names no KV formats"),
        ("w4a4-kq8_0vq8_0", "activations are 16-bit or 8-bit"),
        ("w7a16-kq8_0vq8_0", "w7 is not a weight format"),
        ("w4a16-kq8_0v7", "v7 is not a KV format"),
        ("w4a16-kq8_0vq8_0-g64", "q8_0 says itself what shares a scale"),
        ("w4a16-kq8_0v4+rot", "q8_0 says itself"),
        ("w4a16-k4vq8_0-kc", "q8_0 says itself"),
        ("w16a16-kfp8_e5m2vfp8+res128", "fp8_e5m2 says itself"),
        ("w16a16-knvfp4vfp8-kc", "nvfp4 brings its own blocks of 16 channels"),
        ("w16a16-k4vmxfp4-pb64", "mxfp4 brings its own blocks of 32 channels"),
        ("w16a16-k4vmxfp4-pt", "mxfp4 brings its own blocks"),
        ("w16a16-knvfp4vmxfp4-g64", "nvfp4 brings its own blocks"),
        ("w16a16-kfp8vq4_0+rot", "q4_0 says itself"),
    ],
)
def test_mistakes_are_named(text: str, says: str) -> None:
    with pytest.raises(BadInput) as error:
        Configuration.parse(text)
    assert says in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [("wQ4_KM-k16v16", "nearest are Q4_K_M, "), ("wzork-k16v16", "known: ")],
)
def test_a_weight_format_that_is_none_is_answered_with_its_neighbours(text: str, hint: str) -> None:
    with pytest.raises(BadInput, match="is not a weight format") as error:
        Configuration.parse(text)
    assert str(error.value.hint).startswith(hint)


def test_a_name_and_its_bits_go_together() -> None:
    with pytest.raises(BadInput, match="no format of 8 bits is called 'q4_0'"):
        Configuration(k_bits=8, k_format="q4_0")
    with pytest.raises(BadInput, match="no format of 16 bits is called 'Q4_K_M'"):
        Configuration(weight_format="Q4_K_M")
    with pytest.raises(BadInput, match="called 'Q8_0'"):  # as printed only
        Configuration(k_bits=8, k_format="Q8_0")


@st.composite
def named_configurations(draw: st.DrawFn) -> Configuration:
    """Any weights, keys and values by name, any chunk."""
    weights, keys, values = (draw(st.sampled_from(rows)) for rows in (WEIGHTS, KV, KV))
    chunk = draw(st.sampled_from((None, 32, 512, 4096)))
    return Configuration.named(weights.name, keys.name, values.name, chunk)


@given(named_configurations(), st.randoms())
def test_named_configurations_survive_the_round_trip(config: Configuration, random: object) -> None:
    text = str(config)
    assert Configuration.parse(text) == config
    shouted = "".join(random.choice((c.lower(), c.upper())) for c in text[1:].split("-k")[0])  # type: ignore[attr-defined]
    assert Configuration.parse("w" + shouted + text[1 + len(shouted) :]) == config


def test_names_are_distinct_and_hold_nothing_that_the_grammar_uses() -> None:
    for rows, find in ((WEIGHTS, weight_format), (KV, kv_format)):
        spellings = [name.lower() for row in rows for name in (row.name, *row.aliases)]
        assert len(set(spellings)) == len(spellings)
        assert all(name.isidentifier() for name in spellings)
        assert all(find(name) is row for row in rows for name in (row.name, *row.aliases))


def test_bytes_of_rows() -> None:
    """Blocks of 32 with a scale (ggml-common.h): q8_0 34 bytes, q5_1 24, iq4_nl 18."""
    sizes = {name: kv_format(name).nbytes(128) for name in ("f16", "q8_0", "q5_1", "iq4_nl")}  # type: ignore[union-attr]
    assert sizes == {"f16": 256, "q8_0": 136, "q5_1": 96, "iq4_nl": 72}
    assert kv_format("int4_per_token_head").nbytes(128) == 64 + 4  # type: ignore[union-attr]
    assert weight_format("Q4_0").nbytes(33) == 36  # type: ignore[union-attr]


@pytest.mark.parametrize("engine", ["kvpareto", "transformers", "transformers-eager"])
@pytest.mark.parametrize("text", ["wQ4_K_M-k4v4", "w16a16-kq8_0v16", "w16a16-k8vfp8_e5m2"])
def test_our_own_engines_refuse_names(engine: str, text: str) -> None:
    with pytest.raises(BadInput, match=f"^{engine} does not run ") as error:
        find_engine(engine).check_formats(Configuration.parse(text))
    assert "--engine" in error.value.hint


@pytest.mark.parametrize(
    "text", ["kfp8vfp8", "knf4v4-g64", "klloyd2vlloyd3-kc+res128+rot", "kmxfp4vnvfp4+rot"]
)
def test_our_runtime_holds_floats_and_tables_and_transformers_does_not(text: str) -> None:
    config = Configuration.parse(f"w16a16-{text}")
    find_engine("kvpareto").check_formats(config)
    with pytest.raises(BadInput, match=r"^transformers does not run "):
        find_engine("transformers").check_formats(config)


def test_a_servers_own_format_takes_no_layout() -> None:
    find_engine("vllm").check_formats(Configuration.parse("w16a16-kfp8vfp8"))
    with pytest.raises(BadInput, match="in vllm, fp8 says itself what shares a scale"):
        find_engine("vllm").check_formats(Configuration.parse("w16a16-kfp8vfp8-g64"))


def test_our_buffers_hold_no_named_format() -> None:
    with pytest.raises(BadInput, match="our cache holds no q8_0"):
        KVFormat.of(Configuration.parse("w16a16-kq8_0v16"), 0)


def test_a_space_carries_names() -> None:
    rows = np.concatenate([PLAIN, [[0, 8, 5, 0]]])
    space = Space(
        weights=(4, 8),
        chunks=(None, 512),
        layouts=(KVLayout(),),
        protections=((),),
        layout=rows[:, 0],
        k_bits=rows[:, 1],
        v_bits=rows[:, 2],
        protection=rows[:, 3],
        weight_formats=("Q4_K_M", ""),
        kv_formats=(("f16", "f16"), ("q8_0", "q5_1")),
    )
    texts = [str(space.configuration(i)) for i in range(len(space))]
    assert texts == [
        "wQ4_K_M-kf16vf16",
        "wQ4_K_M-kf16vf16+pc512",
        "wQ4_K_M-kq8_0vq5_1",
        "wQ4_K_M-kq8_0vq5_1+pc512",
        "w8a16-kf16vf16",
        "w8a16-kf16vf16+pc512",
        "w8a16-kq8_0vq5_1",
        "w8a16-kq8_0vq5_1+pc512",
    ]
