"""Every family the planner describes, in the runtime: it runs as transformers does, or is refused.

A model that the runtime cannot run is named by its type; none is run as if it were another.
"""

import json
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from kvpareto.calibration.config_check.meta_model import hf_config
from kvpareto.planner.engines.kvpareto.model_types import why_not
from kvpareto.planner.engines.kvpareto.where_runs import why_planned_only
from kvpareto.planner.errors import BadInput
from kvpareto.planner.models.families.registry import READER_MODULES, STYLE_ALIASES, STYLE_MODULES
from kvpareto.planner.models.read_config import read_model
from kvpareto.runtime.loading import load
from tests.support.tiny_recent import RECENT

RUN = ("gemma4_unified_text", "flint", "beam", "persimmon", "biogpt", "ctrl")
# Refused when the cache is made; the others when their attention is first run.
NO_PLAIN_CACHE = (
    "recurrent_gemma",
    "qwen4_exp_text",
    "hy_v4",
    "axk2",
    "dots3_note_text",
    "inkling_text",
)
READS_THE_CACHE = ("jetmoe", "xglm", "gpt_neox_japanese", "doge")
CONFIG = "w16a16-k16v16+pc8"


@pytest.mark.parametrize("name", RUN)
def test_last_logits_are_transformers_own(name: str) -> None:
    torch.manual_seed(0)
    config = hf_config({**RECENT[name], "dtype": "float32"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own deprecations
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    ids = torch.randint(1, 90, (1, 30))
    with torch.no_grad():
        expected = model(ids, use_cache=False).logits[0, -1]
    with load(model, CONFIG, context=40, output=4) as session:
        found = session.prefill(ids).flatten()
    assert (found - expected).abs().max() < 0.005 * expected.abs().max()


def run(path: Path) -> None:
    """Load a small random model and generate with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own deprecations
        with load(path, CONFIG, context=12, output=4, random_weights=True) as session:
            session.generate([1, 2, 3, 4], max_new_tokens=2)


def refusal(name: str, folder: Path) -> str:
    """What is said of a small random model."""
    path = folder / "config.json"
    path.write_text(json.dumps({**RECENT[name], "dtype": "bfloat16"}), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        run(path)
    return caught.value.message


@pytest.mark.parametrize("name", NO_PLAIN_CACHE)
def test_what_keeps_no_plain_cache_is_refused_by_its_type(name: str, tmp_path: Path) -> None:
    kind, message = RECENT[name]["model_type"], refusal(name, tmp_path)
    assert f"({kind})" in message or f"of this {kind} keeps no plain KV cache" in message


@pytest.mark.parametrize("name", READS_THE_CACHE)
def test_what_reads_its_own_keys_is_refused(name: str, tmp_path: Path) -> None:
    message = refusal(name, tmp_path)
    said = "after the cache update", "a mask that is not causal", f"({RECENT[name]['model_type']})"
    assert any(words in message for words in said)


def test_the_plan_says_what_the_runtime_refuses_by_its_class() -> None:
    """Every type that the planner knows: transformers' class is asked, as runtime/model_class.py
    asks it, and the planner's table says the same, but for states, which its layers show."""
    for kind in sorted({*STYLE_MODULES, *READER_MODULES, *STYLE_ALIASES}):
        if kind in transformers.CONFIG_MAPPING:
            config = transformers.CONFIG_MAPPING[kind]
            found = MODEL_FOR_CAUSAL_LM_MAPPING.get(config, None)
            stateful = getattr(found, "_is_stateful", False)
            refused = not getattr(found, "_supports_attention_backend", False) and not stateful
        else:
            refused = True  # a repository's own code
        refused = refused or kind in READS_THE_CACHE
        assert (why_not(kind) is not None) == refused, kind


@pytest.mark.parametrize("name", READS_THE_CACHE)
def test_what_reads_its_own_keys_is_not_called_runnable(name: str) -> None:
    reason = why_planned_only(read_model(RECENT[name], name), None)
    assert reason is not None
    assert RECENT[name]["model_type"] in reason
