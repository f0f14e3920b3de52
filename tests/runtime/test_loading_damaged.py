"""Checkpoints that are not whole: one line that names what is wrong, a hint, exit code 2."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from kvpareto.cli import run
from kvpareto.planner.errors import BadInput, NothingFits
from kvpareto.runtime import load
from kvpareto.runtime.cache.layer_state import LayerState
from kvpareto.runtime.checkpoint import draft_layers, is_ignorable
from kvpareto.runtime.failures import is_out_of_memory
from tests.support.models.damaged_models import (
    STORIES,
    WEIGHTS,
    Tensors,
    copy,
    with_json,
    with_tensors,
)

GATE, NORM = "model.layers.0.mlp.gate_proj.weight", "model.norm.weight"
INDEX = "model.safetensors.index.json"


def renamed(tensors: Tensors) -> None:
    tensors["model.layers.0.mlp.gate.weight"] = tensors.pop(GATE)


def beside(tensors: Tensors) -> None:
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(64)


def deeper(tensors: Tensors) -> None:
    tensors["model.layers.5.mlp.gate_proj.weight"] = tensors[GATE].clone()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop(NORM), f"does not store {NORM}, which"),
        (lambda t: (t.pop(NORM), t.pop(GATE)), f"does not store {GATE} and 1 more tensors"),
        (renamed, f"does not store {GATE}"),
        (beside, "stores model.layers.0.self_attn.q_proj.bias, which its config"),
        (deeper, "stores model.layers.5.mlp.gate_proj.weight, which its config"),
        (
            lambda t: t.update({NORM: torch.ones(65)}),
            "stores model.norm.weight as 65, config.json says 64",
        ),
    ],
    ids=["missing", "two", "renamed", "surplus", "deeper", "shape"],
)
def test_tensors_that_do_not_match_are_refused_by_name(
    change: Callable[[Tensors], None],
    says: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(BadInput, match=says):
        load(with_tensors(tmp_path / "m", change), "w16a16-k8v8", context=8, output=0)
    assert "LOAD REPORT" not in caplog.text


def test_tensors_that_say_nothing_are_left_unread(tmp_path: Path) -> None:
    def more(tensors: Tensors) -> None:
        for name in (
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "mtp.layers.0.mlp.gate_proj.weight",
            "model.vision_tower.blocks.0.weight",
            "visual.patch_embed.weight",
            "model.layers.5.eh_proj.weight",
        ):
            tensors[name] = torch.ones(4)

    folder = with_json(
        with_tensors(tmp_path / "m", more), "config.json", num_nextn_predict_layers=1
    )
    with load(folder, "w16a16-k16v16", context=16, output=8) as found:
        tokens = found.generate([1, 5, 9], 8).tokens
    with load(STORIES, "w16a16-k16v16", context=16, output=8) as plain:
        assert plain.generate([1, 5, 9], 8).tokens == tokens


@pytest.mark.parametrize(
    ("name", "ignorable"),
    [
        ("model.layers.61.mlp.up_proj.weight", True),
        ("model.layers.62.mlp.up_proj.weight", False),
        ("model.layers.60.mlp.up_proj.weight", False),
        ("transformer.h.0.attn.masked_bias", True),
        ("transformer.h.0.attn.c_attn.bias", False),
        ("model.layers.0.self_attn.q_proj.bias", False),
        ("model.language_model.norm.weight", False),
        ("model.multi_modal_projector.linear_1.weight", True),
        ("lm_head.weight", False),
    ],
)
def test_what_may_be_left_unread(name: str, ignorable: bool) -> None:
    assert is_ignorable(name, 61, 1) is ignorable


def test_draft_layers_are_what_the_config_says() -> None:
    assert draft_layers({"num_nextn_predict_layers": 1}) == 1
    assert draft_layers({"text_config": {"mtp_num_hidden_layers": 2}}) == 2
    assert draft_layers({"num_nextn_predict_layers": None}) == 0


def cut(folder: Path, name: str, size: int) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:size])


def sharded(folder: Path, index: object) -> None:
    (folder / WEIGHTS).rename(folder / "a.safetensors")
    text = index if isinstance(index, str) else json.dumps(index)
    (folder / INDEX).write_text(text, encoding="utf-8")


def a_directory(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


def with_mark(folder: Path) -> None:
    path = folder / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


HERE = {"lm_head.weight": "a.safetensors"}
LOST_SHARD = {"metadata": {}, "weight_map": {"a": "b.safetensors"}}
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda m: cut(m, WEIGHTS, 500_000), "model.safetensors of m cannot be read"),
    "header": (lambda m: cut(m, WEIGHTS, 100), "model.safetensors of m cannot be read"),
    "empty": (lambda m: cut(m, WEIGHTS, 0), "model.safetensors of m is empty"),
    "directory": (a_directory, "model.safetensors of m is not a file"),
    "none": (lambda m: (m / WEIGHTS).unlink(), "m holds no weights"),
    "other name": (lambda m: (m / WEIGHTS).rename(m / "x.safetensors"), "has x.safetensors, but"),
    "pickle": (lambda m: (m / WEIGHTS).rename(m / "pytorch_model.bin"), "weights as pickle"),
    "index map": (lambda m: sharded(m, {}), "says of no tensor which file"),
    "index json": (lambda m: sharded(m, "{"), "index.json is not JSON"),
    "index list": (lambda m: sharded(m, []), "index.json is JSON, but not an object"),
    "index types": (lambda m: sharded(m, {"weight_map": {"a": 3}}), "says of no tensor"),
    "shard": (lambda m: sharded(m, LOST_SHARD), "lacks b.safetensors"),
    "shard of no name": (
        lambda m: sharded(m, {"metadata": {}, "weight_map": {"a": "."}}),
        "names a file outside the folder: .",
    ),
    "index without metadata": (
        lambda m: sharded(m, {"weight_map": HERE}),
        "has no object `metadata`, without which",
    ),
    "index with a list of metadata": (
        lambda m: sharded(m, {"metadata": [], "weight_map": HERE}),
        "has no object `metadata`, without which",
    ),
    "index with a mark": (
        lambda m: sharded(m, "\ufeff" + json.dumps({"metadata": {}, "weight_map": HERE})),
        "index.json of m begins with a byte-order mark",
    ),
    "outside": (
        lambda m: sharded(m, {"weight_map": {"a": "../b.safetensors"}}),
        "names a file outside the folder",
    ),
    "tokenizer": (lambda m: cut(m, "tokenizer.json", 5000), "the tokenizer of m cannot be read"),
    "no tokenizer": (lambda m: cut(m, "tokenizer.json", 0), "the tokenizer of m cannot be read"),
    "tokenizer list": (
        lambda m: (m / "tokenizer_config.json").write_text("[1]"),
        "the tokenizer of m cannot be read",
    ),
    "vocabulary": (
        lambda m: with_json(m, "config.json", vocab_size=100),
        "numbers words up to 511, the model knows 100",
    ),
    "larger vocabulary": (
        lambda m: with_json(m, "config.json", vocab_size=600),
        "embed_tokens.weight as 512 x 64, config.json says 600 x 64",
    ),
    "mark": (with_mark, "begins with a byte-order mark"),
    "number": (lambda m: with_json(m, "config.json", rms_norm_eps="x"), "config.json of m cannot"),
    "stop": (lambda m: with_json(m, "config.json", eos_token_id="two"), "config.json of m cannot"),
    "mark of stops": (
        lambda m: (m / "generation_config.json").write_text("\ufeff{}", encoding="utf-8"),
        "generation_config.json of m begins with a byte-order mark",
    ),
    "stops": (
        lambda m: (m / "generation_config.json").write_text("{"),
        "generation_config.json is not JSON",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / "home"))
    damage, says = DAMAGE[kind]
    folder = copy(tmp_path / "m")
    damage(folder)
    asked = ["calibrate", "-m", str(folder), "--context", "256", "--device", "cpu"]
    code = run([*asked, "--tasks", "arithmetic", "--items", "2", "--runs", "1"])
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]
    assert says in lines[0]


@pytest.mark.parametrize("token", [512, -1])
def test_tokens_beyond_the_vocabulary_are_refused(token: int) -> None:
    with (
        load(STORIES, "w16a16-k8v8", context=16, output=4) as found,
        pytest.raises(BadInput, match=f"token {token} is beyond the model's vocabulary of 512"),
    ):
        found.generate([1, token], 2)


def test_memory_that_a_cpu_lacks_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**52, dtype=torch.uint8)  # as torch itself says it
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(OSError(12, "Cannot allocate memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))

    def full(*args: object, **kwargs: object) -> None:
        raise raised.value

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(NothingFits, match="at 16 bits do not fit on cpu"):
        load(STORIES, "w16a16-k8v8", context=8, output=0)


def test_a_cache_that_a_cpu_has_no_room_for_is_out_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        torch.empty(2**52, dtype=torch.uint8)  # as torch itself says it

    monkeypatch.setattr(LayerState, "allocate", full)
    with pytest.raises(NothingFits, match="the KV cache of 8 tokens does not fit"):
        load(STORIES, "w16a16-k8v8", context=8, output=0)


def test_the_small_model_itself_is_whole() -> None:
    assert NORM in load_file(STORIES / WEIGHTS)
    load(STORIES, "w16a16-k8v8", context=8, output=0).close()
