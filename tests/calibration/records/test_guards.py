"""Guards that no other test would miss."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kvpareto.calibration.records.lock import ProfileLock
from kvpareto.calibration.records.receipt_rows import append_receipt
from kvpareto.calibration.records.record_file import ROWS, RecordFile, read_records
from kvpareto.planner.accuracy.calibrations import fingerprint
from kvpareto.planner.errors import BadConfig, BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.formats.kv_format import KVFormat, window_capacity
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models import untrusted_json as json_file
from kvpareto.planner.models.spec import Attention
from kvpareto.runtime.cache.quantize import FP16_MAX, dequantize, quantize
from kvpareto.runtime.weights.load_awq import load_awq

AWQ = Path(__file__).parents[2] / "data" / "awq_autoawq"


def test_a_window_is_part_of_a_models_fingerprint() -> None:
    spec = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
    layer = spec.layers[0]
    (mixer,) = layer.mixers
    assert isinstance(mixer, Attention)
    short = replace(layer, mixers=(replace(mixer, window=512),))
    windowed = replace(spec, layers=(short, *spec.layers[1:]))
    assert windowed.parameters == spec.parameters
    assert fingerprint(windowed) != fingerprint(spec)


@pytest.mark.parametrize("text", ["w16a16-k2v2", "w16a16-k4v4-kc", "w16a16-k8v8-pt"])
def test_a_range_beyond_fp16_has_the_largest_scale_not_infinity(text: str) -> None:
    form = KVFormat.of(Configuration.parse(text), 0).key
    # of either sign along the channels, and along the tokens
    odd = (torch.arange(form.block)[:, None] + torch.arange(32)) % 2
    x = (2e8 * odd - 1e8)[None, None]
    codes, pairs = quantize(x, form)
    assert torch.isfinite(pairs).all()
    assert pairs.abs().max() <= FP16_MAX
    assert pairs[..., 0].max() == FP16_MAX
    assert torch.isfinite(dequantize(codes, pairs, form)).all()


@pytest.mark.parametrize("name", ["../weights.safetensors", "{0}/weights.safetensors"])
def test_an_index_cannot_name_weights_outside_its_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(AWQ, folder)
    outside = tmp_path / "weights.safetensors"
    (folder / "model.safetensors").rename(outside)
    listed = {"lm_head.weight": name.format(tmp_path)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(BadInput, match="names a file outside the folder"):
        load_awq(folder, dtype=torch.float32)


def test_a_file_that_grows_while_it_is_read_is_still_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"x" * 8)
    assert json_file.read_capped(path, 8) == b"x" * 8
    is_regular = json_file.stat.S_ISREG

    def growing(mode: int) -> bool:
        path.write_bytes(b"x" * 100)  # after its size was asked
        return is_regular(mode)

    monkeypatch.setattr(json_file.stat, "S_ISREG", growing)
    with pytest.raises(BadConfig, match="too long"):
        json_file.read_capped(path, 8)


@pytest.mark.parametrize(
    ("text", "more"),
    [("-k4v4", 0), ("-k4v4-kc32", 63), ("-k4v4-pb64", 127), ("-k4v4+sink4", 4), ("-k16v16", 0)],
)
def test_a_sliding_layer_keeps_a_straddling_block_and_one_that_fills(text: str, more: int) -> None:
    form = KVFormat.of(Configuration.parse(f"w16a16{text}"), 0)
    needed = window_capacity(256, 4096, 128)
    assert form.capacity(256, 4096, 128) == needed + more
    assert form.capacity(256, needed, 128) == needed  # never more than all tokens


def test_a_lock_says_its_holder_and_nothing_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "rows.lock"
    path.write_text("x" * 500)
    with ProfileLock(path) as lock:
        assert lock.path == path
        assert json.loads(path.read_text())["process"] == os.getpid()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_a_pipe_in_place_of_rows_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object) -> None:
        raise AssertionError("it waits")

    os.mkfifo(tmp_path / ROWS)
    (tmp_path / "vllm").mkdir()
    os.mkfifo(tmp_path / "vllm" / "runs.jsonl")
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path))
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    try:
        with pytest.raises(BadInput, match="no regular file"):
            read_records(tmp_path / ROWS)
        with pytest.raises(BadInput, match="no regular file"), RecordFile(tmp_path):
            pass
        with pytest.raises(BadInput, match=r"cannot write .*runs\.jsonl"):
            append_receipt("vllm", {"a": 1})
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
