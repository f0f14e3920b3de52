"""Every model type of transformers' causal and image-text mappings: exact, bounded or refused.

tests/data/coverage.json holds the expected class of each; `python benchmarks/coverage.py --write`
writes it anew. A type that a newer transformers adds may be anything but wrong.
"""

import json
from pathlib import Path

import pytest
import torch

from tests.support.oracle.coverage_meta import (
    EXACT,
    UNCHECKED,
    WRONG,
    all_types,
    answer_of,
    small_config,
)

EXPECTED = json.loads(
    (Path(__file__).parents[2] / "data" / "coverage.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize(("mapping", "kind"), all_types())
def test_every_type_is_exact_bounded_or_refused(mapping: str, kind: str) -> None:
    torch.set_num_threads(1)
    found = answer_of(small_config(mapping, kind))
    assert found.verdict != WRONG, found.reason
    expected = EXPECTED[mapping].get(kind, UNCHECKED)
    if UNCHECKED not in (expected, found.verdict):
        assert found.verdict == expected, found.reason


def test_what_people_ask_for_first_is_exact() -> None:
    """The planner's first wishes stay exact, whatever the table above is rewritten to."""
    wished = {
        "causal": "bailing_hybrid zaya lfm2_moe lfm3 kimi_linear hunyuan_v1_moe recurrent_gemma "
        "zamba dots1 persimmon jetmoe gemma4_unified_text qwen3_5 qwen4_exp_text",
        "image": "gemma4_unified glm5_next lfm2_vl lfm3_vl ernie4_5_vl_moe qwen3_5 qwen4_exp",
    }
    for mapping, kinds in wished.items():
        assert {EXPECTED[mapping][kind] for kind in kinds.split()} == {EXACT}
