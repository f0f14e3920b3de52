"""Whole models through the packed cache, held to transformers' own forward pass and generation.

The reference is transformers' eager attention over a DynamicCache whose keys and values are
rounded to bfloat16 as they are stored, which is all that a 16/16 configuration does to them.
"""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.workload import Workload
from kvpareto.runtime.attention import ATTENTION_NAME, register
from kvpareto.runtime.cache.kv_cache import PackedCache
from tests.support.data_files import STORIES
from tests.support.runtime_builders import (
    FAMILIES,
    FORMATS,
    SMALL,
    TOLERANCE,
    RoundedCache,
    relative_error,
    session,
    small_model,
)

PROMPT = "Once upon a time, there was a little girl"


@torch.no_grad()
def plain_logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """The last token's logits by transformers, eager, one shot."""
    model.set_attn_implementation("eager")
    return model(ids, past_key_values=RoundedCache(config=model.config)).logits[:, -1]


@torch.no_grad()
def plain_tokens(model: PreTrainedModel, ids: torch.Tensor, count: int) -> list[int]:
    """Greedy tokens by transformers' eager attention."""
    model.set_attn_implementation("eager")
    cache, found = RoundedCache(config=model.config), []
    for _ in range(count):
        ids = model(ids, past_key_values=cache).logits[:, -1:].argmax(-1)
        found.append(int(ids))
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunk", ["", "+pc5"], ids=["one-shot", "chunk-5"])
def test_sixteen_bits_equal_transformers(family: str, chunk: str) -> None:
    model = small_model(family)
    ids = torch.randint(3, 97, (1, 23), generator=torch.Generator().manual_seed(1))
    expected = plain_logits(model, ids)
    tokens = plain_tokens(model, ids, 12)
    with session(model, "w16a16-k16v16" + chunk, tokens=40) as run:
        assert relative_error(run.prefill(ids), expected) < TOLERANCE
        assert run.generate(ids, 12, stops=frozenset()).tokens == [tokens]


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
@pytest.mark.parametrize("tokens", [9, 23])
def test_chunks_turn_keys_as_one_pass_over_the_whole_prompt_does(kind: str, tokens: int) -> None:
    model = _model_whose_frequencies_follow_length(kind)
    ids = torch.randint(3, 97, (1, tokens), generator=torch.Generator().manual_seed(1))
    expected = plain_logits(model, ids)
    with session(model, "w16a16-k16v16+pc4", tokens=30) as run:
        for _ in range(2):
            assert relative_error(run.prefill(ids), expected) < TOLERANCE
    assert relative_error(plain_logits(model, ids), expected) < TOLERANCE  # given back


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_frequencies_that_transformers_put_in_inference_mode_do_no_harm(kind: str) -> None:
    model = _model_whose_frequencies_follow_length(kind)
    ids = torch.randint(3, 97, (1, 23), generator=torch.Generator().manual_seed(1))
    expected = plain_logits(model, ids)
    with torch.inference_mode():  # newer transformers write in place, older ones replace
        rotary = next(m for m in model.modules() if hasattr(m, "rope_type"))
        rotary.register_buffer("inv_freq", rotary.inv_freq.clone(), persistent=False)
    with session(model, "w16a16-k16v16+pc4", tokens=30) as run:
        assert relative_error(run.prefill(ids), expected) < TOLERANCE


def _model_whose_frequencies_follow_length(kind: str) -> PreTrainedModel:
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 10000.0, "factor": 16.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 8, "long_factor": [1.5, 2, 3, 4, 5, 6, 7, 8]}
        rope |= {"original_max_position_embeddings": 16}
    room = 256 if kind == "longrope" else 16
    fields = SMALL | {"rope_parameters": rope, "max_position_embeddings": room}
    if kind == "longrope":
        fields |= {"original_max_position_embeddings": 16}
    torch.manual_seed(5)
    config = CONFIG_MAPPING["phi3" if kind == "longrope" else "llama"](**fields)
    found: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_left_padded_batch_equals_each_sequence_alone(family: str) -> None:
    model = small_model(family)
    make = torch.Generator().manual_seed(2)
    rows = [torch.randint(3, 97, (n,), generator=make).tolist() for n in (19, 6, 1)]
    text = "w16a16-k8v8-g32+pc8"
    with session(model, text, tokens=40, batch=3) as run:
        logits = run.prefill(rows)
        together = run.generate(rows, 9, stops=frozenset()).tokens
    for index, row in enumerate(rows):
        with session(model, text, tokens=40) as run:
            assert relative_error(logits[index : index + 1], run.prefill([row])) < TOLERANCE
            assert run.generate([row], 9, stops=frozenset()).tokens == [together[index]]


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss"])
def test_smoothing_is_refused_where_softmax_would_see_it(family: str) -> None:
    with pytest.raises(BadInput, match=r"layer 0 has a .*K-smoothing would change"):
        session(small_model(family), "w16a16-k4v4+smooth", tokens=8)


@pytest.mark.parametrize("family", ["qwen2", "gpt_oss"])
def test_rotation_costs_nothing_at_eight_bits(family: str) -> None:
    model = small_model(family)
    ids = torch.randint(3, 97, (1, 23), generator=torch.Generator().manual_seed(1))
    expected = plain_logits(model, ids)
    with session(model, "w16a16-k8v8+rot", tokens=40) as run:
        assert relative_error(run.prefill(ids), expected) < 0.02


@pytest.fixture(scope="module")
def stories() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(STORIES, dtype=torch.float32).eval()


def test_the_tiny_real_model_writes_what_transformers_writes(stories: PreTrainedModel) -> None:
    # against plain transformers, nothing rounded: 400 greedy tokens
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    stories.set_attn_implementation("sdpa")
    generate: Any = stories.generate
    expected = generate(ids, max_new_tokens=400, do_sample=False)[0, ids.shape[1] :]
    with session(stories, "w16a16-k16v16", tokens=450, tokenizer=tokenizer) as run:
        found = run.generate(PROMPT, 400)
        assert found.tokens == [expected.tolist()]
        assert found.text is not None
        assert "".join(run.stream(PROMPT, 40)) == run.generate(PROMPT, 40).text[0]  # type: ignore[index]


def test_transformers_own_generate_runs_on_a_packed_cache(stories: PreTrainedModel) -> None:
    model: Any = stories
    ids = AutoTokenizer.from_pretrained(STORIES)(PROMPT, return_tensors="pt").input_ids
    model.set_attn_implementation("sdpa")
    expected = model.generate(ids, max_new_tokens=40, do_sample=False)
    register()
    model.set_attn_implementation(ATTENTION_NAME)
    spec = read_model(model.config.to_dict(), "stories")
    cache = PackedCache(spec, Configuration(), tokens=60)
    found = model.generate(ids, max_new_tokens=40, do_sample=False, past_key_values=cache)
    assert torch.equal(found, expected)


def test_more_bits_stay_closer_to_the_model(stories: PreTrainedModel) -> None:
    ids = AutoTokenizer.from_pretrained(STORIES)(PROMPT, return_tensors="pt").input_ids
    expected = plain_logits(stories, ids)
    errors = []
    for text in ("w16a16-k16v16", "w16a16-k8v8", "w16a16-k4v4", "w16a16-k2v2"):
        with session(stories, text, tokens=16) as run:
            errors.append(relative_error(run.prefill(ids), expected))
    assert errors == sorted(errors)
    assert errors[0] < TOLERANCE


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("chunk", ["", "+pc4", "+pcdyn"])
def test_allocated_bytes_are_the_predicted_ones(text: str, chunk: str) -> None:
    model = small_model("gemma3_text")  # five layers of six slide
    config = Configuration.parse(text + chunk)
    work = Workload(context=37, output=11, batch=2)
    with session(model, text + chunk, tokens=work.tokens, batch=2) as run:
        predicted = kv_bytes(run.spec, config, work, KVPARETO).total
        assert run.memory().kv == run.cache.nbytes == predicted
