"""Published configs: one of each family against transformers, and numbers derived by hand."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import transformers

from kvpareto.calibration.config_check.meta_model import parameter_groups
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec, Part
from kvpareto.planner.workload import Workload
from tests.planner.models.meta_models import build, groups_of

FOLDER = Path(__file__).parents[3] / "profiles" / "models"
GIB = 2**30


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _one_of_each() -> dict[str, Path]:
    """model_type -> the first bundled config of it that transformers has a class for."""
    found: dict[str, Path] = {}
    for path in sorted(FOLDER.glob("*.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config.get("model_type")
        named = config.get("architectures") or [None]
        if kind in transformers.CONFIG_MAPPING and (
            named[0] is None or hasattr(transformers, named[0])
        ):
            found.setdefault(kind, path)
    return found


EACH = _one_of_each()


@pytest.mark.parametrize("kind", sorted(EACH))
def test_published_parameters_are_transformers_own(kind: str) -> None:
    config = json.loads(EACH[kind].read_text(encoding="utf-8"))
    assert groups_of(read_model(config, kind)) == parameter_groups(build(config))


def spec_of(name: str) -> ModelSpec:
    return read_model(load(name), name)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("meta-llama--Llama-3.1-8B-Instruct", 8_030_261_248),
        ("Qwen--Qwen2.5-7B-Instruct", 7_615_616_512),
        ("mistralai--Mistral-7B-Instruct-v0.3", 7_248_023_552),
        ("XiaomiMiMo--MiMo-7B-Base", 7_833_409_536),
    ],
)
def test_parameters_in_total(name: str, total: int) -> None:
    assert spec_of(name).parameters == total


@pytest.mark.parametrize(
    ("name", "per_token"),
    [
        # layers x 2 x KV heads x head_dim x 2 bytes
        ("meta-llama--Llama-3.1-8B-Instruct", 32 * 2 * 8 * 128 * 2),
        ("Qwen--Qwen3-8B", 36 * 2 * 8 * 128 * 2),
        ("Qwen--Qwen3-32B", 64 * 2 * 8 * 128 * 2),  # head_dim 128, not hidden / heads = 80
        ("deepseek-ai--DeepSeek-V3", 61 * (512 + 64) * 2),  # a latent and one rotary key
        ("openai--gpt-oss-20b", 12 * 2 * 8 * 64 * 2),  # every other layer slides
        ("Qwen--Qwen3.5-27B", 16 * 2 * 4 * 256 * 2),  # one layer of four attends
        ("Qwen--Qwen3.5-35B-A3B", 10 * 2 * 2 * 256 * 2),
        ("nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 6 * 2 * 2 * 128 * 2),
        ("google--gemma-4-26B-A4B", 5 * 2 * 2 * 512 * 2),  # two wide heads, K and V both kept
    ],
)
def test_growth_per_token_at_131072(name: str, per_token: int) -> None:
    found = kv_bytes(spec_of(name), Configuration(), Workload(131_072, 0), TRANSFORMERS)
    assert found.per_token == per_token
    assert found.total == per_token * 131_072 + found.fixed


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("meta-llama--Llama-3.1-8B-Instruct", 16.0),
        ("Qwen--Qwen3-32B", 32.0),
        ("deepseek-ai--DeepSeek-V3", 8.578),
        ("openai--gpt-oss-20b", 3.003),
        ("google--gemma-4-26B-A4B", 2.695),
        # Planners that keep 3 columns of each convolution say 8.143; transformers keeps 4.
        ("Qwen--Qwen3.5-27B", 8.144),
        ("nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 0.796),
    ],
)
def test_cache_gib_at_131072(name: str, gib: float) -> None:
    found = kv_bytes(spec_of(name), Configuration(), Workload(131_072, 0), TRANSFORMERS)
    assert round(found.total / GIB, 3) == gib


def test_batch_multiplies_everything() -> None:
    spec = spec_of("nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16")
    one, three = (
        kv_bytes(spec, Configuration(), Workload(4096, 100, batch), TRANSFORMERS)
        for batch in (1, 3)
    )
    assert (three.total, three.per_token, three.fixed) == (
        3 * one.total,
        3 * one.per_token,
        3 * one.fixed,
    )


def test_falcon_7b_has_one_kv_head_whatever_its_file_says() -> None:
    spec = spec_of("tiiuae--falcon-7b")
    assert load("tiiuae--falcon-7b")["num_kv_heads"] == 71
    assert {m.kv_heads for layer in spec.layers for m in layer.mixers} == {1}  # type: ignore[union-attr]


def test_max_window_layers_are_the_first_and_attend_fully() -> None:
    config = {**load("Qwen--Qwen2.5-7B-Instruct"), "use_sliding_window": True}
    config |= {"sliding_window": 4096, "max_window_layers": 20}
    windows = [m.window for layer in read_model(config, "q").layers for m in layer.mixers]  # type: ignore[union-attr]
    assert windows == [None] * 20 + [4096] * 8


def test_sections_left_out_are_noted() -> None:
    spec = spec_of("google--gemma-3-4b-it")
    assert any("text_config.num_attention_heads" in note for note in spec.warnings)
    assert any("text_config.vocab_size" in note for note in spec.warnings)


def test_towers_are_counted_apart() -> None:
    spec = spec_of("Qwen--Qwen2.5-VL-7B-Instruct")
    text, vision = spec.parameters_of(Part.TEXT), spec.parameters_of(Part.VISION)
    # The text model is Qwen2.5-7B with its own vocabulary: 7,615,616,512 parameters.
    assert (text, text + vision) == (7_615_616_512, spec.parameters)


MODELS = [path.stem for path in sorted(FOLDER.glob("*.json")) if "model_type" in load(path.stem)]


@pytest.mark.parametrize("name", MODELS)
def test_every_bundled_config_is_read(name: str) -> None:
    config = load(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec = read_model(config, name)
    assert spec.parameters > 10**8
    assert len(spec.layers) > 5
