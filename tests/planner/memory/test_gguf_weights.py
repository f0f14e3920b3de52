"""GGUF sizes: llama-quantize's rule by its own snapshots, and published files within 1 %."""

import csv
import io
from collections import defaultdict
from pathlib import Path

import pytest

from kvpareto import profiles
from kvpareto.planner.errors import BadConfig, BadInput
from kvpareto.planner.formats import named
from kvpareto.planner.formats.gguf_mix import MixFacts, tensor_type
from kvpareto.planner.formats.gguf_types import GGUF_TYPES, KV_TYPES, MIXES
from kvpareto.planner.load_model import load_config, load_model
from kvpareto.planner.memory.gguf_weights import gguf_sizes, gguf_weight_bytes
from kvpareto.planner.models.read_config import read_model
from tests.support.gguf_files import LLAMA, headers, llama_tensors, tensors_of, write_gguf

ROWS = list(csv.DictReader(io.StringIO(profiles.read("published/gguf_sizes.csv"))))
OLDER = "older rule"

# llama.cpp's tests/snapshots/qwen3-14b.schema: 40 layers, 40 query heads, 8 KV heads.
QWEN3_14B = MixFacts(layers=40, value_tensors=40, gqa=5)
MORE = {*range(5), 7, 10, 13, 16, 19, 22, 25, 28, 31, 34, *range(35, 40)}


def chosen(mix: str, kind: str, facts: MixFacts = QWEN3_14B, columns: int = 5120) -> list[str]:
    return [tensor_type(mix, kind, i, columns, facts) for i in range(facts.layers)]


def test_the_rule_is_llama_quantizes_own() -> None:
    by_layer = ["Q6_K" if i in MORE else "Q4_K" for i in range(40)]
    assert chosen("Q4_K_M", "attn_v") == chosen("Q4_K_M", "ffn_down") == by_layer
    assert chosen("Q4_K_S", "attn_v") == ["Q5_K"] * 4 + ["Q4_K"] * 36
    assert chosen("Q4_K_S", "ffn_down") == ["Q5_K"] * 5 + ["Q4_K"] * 35
    assert chosen("Q3_K_M", "attn_v") == ["Q5_K"] * 2 + ["Q4_K"] * 38
    assert chosen("Q3_K_M", "ffn_down") == ["Q5_K"] * 2 + ["Q4_K"] * 38
    assert set(chosen("Q3_K_M", "attn_output")) == {"Q4_K"}
    assert set(chosen("Q3_K_L", "attn_output")) == {"Q5_K"}
    assert set(chosen("Q2_K", "attn_v")) == {"Q4_K"}
    assert set(chosen("Q2_K", "ffn_down")) == {"Q3_K"}
    assert chosen("IQ2_XXS", "ffn_down") == ["Q2_K"] * 5 + ["IQ2_XXS"] * 35
    assert set(chosen("Q5_K_S", "attn_v")) == {"Q5_K"}
    heads = {mix: tensor_type(mix, "output", 0, 5120, QWEN3_14B) for mix in MIXES}
    assert heads["Q4_K_M"] == heads["Q4_0"] == heads["Q6_K"] == heads["Q2_K"] == "Q6_K"
    assert heads["Q8_0"] == "Q8_0"
    assert heads["IQ2_XXS"] == "Q5_K"
    assert heads["F16"] == "F16"


def test_seventy_b_and_eight_experts_get_finer_values() -> None:
    seventy = MixFacts(layers=80, value_tensors=80, gqa=8, seventy_b=True)
    assert set(chosen("Q2_K", "attn_v", seventy)) == {"Q5_K"}
    assert set(chosen("Q3_K_S", "attn_v", seventy)) == {"Q5_K"}
    eight = MixFacts(layers=32, value_tensors=32, gqa=4, experts=8)
    assert set(chosen("Q4_K_M", "attn_v", eight)) == {"Q8_0"}
    assert set(chosen("Q4_K_M", "attn_k", eight)) == {"Q8_0"}
    assert set(chosen("Q4_K_M", "attn_output", eight)) == {"Q5_K"}


def test_rows_that_are_no_blocks_fall_back() -> None:
    wide = {"Q4_K_M": "Q5_0", "Q6_K": "Q8_0", "Q2_K": "Q4_0", "Q5_K_S": "Q5_1", "IQ4_XS": "IQ4_NL"}
    found = {mix: tensor_type(mix, "ffn_up", 0, 2880, QWEN3_14B) for mix in wide}
    assert found == wide
    assert tensor_type("Q4_K_M", "ffn_up", 0, 100, QWEN3_14B) == "F16"
    assert tensor_type("Q4_K_M", "output", 0, 2880, QWEN3_14B) == "Q8_0"


@pytest.mark.parametrize("model", sorted({row["model"] for row in ROWS}))
def test_derived_sizes_are_those_of_published_files(model: str) -> None:
    spec = load_model(model, offline=True)
    wrong = []
    by_matrix = defaultdict(list)
    for row in ROWS:
        if row["model"] == model and not row["note"].startswith(OLDER):
            by_matrix[row["imatrix"] == "1"].append(row)
    for imatrix, rows in by_matrix.items():
        found = gguf_sizes(spec, [row["mix"] for row in rows], imatrix=imatrix)
        for row in rows:
            one = found[row["mix"]]
            size = one.total if row["note"].startswith("tensors alone") else one.file
            assert one.derived
            if abs(size / int(row["bytes"]) - 1) > 0.01:
                wrong.append((row["mix"], size, row["bytes"]))
    assert not wrong


def test_many_published_files_are_held() -> None:
    held = [row for row in ROWS if not row["note"].startswith(OLDER)]
    assert len(held) >= 100
    assert len({row["mix"] for row in held}) >= 24
    assert all(row["source"].startswith("https://") for row in ROWS)


def test_parts_sum_and_a_file_is_its_own_tensors(tmp_path: Path) -> None:
    derived = gguf_weight_bytes(load_model("openai/gpt-oss-20b", offline=True), "MXFP4_MOE")
    parts = sum(derived.by_layer) + derived.embedding + derived.output + derived.other
    assert parts == derived.total == sum(derived.by_type.values())
    assert 0 < sum(derived.experts_by_layer) < sum(derived.by_layer)
    spec = load_model(str(write_gguf(tmp_path / "m.gguf", LLAMA, llama_tensors())))
    own = gguf_weight_bytes(spec)
    assert spec.gguf is not None
    assert own.total == spec.gguf.tensor_bytes
    assert not own.derived
    assert own.embedding == 96 * 210
    assert own.output == 0
    assert sum(own.by_layer) + own.embedding + own.other == own.total
    with pytest.raises(BadInput, match="not of Q8_0"):
        gguf_weight_bytes(spec, "Q8_0")


def test_experts_of_a_file_are_those_of_each_layer(tmp_path: Path) -> None:
    """Four layers; three matrices of 48 x 40, three experts each, in two bytes."""
    row = headers()["mixtral"]
    spec = load_model(str(write_gguf(tmp_path / "m.gguf", row["keys"], tensors_of(row))))
    own = gguf_weight_bytes(spec)
    assert own.experts_by_layer == (3 * 48 * 40 * 3 * 2,) * 4
    assert all(0 < e < whole for e, whole in zip(own.experts_by_layer, own.by_layer, strict=True))


def test_names_in_any_case_and_by_alias() -> None:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    assert gguf_weight_bytes(spec, "q4_k").mix == "Q4_K_M"
    assert gguf_weight_bytes(spec, "mxfp4").mix == "MXFP4_MOE"


@pytest.mark.parametrize("mix", ["Q9_K", "", "four bits"])
def test_a_mix_that_does_not_exist_is_refused(mix: str) -> None:
    with pytest.raises(BadInput, match="no type of GGUF"):
        gguf_weight_bytes(load_model("Qwen/Qwen3-8B", offline=True), mix)


def test_mxfp4_experts_of_no_whole_blocks_are_a_mistake_of_the_config() -> None:
    config = dict(load_config("openai/gpt-oss-20b", offline=True).config)
    spec = read_model(config | {"intermediate_size": 2880 + 8}, "odd")
    with pytest.raises(BadConfig, match="their rows of 2888 are no multiple of 32"):
        gguf_weight_bytes(spec, "MXFP4_MOE")


HEADERS = headers()


@pytest.mark.parametrize("name", HEADERS)
def test_a_derived_bf16_file_weighs_what_the_converter_wrote(name: str, tmp_path: Path) -> None:
    """Shapes of every tensor that llama.cpp's converter writes, by the bytes of its BF16 file."""
    row = HEADERS[name]
    spec = load_model(str(write_gguf(tmp_path / "m.gguf", row["keys"], tensors_of(row))))
    assert spec.gguf is not None
    derived = gguf_sizes(spec, ["BF16"])["BF16"]
    added = sum(t.nbytes for t in spec.gguf.tensors if t.name.startswith("rope_f"))
    assert derived.total == pytest.approx(spec.gguf.tensor_bytes - added, rel=0.02)


def test_the_grammars_formats_have_the_same_blocks() -> None:
    for row in named.KV:
        if row.name in KV_TYPES:
            kind = KV_TYPES[row.name]
            assert (row.block, row.block_bytes) == (kind.block, kind.block_bytes)
    for row in named.WEIGHTS:
        kind = GGUF_TYPES.get(row.name) or MIXES.get(row.name)
        if kind is not None and named.LLAMA_CPP in row.engines:
            assert (row.block, row.block_bytes) == (kind.block, kind.block_bytes), row.name
