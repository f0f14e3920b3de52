"""A plan reads the keys of the checkpoint that lies on this machine: folder, hub cache, GGUF.

What is foreseen of the biased layer is not monotone in its bias, and need not be: of needles under
`k4v4` per token .76 is kept at a bias of 50, .30 at 100, .57 at 200, .49 at 300, .09 at 600 and .00
at 1,000. Other seeds have the same course, so it is no sample's. From 150 on, all other values of
the group are stored as its zero point: they are lost, and that costs less than being rounded up to
a level far away, as some are at 75 to 100. Beyond 300 the zero point itself moves with the bias
that RoPE turns (test_bias_steps.py holds both).
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kvpareto.planner.accuracy import model_sensitivity
from kvpareto.planner.accuracy.key_noise import at_hand, key_simulation
from kvpareto.planner.accuracy.key_noise.at_hand import ranges_of
from kvpareto.planner.accuracy.key_noise.key_ranges import KeyRanges
from kvpareto.planner.accuracy.predict import predict, proposed_protections
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.search.enumerate import protection_presets
from tests.planner.accuracy.key_checkpoints import BIASED, checkpoint, gguf_checkpoint

LARGE, SMALL = 1000.0, 0.1
"""Biases of the one channel: the first layer of Qwen2.5-Coder-1.5B has a bias of norm 1,237."""
PLAIN = Configuration.parse("w16a16-k4v4")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without anything; nothing that another test kept in this process."""
    at_hand._of_checkpoint.cache_clear()
    # the models here are tiny, and a model far from every measured size gets wide intervals
    monkeypatch.setattr(model_sensitivity, "SIZE_SPREAD", 0.0)
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def folder(tmp_path: Path, bias: float, name: str = "model") -> Path:
    path = tmp_path / name
    path.mkdir(parents=True)
    return checkpoint(path, bias)


def retention(path: Path | str, config: str) -> tuple[float, float, float]:
    """Of needles found at 4,096 tokens: low, predicted, high."""
    spec = load_model(str(path), offline=True)
    found = predict(spec, Configuration.parse(config), 4096).tasks["retrieval"]
    return found.low, found.retention, found.high


def test_a_folder_with_a_biased_layer_is_foreseen_to_collapse_and_to_be_cured(
    tmp_path: Path,
) -> None:
    """Without the checkpoint its family's collapse is all that is known."""
    biased, harmless = folder(tmp_path, LARGE, "biased"), folder(tmp_path, SMALL, "harmless")
    assert retention(biased, "w16a16-k4v4")[2] < 0.3
    assert retention(harmless, "w16a16-k4v4")[1] > 0.9
    alone = tmp_path / "config.json"
    shutil.copy(biased / "config.json", alone)
    for cure in ("k4v4-kc", "k4v4+smooth", f"k4v4+protect{{{BIASED}}}:k16v16"):
        low, middle, high = retention(biased, f"w16a16-{cure}")
        assert middle > 0.9
        before, _, above = retention(alone, f"w16a16-{cure}")
        assert high - low < 0.55 * (above - before) or above < low, cure  # or it was wrong
    assert retention(alone, "w16a16-k4v4")[1] < 0.1


def test_the_answer_says_which_layer_and_the_plan_may_protect_it(tmp_path: Path) -> None:
    spec = load_model(str(folder(tmp_path, LARGE)), offline=True)
    assert proposed_protections(spec) == ((BIASED,),)
    assert (BIASED,) in protection_presets(spec)
    notes = predict(spec, PLAIN, 4096).notes
    said = next(note for note in notes if "4-bit keys" in note)
    assert f"layer {BIASED} holds 100%" in said
    assert "the key biases and norms in model" in said
    harmless = load_model(str(folder(tmp_path, SMALL, "harmless")), offline=True)
    assert proposed_protections(harmless) == ()
    assert not any("4-bit keys" in note for note in predict(harmless, PLAIN, 4096).notes)


def test_a_gguf_file_says_the_same(tmp_path: Path) -> None:
    file = gguf_checkpoint(tmp_path / "model.gguf", LARGE)
    from_gguf = ranges_of(load_model(str(file), offline=True))
    from_folder = ranges_of(load_model(str(folder(tmp_path, LARGE)), offline=True))
    assert from_gguf is not None
    assert from_folder is not None
    assert from_gguf.proposals() == from_folder.proposals() == ((BIASED,),)
    plain, other = (table.variance[1, 0, 4].sum() for table in (from_gguf, from_folder))
    assert plain == pytest.approx(other, rel=0.2)  # channels' widths are taken as 1 in a GGUF
    assert retention(file, "w16a16-k4v4")[2] < 0.3


def test_the_hub_cache_is_read_by_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "hub"
    repo = cache / "models--someone--qwen2-tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc123")
    folder(repo / "snapshots", LARGE, "abc123")
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    ranges = ranges_of(load_model("someone/qwen2-tiny", offline=True))
    assert ranges is not None
    assert ranges.proposals() == ((BIASED,),)


def test_a_table_is_made_once_and_kept_under_its_weights(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ranges_of(load_model(str(folder(tmp_path, LARGE)), offline=True))
    assert first is not None
    assert len(list((home / "key_ranges").glob("*.json"))) == 1
    at_hand._of_checkpoint.cache_clear()
    monkeypatch.setattr(key_simulation, "key_ranges", lambda *_: pytest.fail("made again"))
    shutil.move(tmp_path / "model", tmp_path / "moved")
    again = ranges_of(load_model(str(tmp_path / "moved"), offline=True))
    assert again is not None
    np.testing.assert_allclose(again.variance, first.variance, rtol=5e-3)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1, "source": "x", "variance": {"a": []}}'])
def test_a_kept_table_that_is_damaged_is_made_again(tmp_path: Path, home: Path, text: str) -> None:
    path = folder(tmp_path, LARGE)
    first = ranges_of(load_model(str(path), offline=True))
    (kept,) = (home / "key_ranges").glob("*.json")
    kept.write_text(text)
    at_hand._of_checkpoint.cache_clear()
    again = ranges_of(load_model(str(path), offline=True))
    assert first is not None
    assert again is not None
    assert again.proposals() == first.proposals()
    assert json.loads(kept.read_text())["schema"] == at_hand.SCHEMA


@pytest.mark.parametrize("damage", ["cut", "none", "garbage"])
def test_a_checkpoint_that_cannot_be_read_says_nothing(tmp_path: Path, damage: str) -> None:
    path = folder(tmp_path, LARGE)
    spec = load_model(str(path), offline=True)
    file = path / "model.safetensors"
    if damage == "none":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:200] if damage == "cut" else b"\xff" * 4096)
    assert ranges_of(spec) is None
    assert not predict(spec, PLAIN, 4096).notes


def test_proposals_are_few_layers_that_hold_most() -> None:
    def table(*shares: float) -> KeyRanges:
        return KeyRanges(np.ones((3, 4, 7, 1)) * np.array(shares) * 100.0, "a test")

    assert table(0.9, *[0.01] * 10).proposals() == ((0,),)
    assert table(*[0.01] * 8, 0.5, 0.42).proposals() == ((8, 9),)
    assert table(0.68, *[0.005] * 16, 0.24).proposals() == ((0,), (0, 17))
    assert table(*[0.1] * 10).proposals() == ()  # spread over many
    assert KeyRanges(np.full((3, 4, 7, 10), 1e-3), "a test").proposals() == ()  # little
