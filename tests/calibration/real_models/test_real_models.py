"""Real models' campaign: GGUF blocks and names, the design, and points measured on a CPU."""

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from kvpareto.calibration.real_models import __main__ as command_line
from kvpareto.calibration.real_models import grade_school, jobs, measures
from kvpareto.calibration.real_models.campaign import WorkerCampaign
from kvpareto.calibration.real_models.design import divergence_design
from kvpareto.calibration.real_models.forced import ForcingPlan
from kvpareto.calibration.real_models.gguf_blocks import FORMATS
from kvpareto.calibration.real_models.gguf_folder import transformers_name
from kvpareto.calibration.real_models.material import write_text
from kvpareto.calibration.real_models.page import page_of, write_pages
from kvpareto.calibration.real_models.rows import read_rows, write_rows
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from tests.support.data_files import STORIES


def blocks(kind: int, *parts: bytes) -> torch.Tensor:
    raw = bytearray(b"".join(parts))
    return FORMATS[kind].dequantize(torch.frombuffer(raw, dtype=torch.uint8)[None])[0]


def half(value: float) -> bytes:
    return struct.pack("<e", value)


def test_blocks_of_32_hold_low_halves_first() -> None:
    codes = bytes((i % 16) | (15 - i % 16) << 4 for i in range(16))
    low = torch.arange(16.0)
    both = torch.cat([low, 15 - low])
    assert torch.equal(blocks(2, half(0.5), codes), 0.5 * (both - 8))
    assert torch.equal(blocks(3, half(0.5), half(-1.0), codes), 0.5 * both - 1)
    fifth = struct.pack("<I", 1 << 31 | 1)  # of the first and the last weight
    high = torch.zeros(32)
    high[0] = high[31] = 16
    assert torch.equal(blocks(6, half(2.0), fifth, codes), 2 * (both + high - 16))
    assert torch.equal(blocks(8, half(0.25), bytes(range(32))), 0.25 * torch.arange(32.0))


def test_blocks_of_256_scale_each_part() -> None:
    ones = bytes([1] * 4 + [2] * 4 + [3 | 4 << 4] * 4)  # scales 1 and 3, offsets 2 and 4
    found = blocks(12, half(1.0), half(0.5), ones, bytes([0x21] * 128)).view(8, 32)
    assert found[:4, 0].tolist() == [1 * 1 - 1, 1 * 2 - 1] * 2
    assert found[4:, 0].tolist() == [3 * 1 - 2, 3 * 2 - 2] * 2
    sixes = blocks(14, bytes([0x21] * 128), bytes([0b11100100] * 64), bytes([2] * 16), half(0.5))
    # 4 low bits 1, 1, 2, 2 and 2 high bits 0, 1, 2, 3 of the four quarters of a half
    assert sixes[::32].tolist() == [1 - 32, 1 + 16 - 32, 2 + 32 - 32, 2 + 48 - 32] * 2


def test_names_are_transformers_names() -> None:
    wanted = "model.layers.3.pre_feedforward_layernorm.weight"
    assert transformers_name("blk.3.ffn_norm.weight", "gemma3") == wanted
    wanted = "model.layers.3.post_attention_layernorm.weight"
    assert transformers_name("blk.3.ffn_norm.weight", "qwen2") == wanted
    with pytest.raises(BadInput, match="no known place"):
        transformers_name("blk.3.ssm_in.weight", "qwen2")


@pytest.mark.parametrize(("head", "layers"), [(64, 30), (128, 28), (256, 18)])
def test_design_has_every_axis_and_nothing_twice(head: int, layers: int) -> None:
    design = divergence_design(head, layers, [5, 2])
    assert len(set(design)) == len(design) >= 200
    first = design[:110]
    assert first[0] == Configuration()
    for axis in ("smoothing", "rotation", "residual", "protection", "chunk", "weight_bits",
                 "granularity", "k_bits", "v_bits"):  # fmt: skip
        assert len({getattr(config, axis) for config in first}) > 1, axis


def test_a_window_is_read_as_body_and_tail() -> None:
    plan = ForcingPlan.of(torch.zeros(1, 300, dtype=torch.long), 128, 10)
    assert plan.chunks(Configuration()) == [172, 64, 64]
    assert plan.chunks(Configuration(chunk=64)) == [64, 64, 44, 64, 64]
    assert plan.places[plan.body_places :].tolist() == list(range(172, 299))


def test_the_number_behind_the_mark_is_the_answer() -> None:
    assert grade_school.number("so 3 + 4 = 7\n#### 1,234") == "1234"
    assert grade_school.number("It is 5, then 18.00.") == "18"
    assert grade_school.number("none") is None


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one model and its text, measured at few places of little."""
    monkeypatch.setattr(measures, "TOKENS", 192)
    monkeypatch.setattr(measures, "PLACES", 64)
    folder = tmp_path / "models"
    shutil.copytree(STORIES, folder / "stories")
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    write_text(folder / "stories", tokenizer, "Once upon a time. " * 99)
    return folder


def test_points_are_measured_resumed_and_tabled(tmp_path: Path, models: Path) -> None:
    out = tmp_path / "out"

    def run(count: int) -> dict[str, dict[str, float]]:
        settings = jobs.CampaignSettings(models, out, (64,), configurations=count)
        WorkerCampaign(settings, gpus=0, workers=1, seconds=120).run()
        return {row["config"]: row for _, row in read_rows(out.glob("*.jsonl"))}

    first = run(2)
    assert first["w16a16-k16v16"]["kl"] == 0
    assert first["w16a16-k16v16"]["top1"] == 1
    assert 0 < first["w16a16-k8v8"]["kl"] < 0.1
    torn = out / "rows-0.jsonl"
    torn.write_text(torn.read_text() + '{"model": "st')
    second = run(3)
    assert second["w16a16-k4v4"]["kl"] > 5 * first["w16a16-k8v8"]["kl"]
    lines = torn.read_text().splitlines()
    assert sum('"w16a16-k8v8"' in line for line in lines) == 1  # not measured again
    write_rows(tmp_path / "real.jsonl", read_rows([torn]))
    assert len(read_rows([tmp_path / "real.jsonl"])) == 3
    assert "environment" in json.loads((tmp_path / "real.jsonl").read_text().splitlines()[0])
    write_pages([tmp_path / "real.jsonl"], tmp_path)
    (model,) = {row["model"] for _, row in read_rows([tmp_path / "real.jsonl"])}
    assert "| `w16a16-k4v4` |" in (tmp_path / page_of(model)).read_text()


def test_named_formats_are_measured_in_the_place_of_the_design(
    tmp_path: Path, models: Path
) -> None:
    out = tmp_path / "out"
    named = ["w16a16-k3v5+rot", "w16a16-k16v16", "w8a16-k8v4-kc"]
    said = ["measure", str(models), "--out", str(out), "--gpus", "0", "--contexts", "64"]
    command_line.main([*said, "--formats", *named])
    rows = {row["config"]: row for _, row in read_rows(out.glob("*.jsonl"))}
    assert sorted(rows) == sorted(named)
    assert {row["context"] for row in rows.values()} == {64}
    assert rows["w16a16-k16v16"]["kl"] == 0 < rows["w16a16-k3v5+rot"]["kl"]


@pytest.mark.parametrize("option", ["--formats", "--tasked"])
def test_a_format_that_is_none_is_said_before_a_worker_starts(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["measure", str(tmp_path), "--out", str(tmp_path / "out"), option, "k9v9"]
    with pytest.raises(SystemExit) as ended:
        command_line.main(said)
    assert ended.value.code == 2
    assert f"argument {option}: not a configuration: 'k9v9'; write it like" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()
