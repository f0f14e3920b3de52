"""Sizes, tokens and fractions as people write them."""

from collections.abc import Callable

import pytest

from kvpareto.planner.errors import BadInput, one_line
from kvpareto.planner.units import (
    exact_bytes,
    format_bytes,
    format_count,
    format_parameters,
    format_percent,
    format_time,
    format_tokens,
    parse_bytes,
    parse_fraction,
    parse_seconds,
    parse_tokens,
    seconds_for,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("12GB", 12_000_000_000),
        ("12GiB", 12_884_901_888),
        ("12288MiB", 12_884_901_888),
        ("24g", 24_000_000_000),
        ("24 G", 24_000_000_000),
        ("1.5tb", 1_500_000_000_000),
        ("1024B", 1024),
        ("7B", 7),
        ("0.5kib", 512),
        (".5GB", 500_000_000),
        (".5TB", 500_000_000_000),
        ("1PB", 10**15),
        ("1PiB", 2**50),
        ("1024PiB", 2**60),
        ("12\N{NO-BREAK SPACE}GB", 12_000_000_000),
    ],
)
def test_bytes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        "22.5",
        "1024",
        "GB",
        "-1GB",
        "0",
        "0GB",
        "1e9",
        "12XB",
        "12iB",
        "nan",
        "9" * 30,
        "8192PB",
        "1EB",
        ".GB",
        "5.GB",
        ".5",
        "\N{MINUS SIGN}1GB",
        "٣GB",
    ],
)
def test_not_bytes(text: str) -> None:
    with pytest.raises(BadInput, match="memory size") as error:
        parse_bytes(text)
    assert error.value.hint


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("32k", 32768),
        ("10240", 10240),
        ("1m", 1048576),
        ("1.5k", 1536),
        (".5k", 512),
        ("131,072", 131072),
        ("131_072", 131072),
    ],
)
def test_tokens(text: str, tokens: int) -> None:
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize(
    "text", ["", "0", "-5", "1.3", "32kb", "99999m", "ten", "١k", "1,5k", "12,34", "3 2"]
)
def test_not_tokens(text: str) -> None:
    with pytest.raises(BadInput, match="context"):
        parse_tokens(text)


@pytest.mark.parametrize(
    ("parse", "text", "hint"),
    [
        (parse_bytes, "12,5GB", "write 12.5GB"),
        (parse_bytes, "12,288MiB", "write 12288MiB or 12.288MiB"),
        (parse_tokens, "1,5k", "write 1.5k"),
        (parse_fraction, "0,5%", "write 0.5%"),
        (parse_fraction, "0,03", "write 0.03"),
        (parse_fraction, "3", "write 3%"),
        (parse_fraction, "1", "write 1% or 100%"),
        (parse_seconds, "1,5s", "write 1.5s"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_what_a_hint_says_to_write_is_read(
    parse: Callable[[str], float], text: str, hint: str
) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text)
    assert caught.value.hint == hint
    assert all(parse(way) > 0 for way in hint.removeprefix("write ").split(" or "))


def test_zero_output_is_allowed_where_asked() -> None:
    assert parse_tokens("0", minimum=0, what="output") == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [("3%", 0.03), (".5%", 0.005), ("0.03", 0.03), ("3e-2", 0.03), ("100 %", 1.0)],
)
def test_fraction(text: str, value: float) -> None:
    assert parse_fraction(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "101%", "-1%", "nan", "inf", "1.01", "x", "٣%", "0_1"])
def test_not_a_fraction(text: str) -> None:
    with pytest.raises(BadInput, match="loss"):
        parse_fraction(text)


def test_a_person_reads_gb_and_tokens() -> None:
    assert format_bytes(11_420_000_000) == "11.42 GB"
    assert format_bytes(-500_000_000) == "-500.00 MB"
    assert format_bytes(12) == "12 B"
    assert (format_tokens(32768), format_tokens(10000), format_tokens(2**20)) == (
        "32k",
        "10,000",
        "1m",
    )


@pytest.mark.parametrize("size", [1, 999, 12 * 10**9, 2**51, 10**15 + 1, 2**60 - 1, 2**60])
def test_an_exact_size_is_read_back_to_the_byte(size: int) -> None:
    assert parse_bytes(exact_bytes(size)) == size


def test_messages_are_one_printable_line() -> None:
    assert one_line("a\n b\x1b[0m") == "a b\N{REPLACEMENT CHARACTER}[0m"
    assert len(one_line("x" * 1000)) == 400


def test_what_is_below_all_is_not_printed_as_all() -> None:
    assert format_percent(1.0) == "100.0 %"
    assert [format_percent(x) for x in (0.9996, 0.99999, 0.979)] == ["99.9 %", "99.9 %", "97.9 %"]
    assert format_percent(0.9997, upper=True) == "100.0 %"


def test_seconds_of_a_line_have_one_unit() -> None:
    assert [format_time(x) for x in (0.0463, 0.12, 7.65, 170.97)] == [
        "46.3 ms",
        "0.12 s",
        "7.65 s",
        "171 s",
    ]
    assert format_time(0.116, like=0.0463) == "116.0 ms"
    assert format_time(0.06, like=0.12) == "0.06 s"


def test_seconds_of_toys_are_never_none() -> None:
    shown = [format_time(x) for x in (0.00083, 0.0000182, 2.5e-7, 0.0)]
    assert shown == ["0.83 ms", "18.2 µs", "0.25 µs", "0.0 ms"]
    assert format_time(0.00208, like=0.00083) == "2.08 ms"


@pytest.mark.parametrize(
    ("count", "text"),
    [(7_615_616_512, "7.62 B"), (134_515_008, "134.52 M"), (260_032, "260 k"), (12, "12")],
)
def test_parameters_of_small_models_have_a_smaller_unit(count: int, text: str) -> None:
    assert format_parameters(count) == text


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2s", 2.0),
        ("30ms", 0.03),
        ("30 MS", 0.03),
        ("250us", 2.5e-4),
        ("250 µs", 2.5e-4),
        (".5s", 0.5),
        (0.03, 0.03),
        (2, 2.0),
        (5e-5, 5e-5),
    ],
)
def test_times_and_what_they_mean(value: str | float, seconds: float) -> None:
    assert parse_seconds(value) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["30", "0.5", " 2 "])
def test_a_time_without_a_unit_is_asked_back(text: str) -> None:
    number = text.strip()
    with pytest.raises(BadInput, match=f"{number}' for tpot has no unit") as caught:
        parse_seconds(text, "tpot")
    assert caught.value.hint == f"write {number}ms or {number}s"


@pytest.mark.parametrize("text", ["0s", "-1s", "2m", "1e9s", "s", "", "30 ms s"])
def test_no_times(text: str) -> None:
    with pytest.raises(BadInput, match="not a time"):
        parse_seconds(text)


def test_one_is_singular() -> None:
    assert [format_count(n, "user") for n in (0, 1, 2000)] == ["0 users", "1 user", "2,000 users"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (8.1762, "8.18 s"),
        (8.1838, "8.19 s"),
        (8.18, "8.18 s"),
        (0.0085749, "8.58 ms"),
        (0.03, "30.0 ms"),
        (0.99946, "1000 ms"),
        (12.34, "12.4 s"),
        (4321.2, "4322 s"),
        (0.00000123456, "0.00124 ms"),
    ],
)
def test_a_limit_for_a_time_is_kept_by_it(seconds: float, text: str) -> None:
    assert seconds_for(seconds) == text
    assert seconds <= parse_seconds(text) <= seconds * 1.01
