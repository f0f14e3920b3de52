"""Quantizing with whichever AWQ library is installed; skipped where there is none."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kvpareto.planner.errors import BadInput
from kvpareto.runtime.weights import awq_quantizer as awq_adapter
from kvpareto.runtime.weights import quantize
from kvpareto.runtime.weights.linear import W4Linear
from kvpareto.runtime.weights.load_awq import load_awq
from tests.support.models.weights_models import PROMPT, TINY


def write_model(folder: Path) -> LlamaForCausalLM:
    """A tiny 16-bit checkpoint with a tokenizer of letters."""
    torch.manual_seed(0)
    config = LlamaConfig(**{**TINY, "vocab_size": 128}, dtype="float16")
    model = LlamaForCausalLM(config).half().eval()
    model.save_pretrained(folder)
    letters = Tokenizer(models.WordLevel({chr(i): i for i in range(128)}, unk_token=" "))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=letters, unk_token=" ").save_pretrained(folder)
    return model.float()


@pytest.mark.skipif(not awq_adapter.installed(), reason="needs gptqmodel or autoawq")
@pytest.mark.filterwarnings("ignore")  # the libraries' own
def test_the_installed_library_makes_a_checkpoint_that_runs(tmp_path: Path) -> None:
    model = write_model(tmp_path / "plain")
    made = quantize.quantize(tmp_path / "plain", tmp_path / "awq", device="cpu")
    loaded = load_awq(made, dtype=torch.float32)
    assert sum(isinstance(m, W4Linear) for m in loaded.modules()) == 14
    assert (made / "tokenizer.json").is_file()
    with torch.no_grad():
        want, got = model(PROMPT).logits, loaded(PROMPT).logits
    assert 1e-3 < (got - want).norm() / want.norm() < 0.3


def test_text_becomes_pieces(tmp_path: Path) -> None:
    write_model(tmp_path)
    found = quantize.pieces(tmp_path, "ab" * 600)
    assert [len(piece) for piece in found] == [512, 512]  # 1,200 letters, the rest left out
    assert found[0][:3] == [97, 98, 97]
    assert [len(piece) for piece in quantize.pieces(tmp_path, "a" * 100)] == [100]


def test_a_text_that_says_too_little_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path)
    with pytest.raises(BadInput, match="12 tokens"):
        quantize.pieces(tmp_path, "a dozen char")
