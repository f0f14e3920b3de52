"""Loading: folders, models in memory, random weights, and what is said when it cannot be done."""

import json
import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from kvpareto.planner.errors import BadInput, MissingDependency
from kvpareto.planner.formats.configuration import CHUNKS, Configuration
from kvpareto.planner.memory.weights import weight_bytes
from kvpareto.runtime import load
from kvpareto.runtime.generation.prefill import chunk_sizes, fitting_chunk
from kvpareto.runtime.generation.tokenizer import check_words
from tests.support.data_files import STORIES

PROMPT = "Once upon a time"


def test_a_folder_is_loaded_with_its_tokenizer_and_stop_tokens() -> None:
    with load(STORIES, "w16a16-k8v8+pc64", context=64, output=32) as run:
        assert run.stops == {2}
        found = run.generate(PROMPT, 20)
        assert found.text == [", there was a little girl named Lily. She loved to play outsid"]
        assert run.memory().weights == 1_040_160  # 260,032 parameters and 8 rotary buffers, fp32


def test_weights_are_packed_while_loading() -> None:
    pytest.importorskip("triton")
    kind = torch.bfloat16
    with load(STORIES, "w8a16-k8v8", context=64, output=32, dtype=kind) as run:
        packed = [m for m in run.model.modules() if type(m).__name__ == "W8Linear"]
        assert len(packed) == 5 * 7
        parts = weight_bytes(run.spec, 8)
        extra = run.memory().weights - parts.total
        assert 0 < extra < parts.workspace + 2**16  # the workspace, its counters, RoPE's angles
        assert len(run.generate(PROMPT, 5, stops=frozenset()).tokens[0]) == 5


def test_random_weights_need_a_config_only(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    shutil.copy(STORIES / "config.json", tmp_path)
    with load(tmp_path, "w4a16-k4v4", context=16, output=8, random_weights=True) as run:
        assert run.tokenizer is None
        assert len(run.generate([5, 6, 7], 8, stops=frozenset()).tokens[0]) == 8


def test_closing_lets_go_of_a_model_that_was_loaded() -> None:
    with load(STORIES, "w16a16-k8v8", context=64, output=0) as run:
        run.prefill(PROMPT)
        model, weight = weakref.ref(run.model), weakref.ref(run.model.lm_head.weight)
        assert model() is not None
    assert model() is None
    assert weight() is None


def test_a_model_in_memory_is_used_as_it_is() -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(STORIES, dtype=torch.float32)
    with load(model, "w16a16-k16v16", context=64, output=0) as run:
        assert run.model is model
        assert run.cache.capacity == 64


def test_dynamic_chunks_follow_the_memory_target() -> None:
    sizes = {64: 100, 128: 200, 256: 400}
    choose = fitting_chunk(lambda chunk, cached: sizes.get(chunk, 9999) + cached, 450)
    assert [choose(0), choose(60), choose(300), choose(5000)] == [256, 128, 64, 64]
    config = Configuration.parse("w16a16-k4v4+pcdyn")
    assert list(chunk_sizes(500, config, choose)) == [256, 64, 64, 64, 52]
    assert list(chunk_sizes(500, config)) == [500]
    assert list(chunk_sizes(500, Configuration.parse("w16a16-k4v4+pc200"))) == [200, 200, 100]
    assert list(chunk_sizes(500, Configuration())) == [500]


def test_dynamic_chunks_shrink_as_the_target_tightens() -> None:
    taken = []
    for target in (10**9, 250_000_000, 1):
        room = {"context": 4096, "output": 0, "memory_target": target}
        with load(STORIES, "w16a16-k8v8+pcdyn", **room) as run:
            assert run._dynamic is not None
            taken.append(run._dynamic(0))
    assert taken == sorted(taken, reverse=True)
    assert taken[0] == CHUNKS[-1]
    assert taken[-1] == CHUNKS[0]


def test_refusals_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="memory target"):
        load(STORIES, "w16a16-k8v8+pcdyn", device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(MissingDependency, match="no CUDA GPU"):
            load(STORIES, "w16a16-k8v8", device="cuda")
    with pytest.raises(BadInput, match="not a configuration"):
        load(STORIES, "int4 please")
    config = json.loads((STORIES / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="quantized as 'gptq'"):
        load(tmp_path, "w4a16-k8v8")
    config["quantization_config"] = {"quant_method": "awq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="stores 4-bit weights"):
        load(tmp_path, "w16a16-k8v8")


def test_a_tokenizer_of_more_words_than_rows_is_another_models() -> None:
    """Words that were added are counted apart: some models have no row for an image's."""
    words: Any = SimpleNamespace(
        get_vocab=lambda: {"a": 0, "b": 4, "<image>": 9}, get_added_vocab=lambda: {"<image>": 9}
    )
    check_words(words, 5, "some")
    with pytest.raises(BadInput, match="numbers words up to 4, the model knows 4"):
        check_words(words, 4, "some")
