"""The bundled configs: every id is read, has a source, and has the parameters it is known for."""

import json
from pathlib import Path

import pytest

from kvpareto import profiles
from kvpareto.planner.load_model import load_config, load_model
from kvpareto.planner.memory.weights import available_weight_bits, weight_bytes
from kvpareto.planner.models.bundled import bundled_models

MODELS = Path(profiles.__file__).parent / "models"
INDEX = json.loads((MODELS / "index.json").read_text(encoding="utf-8"))
PAPER = (
    "Qwen/Qwen2.5-3B-Instruct",
    "meta-llama/Llama-3.2-3B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
    "meta-llama/Llama-3.1-8B-Instruct",
    "mistralai/Mistral-7B-Instruct-v0.3",
)


@pytest.fixture(autouse=True)
def no_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_there_are_enough() -> None:
    assert len(INDEX["models"]) >= 100
    assert set(PAPER) <= set(INDEX["models"])


def test_every_file_belongs_to_one_entry() -> None:
    entries = INDEX["models"].values()
    named = {entry["file"] for entry in entries} | {
        entry["quantization_file"] for entry in entries if "quantization_file" in entry
    }
    present = {path.name for path in MODELS.iterdir()} - {"index.json", "SOURCES.md"}
    assert named == present


def test_ids_are_unique_but_for_case() -> None:
    names = bundled_models()
    assert len({name.lower() for name in names}) == len(names)


def test_every_entry_names_its_source() -> None:
    for name, entry in INDEX["models"].items():
        assert entry["kind"] in ("verbatim", "preset", "transcribed"), name
        assert len(entry["source"]) > 10, name
        assert "/" in entry["source"], name


def test_aliases_lead_to_models() -> None:
    assert set(INDEX["aliases"].values()) <= set(INDEX["models"])
    assert not set(INDEX["aliases"]) & set(INDEX["models"])


@pytest.mark.parametrize("name", sorted(INDEX["models"]))
def test_every_model_is_planned_offline(name: str) -> None:
    spec = load_model(name, offline=True)
    assert spec.name == name
    for bits in available_weight_bits(spec):
        assert 0 < weight_bytes(spec, bits).total < 3 * 10**12
    assert INDEX["models"][name]["source"] in spec.extra["source"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Published counts: model cards, and totals over published safetensors.
        ("Qwen/Qwen2.5-3B-Instruct", 3_085_938_688),
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("Qwen/Qwen2.5-72B-Instruct", 72_706_203_648),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("Qwen/Qwen3-30B-A3B", 30_532_122_624),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
        ("meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400),
        ("meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824),
        ("meta-llama/Llama-3.1-70B-Instruct", 70_553_706_496),
        ("mistralai/Mistral-7B-Instruct-v0.3", 7_248_023_552),
        ("mistralai/Mistral-Nemo-Base-2407", 12_247_782_400),
        ("mistralai/Mixtral-8x7B-v0.1", 46_702_792_704),
        ("microsoft/phi-4", 14_659_507_200),
        ("microsoft/Phi-4-mini-reasoning", 3_836_021_760),
        ("google/gemma-2-9b-it", 9_241_705_984),
        ("google/gemma-2-27b-it", 27_227_128_320),
        ("google/gemma-3-4b-it", 4_300_079_472),
        ("google/gemma-3-27b-it", 27_432_406_640),
        ("HuggingFaceTB/SmolLM3-3B", 3_075_098_624),
        ("allenai/OLMo-2-1124-13B-Instruct", 13_716_198_400),
        ("openai/gpt-oss-20b", 20_914_757_184),
        ("tiiuae/Falcon3-7B-Instruct", 7_455_550_464),
    ],
)
def test_parameters_are_the_published_ones(name: str, parameters: int) -> None:
    assert load_model(name).parameters == parameters


def test_configs_are_handed_out_fresh() -> None:
    first = load_config("Qwen/Qwen3-8B").config
    first["hidden_size"] = 1
    assert load_config("Qwen/Qwen3-8B").config["hidden_size"] == 4096
