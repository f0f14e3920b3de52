"""Named formats: bits by repeating their rounding, order of mixes, the grid's agreement."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kvpareto import profiles
from kvpareto.planner.accuracy.format_arrays import format_arrays, formats_of
from kvpareto.planner.accuracy.formula import weight_noise
from kvpareto.planner.accuracy.named_noise import (
    KV_NOISE,
    equivalent_bits,
    is_published,
    weight_equivalents,
    with_names,
)
from kvpareto.planner.accuracy.predict import predict_grid, predict_many
from kvpareto.planner.engines import find_engine
from kvpareto.planner.formats import named
from kvpareto.planner.formats.code_tables import CODED
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.search.placed.table import evaluate_placed
from kvpareto.planner.search.request import Request
from kvpareto.planner.workload import Workload
from tests.support.gguf_files import LLAMA, llama_tensors, write_gguf

Values = NDArray[np.float64]
X: Values = np.random.default_rng(0).standard_normal((20_000, 32))
# ggml's codebook of IQ4_NL.
CODES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113.0])


def half(x: Values) -> Values:
    return x.astype(np.float16).astype(np.float64)


def asymmetric(x: Values, bits: int) -> Values:
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    step = (high - low) / (2**bits - 1)
    return np.rint((x - low) / step) * step + low


def signed_largest(x: Values) -> Values:
    return np.take_along_axis(x, np.abs(x).argmax(1)[:, None], 1)


def without_minimum(x: Values, bits: int) -> Values:
    """q4_0, q5_0: the value of largest magnitude is the lowest code."""
    half_range = 2 ** (bits - 1)
    step = signed_largest(x) / -half_range
    codes = np.clip(np.floor(x / step + half_range + 0.5), 0, 2 * half_range - 1)
    return half(step) * (codes - half_range)


def q8_0(x: Values) -> Values:
    step = np.abs(x).max(1, keepdims=True) / 127
    return half(step) * np.rint(x / step)


def iq4_nl(x: Values) -> Values:
    """Nearest codes at the scale of the largest, then the scale that fits them best."""
    step = signed_largest(x) / CODES[0]
    for _ in range(2):
        codes = CODES[np.abs((x / step)[..., None] - CODES).argmin(-1)]
        step = (x**3 * codes).sum(1, keepdims=True) / (x**2 * codes**2).sum(1, keepdims=True)
    return half(step) * codes


ROUNDING: dict[str, Callable[[Values], Values]] = {
    "q8_0": q8_0,
    "q5_1": lambda x: half(asymmetric(x, 5)),
    "q5_0": lambda x: without_minimum(x, 5),
    "q4_1": lambda x: asymmetric(x, 4),
    "q4_0": lambda x: without_minimum(x, 4),
    "iq4_nl": iq4_nl,
}


HEADS: Values = np.random.default_rng(1).standard_normal((5_000, 128))
"""Heads, for formats with one scale a token and head."""


def e4m3(x: Values) -> Values:
    """Four bits of exponent, three of fraction; 448 at most, denormals below 2^-6."""
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(x), 1e-30))), -6)
    step = 2.0 ** (exponent - 3)
    return np.clip(np.rint(x / step) * step, -448, 448)


def e4m3_by_head(x: Values) -> Values:
    scale = np.abs(x).max(1, keepdims=True) / 448
    return e4m3(x / scale) * scale


def int8_by_head(x: Values) -> Values:
    scale = np.abs(x).max(1, keepdims=True) / 127
    return np.rint(x / scale) * scale


def int4_by_head(x: Values) -> Values:
    """A whole zero point of four bits, as vLLM hides it in the scale."""
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    scale = (high - low) / 15
    zero = np.clip(np.rint(-low / scale), 0, 15)
    return (np.clip(np.rint(x / scale + zero), 0, 15) - zero) * scale


def e2m1(x: Values) -> Values:
    levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    nearest = levels[np.abs(np.abs(x)[..., None] - levels).argmin(-1)]
    return np.sign(x) * nearest


def nvfp4(x: Values) -> Values:
    blocks = x.reshape(-1, 16)
    scale = e4m3(np.abs(blocks).max(1, keepdims=True) / 6 * 64) / 64
    return (e2m1(blocks / scale) * scale).reshape(x.shape)


def mxfp4(x: Values) -> Values:
    scale = 2.0 ** (np.floor(np.log2(np.abs(x).max(1, keepdims=True) * 8 / 7)) - 2)
    return e2m1(x / scale) * scale


SERVED: dict[str, tuple[Callable[[Values], Values], Values]] = {
    "fp8": (e4m3, X),
    "fp8_per_token_head": (e4m3_by_head, X),
    "nvfp4": (nvfp4, X),
    "mxfp4": (mxfp4, X),
    "int8_per_token_head": (int8_by_head, HEADS),
    "int4_per_token_head": (int4_by_head, HEADS),
}


@pytest.mark.parametrize("name", SERVED)
def test_servers_formats_too_over_the_group_that_they_have(name: str) -> None:
    """Floats have no group: they are judged over 32, heads over their 128 channels."""
    rounding, x = SERVED[name]
    steps = np.sqrt(error(asymmetric(x, 4), x) * 15**2 / error(rounding(x), x))
    assert KV_NOISE[name].bits == pytest.approx(np.log2(steps + 1), abs=0.06)
    assert KV_NOISE[name].group == (0 if x is HEADS else 32)
    assert (KV_NOISE[name].rotates == "always") == (name == "int4_per_token_head")


def error(y: Values, x: Values = X) -> float:
    return float(((y - x) ** 2).mean())


@pytest.mark.parametrize("name", ROUNDING)
def test_bits_are_those_of_the_asymmetric_format_with_the_same_error(name: str) -> None:
    found = error(ROUNDING[name](X))
    steps = np.sqrt(error(asymmetric(X, 4)) * 15**2 / found)
    assert KV_NOISE[name].bits == pytest.approx(np.log2(steps + 1), abs=0.03)


def test_a_block_without_a_minimum_loses_where_keys_have_offsets() -> None:
    shifted = X + 1.0
    ratio = error(without_minimum(shifted, 4), shifted) / error(asymmetric(shifted, 4), shifted)
    assert 1.6 < ratio < 2.4
    formats = format_arrays(
        load_model("Qwen/Qwen3-8B", offline=True),
        k_bits=[4],
        v_bits=[4],
        granularity=["per-token"],
        group_size=[0],
        block_tokens=[0],
        smoothing=[0],
        rotation=[0],
        residual=[0],
    )
    turned, plain = (with_names(formats, dim, [("q4_0", "q4_0")]) for dim in (128, 80))
    assert turned.rotate_k[0] == turned.rotate_v[0] == 1
    assert plain.rotate_k[0] == 0
    assert turned.k_bits[0] - plain.k_bits[0] == pytest.approx(0.5)
    assert turned.v_bits[0] == plain.v_bits[0]
    assert turned.group[0] == 32


def test_every_kv_format_of_the_grammar_has_noise_and_every_weight_format_bits() -> None:
    ours = {row.name for row in named.KV if row.engines == (named.OURS,)}
    tables = ours - {"mxfp4"}
    assert set(KV_NOISE) == {row.name for row in named.KV} - tables
    assert tables == CODED.keys() - {"fp8", "nvfp4", "mxfp4"}
    for row in named.WEIGHTS:
        assert np.isfinite(equivalent_bits(row.name))


def test_mixes_lose_in_the_order_of_their_published_divergence() -> None:
    rows = [
        row
        for row in csv.DictReader(io.StringIO(profiles.read("published/gguf_kl.csv")))
        if row["model"] == "Llama 3 8B" and row["imatrix"] == "1"
    ]
    rows.sort(key=lambda row: float(row["kl"]))
    bits = [equivalent_bits(row["mix"]) for row in rows]
    assert bits == sorted(bits, reverse=True)
    assert equivalent_bits("Q8_0") > 8 > equivalent_bits("Q5_K_M") > equivalent_bits("Q4_K_M") > 4
    assert equivalent_bits("Q3_K_M") < 4


def test_the_line_is_that_of_published_mmlu_scores() -> None:
    """W of 1 / (1 + W) is 0.021 at AWQ's place; scores have an error of 0.4 points, a hundredth."""
    rows = list(csv.DictReader(io.StringIO(profiles.read("published/gguf_mmlu.csv"))))
    whole = float(rows[0]["mmlu_percent"]) - 25
    for row in rows[1:]:
        kept = (float(row["mmlu_percent"]) - 25) / whole
        bits = np.array([equivalent_bits(row["mix"])])
        predicted = 1 / (1 + 0.021 * weight_noise(bits, 1.584)[0])
        assert predicted == pytest.approx(kept, abs=0.05), row["mix"]


def test_weight_noise_is_what_it_was_at_whole_bits_and_never_rises_with_them() -> None:
    assert weight_noise(np.array([16.0, 8.0, 4.0]), 1.584) == pytest.approx(
        [0.0, np.exp(-1.584), 1.0]
    )
    bits = np.linspace(-16, 15.9, 200)
    assert (np.diff(weight_noise(bits, 1.584)) < 0).all()


SPEC = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
KV = ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
WEIGHTS = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K", "IQ1_S")


def test_retention_falls_from_mix_to_mix_and_says_that_it_is_published() -> None:
    configs = [Configuration.named(mix, "f16", "f16") for mix in WEIGHTS]
    found = predict_many(SPEC, configs, 4096)
    kept = [one.retention for one in found]
    assert kept[0] == 1.0
    assert kept == sorted(kept, reverse=True)
    assert kept[1] > 0.99
    assert all(one.low <= one.retention <= one.high for one in found)
    assert {one.provenance for one in found[1:]} == {"published"}
    assert all(any("divergence" in note for note in one.notes) for one in found[1:])
    assert is_published(SPEC, "Q4_K_M")
    assert not is_published(SPEC, "F16")
    assert not is_published(SPEC, "")


def test_a_gguf_files_own_weights_are_what_it_is_counted_from(tmp_path: Path) -> None:
    spec = load_model(str(write_gguf(tmp_path / "m.gguf", LLAMA, llama_tensors())))
    own, cache = predict_many(
        spec, [Configuration.named("Q4_K_M", kv, kv) for kv in ("f16", "q4_0")], 512
    )
    assert own.retention == own.low == own.high == 1.0
    assert own.retention > cache.retention
    assert any("own answers" in note for note in own.notes)
    assert own.provenance != "published"


def test_kv_formats_of_llama_cpp_are_ordered_and_f16_keeps_everything() -> None:
    kept = {
        kv: predict_many(SPEC, [Configuration.named("F16", kv, kv)], 8192)[0].retention for kv in KV
    }
    assert kept["f16"] == 1.0
    assert kept["f16"] > kept["q8_0"] > kept["q5_1"] > kept["q5_0"] > kept["q4_1"] > kept["q4_0"]
    assert kept["iq4_nl"] > kept["q4_0"]


def test_the_grid_agrees_with_each_configuration() -> None:
    pairs = [(k, v) for k in ("f16", "q8_0", "q4_0") for v in ("f16", "q5_1")]
    configs = [Configuration.named(w, k, v) for w in WEIGHTS[:5] for k, v in pairs]
    one_by_one = predict_many(SPEC, configs, 8192)
    formats = formats_of(SPEC, [Configuration.named("F16", k, v) for k, v in pairs])
    grid = predict_grid(SPEC, [16] * 5, formats, 8192, weight_formats=WEIGHTS[:5])
    assert grid.retention.ravel() == pytest.approx([one.retention for one in one_by_one])
    assert grid.low.ravel() == pytest.approx([one.low for one in one_by_one])


def test_a_model_released_in_mxfp4_loses_nothing_in_its_own_type() -> None:
    names, bits = ["mxfp4", "Q8_0", "Q4_K_M", "", "F16"], [4, 8, 4, 4, 16]
    found = weight_equivalents(SPEC, names, bits, 1.584, released=True)
    assert list(found[[0, 3, 4]]) == [16.0, 16.0, 16.0]
    tenth, whole = weight_noise(np.array([found[2], equivalent_bits("Q4_K_M")]), 1.584)
    assert tenth == pytest.approx(0.1 * whole, rel=1e-6)


def test_a_tenth_of_a_released_model_is_a_tenth_by_the_fit_that_ships() -> None:
    """Weights alone, where the loss is nearly the noise: a tenth of it is a tenth of the loss."""
    spec = load_model("openai/gpt-oss-20b", offline=True)
    mix, dense = [Configuration.named("Q6_K", "f16", "f16")], replace(spec, quantization=None)
    tenth, whole = (predict_many(m, mix, 4096, task="reasoning")[0] for m in (spec, dense))
    assert 1 - tenth.retention == pytest.approx(0.1 * (1 - whole.retention), rel=0.05)


def test_a_plan_for_llama_cpp_judges_each_mix_by_its_own_loss() -> None:
    spec = load_model("Qwen/Qwen2.5-0.5B-Instruct", offline=True)
    work, engine = Workload(2048, 128, 1), find_engine("llama.cpp")
    table = evaluate_placed(Request(spec, work, engine, 3 * 10**9, ram=8 * 10**9, host_only=True))
    every = range(0, len(table.space), 7)
    expected = predict_many(spec, [table.space.configuration(i) for i in every], 2048)
    assert table.points.retention[list(every)] == pytest.approx([x.retention for x in expected])
    assert table.points.low[list(every)] == pytest.approx([x.low for x in expected])
