"""What a reader is told of a configuration's prompt, chunk and cache."""

import pytest

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.search.notes import configuration_notes
from kvpareto.planner.search.recommend import Request, recommend
from kvpareto.planner.units import budget_for, format_bytes
from kvpareto.planner.workload import Workload


def notes(model: str, config: str, workload: Workload) -> str:
    spec = load_model(model, offline=True)
    return "; ".join(configuration_notes(spec, Configuration.parse(config), workload, KVPARETO))


def test_prompt_and_output_beyond_the_positions_are_said() -> None:
    assert "512 + 513 tokens of prompt and output are more than the 1,024" in notes(
        "gpt2", "w16a16-k16v16", Workload(512, output=513)
    )
    assert "2k tokens are more than the 1,024" in notes("gpt2", "w16a16-k16v16", Workload(2048))
    assert notes("gpt2", "w16a16-k16v16", Workload(512, output=512)) == ""


def test_a_default_context_leaves_room_for_the_output() -> None:
    assert Workload.parse(None, "512", "1", 1024).context == 512
    assert Workload.parse(None, "512", "1", 32_768).tokens == 32_768
    assert Workload.parse(None, "512", "1", 131_072).context == 32_768
    assert Workload.parse(None, "512", "1", None).context == 32_768
    assert Workload.parse("1024", "512", "1", 1024).context == 1024
    assert Workload.parse("100", "2k", "1", 1024).tokens == 2148  # a note says that it is too much
    for output in ("1024", "2k"):
        with pytest.raises(BadInput, match="leaves none for a prompt") as found:
            Workload.parse(None, output, "1", 1024)
        assert found.value.hint.startswith("--output 512; ")


@pytest.mark.parametrize(("longest", "output"), [(1, 0), (2, 1), (512, 256), (1023, 511)])
def test_a_short_model_gets_prompt_and_output_by_halves(longest: int, output: int) -> None:
    asked = Workload.parse(None, None, "1", longest)
    assert (asked.context, asked.output) == (longest - output, output)


def test_without_a_typed_output_it_is_512_where_the_model_allows() -> None:
    for longest in (1024, 40_960, None):
        assert Workload.parse(None, None, "1", longest).output == 512


@pytest.mark.parametrize("model", ["openai/gpt-oss-20b", "google/gemma-3-12b-it"])
def test_a_sliding_cache_in_one_shot_is_said_to_hold_the_prompt(model: str) -> None:
    spec = load_model(model, offline=True)
    workload = Workload(32_768)
    said = notes(model, "w16a16-k16v16", workload)
    assert "in one shot the sliding layers' cache holds the whole prompt" in said
    chunked = Configuration.parse("w16a16-k16v16+pc2048")
    size = KVPARETO.kv_bytes(spec, chunked, workload).total
    assert format_bytes(size) in said
    for left in (
        notes(model, "w16a16-k16v16+pc2048", workload),
        notes(model, "w16a16-k16v16", Workload(100, output=20)),
    ):
        assert "whole prompt" not in left
        assert ("mxfp4 weights are dequantized to 16 bits" in left) is ("gpt-oss" in model)


def test_a_step_down_says_the_end_that_must_fit(qwen: Request) -> None:
    found = recommend(qwen)
    assert found.next_down is not None
    high, low = found.recommended.memory.total_high, found.next_down.memory.total_high
    (down,) = (text for text in found.steps if text.startswith("Down"))
    assert f"needs up to {budget_for(low, ' ')} ({format_bytes(high - low)} less)" in down
