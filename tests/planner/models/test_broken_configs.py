"""A config.json however broken gives a description or one line of error, never anything else."""

import contextlib
import copy
import math
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from kvpareto.planner.engines import find_engine
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.errors import BadConfig, KVParetoError
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_config
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.workload import Workload
from tests.support.tiny_configs import BASE, CONFIGS
from tests.support.tiny_recent import ALL

VALUES: list[Any] = [None, True, False, -1, 0, 1, 3, 10**6, 10**12, 10**40, 1.5, math.nan, math.inf,
                     -2.0, 1e308, "", "x", "auto", "\ud800", "日本", [], [1], [None], [[1]],
                     ["full_attention"], {}, {"a": 1}, "1" * 10_000]  # fmt: skip


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*prefix, key)
        if isinstance(inner, (dict, list)):
            yield from paths(inner, (*prefix, key))


def mutate(config: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    broken = copy.deepcopy(config)
    for _ in range(chance.choice([1, 1, 2, 5])):
        where = chance.choice(list(paths(broken)))
        holder: Any = broken
        for key in where[:-1]:
            holder = holder[key]
        if chance.random() < 0.25 and isinstance(holder, dict):
            del holder[where[-1]]
        else:
            holder[where[-1]] = copy.deepcopy(chance.choice(VALUES))
        if not broken:
            break
    return broken


@pytest.mark.parametrize("name", ALL)
def test_mutations_give_a_description_or_a_line(name: str) -> None:
    chance = random.Random(name)
    lines: list[tuple[str, str]] = []
    for _ in range(25):
        broken = mutate(ALL[name], chance)
        try:
            spec = read_model(broken, name)
            assert spec.parameters > 0
            kv_bytes(spec, Configuration(), Workload(100, 3), TRANSFORMERS)
            kv_bytes(spec, Configuration.parse("w4a16-k4v4-g32+pc8"), Workload(100, 3), KVPARETO)
        except KVParetoError as error:
            lines.append((error.message, error.hint))
    for message, hint in lines:
        assert message
        assert hint
        assert "\n" not in message + hint


def test_a_field_of_another_kind_is_named_as_the_file_names_it() -> None:
    """Whatever spelling a family reads, and whatever section it makes of the file's fields."""
    named = []
    for name, config in ALL.items():
        for where in paths(config):
            if not all(isinstance(key, str) for key in where):
                continue
            broken = copy.deepcopy(config)
            holder: Any = broken
            for key in where[:-1]:
                holder = holder[key]
            holder[where[-1]] = "no size"
            with contextlib.suppress(BadConfig):
                read_model(broken, name)
                continue
            with pytest.raises(BadConfig) as caught:
                read_model(broken, name)
            said = re.match(r"config\.json: (\S+) is 'no size', not", caught.value.message)
            if said is not None:
                named.append((said[1].split(".")[-1], where[-1], name))
    assert len(named) > 1500
    assert [one for one in named if one[0] != one[1]] == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"n_positions": -1}, "n_positions"),
        ({"n_embd": 0}, "n_embd"),
        ({"n_layer": "12"}, "n_layer"),
        ({"n_head": 2.5}, "n_head"),
    ],
)
def test_an_older_spelling_is_named_where_it_stands(change: dict[str, Any], name: str) -> None:
    config = load_config("openai-community/gpt2-medium").config
    with pytest.raises(BadConfig, match=f"^config.json: {name} is "):
        read_model({**config, **change}, "gpt2")


def test_what_stands_in_the_file_is_not_called_missing() -> None:
    config = {**BASE, "model_type": "zork", "hidden_size": -8}
    with pytest.raises(BadConfig, match="hidden_size is -8, not a number above 0"):
        read_model(config, "zork")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_hidden_layers": "many"}, "num_hidden_layers is 'many', not a whole number"),
        ({"num_hidden_layers": 10**9}, "between 1 and 2048"),
        ({"hidden_size": math.nan}, "hidden_size is nan"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"num_key_value_heads": 5}, "a divisor of the 6 query heads"),
        ({"layer_types": ["full_attention"]}, "a list of 4, one for each layer"),
        ({"layer_types": ["full_attention", "x", "x", "x"]}, "a kind of attention"),
        ({"attention_bias": "no"}, "attention_bias is 'no', not true or false"),
        ({"vocab_size": -3}, "vocab_size is -3"),
        ({"model_type": 5}, "model_type is 5, not a text"),
    ],
)
def test_errors_name_the_field(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        read_model({**CONFIGS["llama"], **change}, "broken")


@pytest.mark.parametrize("config", [None, 3, "x", [], {}])
def test_what_is_no_config(config: Any) -> None:
    with pytest.raises(BadConfig):
        read_model(config, "nothing")


@pytest.mark.parametrize("kind", ["bert", "t5", "whisper", "modernbert"])
def test_encoders_are_refused(kind: str) -> None:
    with pytest.raises(BadConfig, match="encoder"):
        read_model({**BASE, "model_type": kind}, kind)


@pytest.mark.parametrize("kind", ["llada", "llada_moe", "Dream"])
def test_what_fills_all_places_in_at_once_is_refused(kind: str) -> None:
    with pytest.raises(BadConfig, match="masked diffusion model"):
        read_model({**BASE, "model_type": kind}, kind)


def test_an_unknown_type_is_read_as_llama_with_bounds() -> None:
    known, unknown = (read_model({**BASE, "model_type": t}, t) for t in ("llama", "newcomer"))
    assert unknown.layers == known.layers
    assert any("'newcomer' is not known: read as llama" in note for note in unknown.warnings)
    (bound,) = unknown.bounds
    assert bound.quantity == "parameters"
    assert bound.low < known.parameters < bound.high
    assert "newcomer" in bound.because


def test_an_unknown_type_without_sizes_is_refused() -> None:
    with pytest.raises(BadConfig, match="cannot be read as a Llama either") as caught:
        read_model({"model_type": "newcomer", "hidden_size": 48}, "newcomer")
    assert "docs/models.md" in caught.value.hint


def test_an_unknown_model_around_a_known_text_model() -> None:
    text = {**CONFIGS["qwen3"]}
    spec = read_model({"model_type": "newcomer_vl", "text_config": text}, "vl")
    alone = read_model(text, "text")
    assert spec.layers == alone.layers
    assert spec.bounds[0].low == alone.parameters
    assert any("other towers" in note for note in spec.warnings)


def test_a_missing_size_takes_transformers_default_and_says_so() -> None:
    config = {k: v for k, v in CONFIGS["mistral-window"].items() if k != "num_key_value_heads"}
    config["num_attention_heads"] = 8
    spec = read_model(config, "mistral")
    assert {m.kv_heads for layer in spec.layers for m in layer.mixers} == {8}  # type: ignore[union-attr]
    assert "num_key_value_heads is not in the config: taken as 8" in spec.warnings[0]


def test_a_window_that_comes_from_a_default_is_said() -> None:
    config = {k: v for k, v in CONFIGS["mistral-window"].items() if k != "sliding_window"}
    spec = read_model(config, "mistral")
    assert {m.window for layer in spec.layers for m in layer.mixers} == {4096}  # type: ignore[union-attr]
    assert "sliding_window is not in the config: taken as 4096" in spec.warnings[0]


def test_falcon_h1_without_its_width_is_its_heads() -> None:
    # Falcon-H1-0.5B as published, mamba_d_ssm (1536) left out: transformers' default, 1024,
    # contradicts the heads.
    config = {
        "model_type": "falcon_h1", "dtype": "bfloat16", "vocab_size": 32784, "hidden_size": 1024,
        "intermediate_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 8,
        "num_key_value_heads": 2, "head_dim": 64, "mamba_n_heads": 24, "mamba_d_head": 64,
        "mamba_n_groups": 1, "mamba_d_state": 128, "mamba_d_conv": 4, "mamba_expand": 2,
        "tie_word_embeddings": False,
    }  # fmt: skip
    spec = read_model(config, "falcon-h1")
    assert spec.parameters == 521_411_104
    assert any(
        "mamba_d_ssm is not in the config: taken as 24 heads of 64" in w for w in spec.warnings
    )
    with pytest.raises(BadConfig, match="24 heads of 64"):
        read_model({**config, "mamba_d_ssm": 2048}, "contradiction")


@pytest.mark.parametrize("path", [("thinker_config", "text_config"), ("llm_config",)])
def test_a_text_model_is_found_wherever_a_family_keeps_it(path: tuple[str, ...]) -> None:
    text = CONFIGS["qwen2"]
    config: dict[str, Any] = text
    for name in reversed(path):
        config = {name: config}
    spec = read_model({"model_type": "newcomer_omni", "dtype": "bfloat16", **config}, "omni")
    alone = read_model(text, "alone")
    assert (spec.parameters, spec.layers) == (alone.parameters, alone.layers)
    assert spec.bounds[0].high == alone.parameters + 6_500_000_000


def _qwen(**changes: Any) -> dict[str, object]:
    return {**load_config("Qwen/Qwen2.5-7B-Instruct", offline=True).config, **changes}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("torch_dtype", "banana"),
        ("torch_dtype", 16),
        ("dtype", ["bfloat16"]),
        ("rope_scaling", "yarn"),
        ("rope_scaling", [1.0]),
        ("rope_parameters", [1]),
        ("rope_theta", "many"),
        ("rope_theta", True),
        ("model_type", ["qwen2"]),
        ("model_type", 3),
        ("architectures", "Qwen2ForCausalLM"),
        ("architectures", [3]),
        ("text_config", "a"),
    ],
)
def test_nonsense_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(BadConfig, match=rf"config\.json: {key} is "):
        read_model(_qwen(**{key: value}), "edited")


def test_a_nested_section_is_looked_at_too() -> None:
    config = dict(load_config("google/gemma-3-12b-it", offline=True).config)
    config["text_config"] = {**config["text_config"], "rope_scaling": "linear"}  # type: ignore[dict-item]
    with pytest.raises(BadConfig, match=r"text_config\.rope_scaling is 'linear', not an object"):
        read_model(config, "edited")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("torch_dtype", "torch.float16"),
        ("torch_dtype", "auto"),
        ("torch_dtype", "float8_e4m3fn"),
        ("rope_scaling", None),
        ("rope_theta", [1e4, 1e6]),
        ("architectures", None),
    ],
)
def test_what_is_legal_is_read(key: str, value: object) -> None:
    assert read_model(_qwen(**{key: value}), "edited").parameters == 7_615_616_512


def test_a_dtype_that_nothing_computes_in_is_noted() -> None:
    spec = read_model(_qwen(torch_dtype="float8_e4m3fn", dtype=None), "edited")
    assert any("float8_e4m3fn" in note for note in spec.warnings)


def test_experts_that_do_not_go_in_their_own_blocks_are_refused_where_a_file_is_counted() -> None:
    config = {**load_config("openai/gpt-oss-20b").config, "hidden_size": 2881}
    spec = read_model(config, "edited")
    with pytest.raises(BadConfig, match="rows of 2881 are no multiple of 32"):
        estimate(spec, Configuration(), Workload(1000, 10), find_engine("llama.cpp"), None)


@pytest.mark.parametrize("key", ["kv_lora_rank", "v_head_dim"])
def test_an_unknown_model_s_latent_has_channels(key: str) -> None:
    config = {**load_config("moonshotai/Kimi-K2-Instruct").config, "model_type": "nobodys", key: 0}
    with pytest.raises(BadConfig, match=f"{key} is 0, not between 1 and"):
        read_model(config, "edited")
