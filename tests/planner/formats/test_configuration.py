"""The grammar of configurations: what it reads, what it prints, what it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import (
    CHUNKS,
    GROUP_SIZES,
    KV_BITS,
    WEIGHT_BITS,
    Configuration,
    Granularity,
    Protection,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("w16a16-k16v16", Configuration()),
        (
            "w4a16-k4v4-g64+pc256",
            Configuration(weight_bits=4, k_bits=4, v_bits=4, group_size=64, chunk=256),
        ),
        (
            "w4a16-k2v4-kc-g32+res128",
            Configuration(4, 2, 4, Granularity.PER_CHANNEL, 32, 32, residual=128),
        ),
        ("w8a16-k8v8-pt", Configuration(8, 8, 8, Granularity.PER_TENSOR)),
        (
            "w16a16-k4v2-pb128-g64+smooth+rot",
            Configuration(16, 4, 2, Granularity.PER_BLOCK, 64, 128, True, True),
        ),
        (
            "w4a16-k4v4-g64+sink4+protect{0,27}:k8v8+pcdyn",
            Configuration(
                4,
                4,
                4,
                group_size=64,
                sinks=4,
                protection=Protection((0, 27), 8, 8),
                dynamic_chunk=True,
            ),
        ),
        (
            "w16a16-k2v4+affine+clip70+sink4",
            Configuration(k_bits=2, v_bits=4, affine=True, clip=70, sinks=4),
        ),
        (
            "w16a16-k6v3-g64+rot+clip80",
            Configuration(k_bits=6, v_bits=3, group_size=64, rotation=True, clip=80),
        ),
        (
            "w16a16-kfp8vlloyd2-kc+smooth+res128",
            Configuration(
                k_bits=8,
                v_bits=2,
                granularity=Granularity.PER_CHANNEL,
                block_tokens=32,
                smoothing=True,
                residual=128,
                k_format="fp8",
                v_format="lloyd2",
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_text_and_configuration_are_each_other(text: str, expected: Configuration) -> None:
    assert Configuration.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("w4a16-k4v4+res128+smooth", "w4a16-k4v4+smooth+res128"),
        ("w4a16-k4v4-g64-kc32", "w4a16-k4v4-kc-g64"),
        ("w4a16-k4v4+protect{9,3,3}:k8v8", "w4a16-k4v4+protect{3,9}:k8v8"),
        (" w16a16-k8v8 ", "w16a16-k8v8"),
    ],
)
def test_order_and_defaults_are_printed_one_way(written: str, canonical: str) -> None:
    assert str(Configuration.parse(written)) == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a configuration"),
        ("w4-k4v4", "not a configuration"),
        ("w7a16-k4v4", "w7 is not a weight format"),
        ("w4a4-k4v4", "activations are 16-bit or 8-bit"),
        ("w8a8-k4v4", "8-bit activations go with 4-bit weights"),
        ("w16a8-k4v4", "8-bit activations go with 4-bit weights"),
        ("w4a16-k7v4", "k7 is not a KV format"),
        ("w4a16-k4v4+clip70", "+clip70 clips nothing"),
        ("w4a16-k2v2+clip40", "or too much"),
        ("w4a16-k2v2+affine+rot", "+affine rotates and centres"),
        ("w4a16-k16v16+affine", "nothing is quantized"),
        ("w4a16-klloyd2v4+clip70", "+clip70 clips nothing"),
        ("w4a16-k2v2+clip0", "+clip0 is out of range"),
        ("w4a16-k4v4-g48", "-g48 is not a group size"),
        ("w4a16-k4v4-g64-g64", "says something twice"),
        ("w4a16-k4v4-pb", "'-pb' is not a granularity"),
        ("w4a16-k4v4-pc", "'-pc' is not a granularity"),
        ("w4a16-k4v4-pt-g64", "-g means nothing"),
        ("w4a16-k4v4-kc-pt", "says something twice"),
        ("w4a16-k4v4-kc48", "token blocks of 48"),
        ("w4a16-k4v4+pc0", "+pc0 is out of range"),
        ("w4a16-k4v4+pc64+pcdyn", "says something twice"),
        ("w4a16-k4v4+protect{}:k8v8", "is not an option"),
        ("w4a16-k4v4+protect{1}:k7v8", "k7 is not a KV format"),
        ("w16a16-k16v16+rot", "nothing is quantized"),
        ("w16a16-k16v16-g64", "nothing is quantized"),
        ("w4a16-k4v4+pc99999999999", "+pc99999999999 is out of range"),
        ("w4a16-k4v4+pc9999999999", "out of range"),
        ("w" + "9" * 3000, "not a configuration"),
        ("w4a16-k4v4+\x00", "is not an option"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_mistakes_are_named(text: str, says: str) -> None:
    with pytest.raises(BadInput) as error:
        Configuration.parse(text)
    assert says in error.value.message
    assert error.value.hint
    assert "\n" not in error.value.message


def test_protected_layers_keep_their_bits() -> None:
    config = Configuration.parse("w16a16-k4v2-g64+protect{0,3}:k8v16")
    assert [config.layer_bits(i) for i in range(4)] == [(8, 16), (4, 2), (4, 2), (8, 16)]


def test_protection_alone_is_quantization() -> None:
    assert Configuration.parse("w16a16-k16v16-g64+protect{5}:k8v8").quantizes_kv
    assert not Configuration.parse("w16a16-k16v16").quantizes_kv


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    """Any configuration that means something, built without the parser."""
    k, v = draw(st.sampled_from(KV_BITS)), draw(st.sampled_from(KV_BITS))
    weight_bits = draw(st.sampled_from(WEIGHT_BITS))
    chunk = draw(st.sampled_from((None, *CHUNKS)))
    dynamic = chunk is None and draw(st.booleans())
    if min(k, v) == 16:
        return Configuration(weight_bits, chunk=chunk, dynamic_chunk=dynamic)
    granularity = draw(st.sampled_from(list(Granularity)))
    blocked = granularity in (Granularity.PER_CHANNEL, Granularity.PER_BLOCK)
    tensor = granularity is Granularity.PER_TENSOR
    layers = draw(st.lists(st.integers(0, 99), unique=True, max_size=4).map(sorted))
    bits = st.sampled_from(KV_BITS)
    return Configuration(
        weight_bits,
        k,
        v,
        granularity,
        None if tensor else draw(st.sampled_from((None, *GROUP_SIZES))),
        draw(st.sampled_from((16, 32, 64, 128, 256))) if blocked else None,
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.integers(0, 512)),
        draw(st.integers(0, 16)),
        Protection(tuple(layers), draw(bits), draw(bits)) if layers else None,
        chunk,
        dynamic,
    )


@given(configurations())
def test_every_configuration_survives_the_round_trip(config: Configuration) -> None:
    assert Configuration.parse(str(config)) == config


@given(st.text(max_size=60))
def test_no_text_escapes_as_anything_but_bad_input(text: str) -> None:
    try:
        config = Configuration.parse(text)
    except BadInput:
        return
    assert Configuration.parse(str(config)) == config
