"""Makes tests/data/awq_gptqmodel and tests/data/awq_autoawq: tiny checkpoints of each library.

    python tests/data/make_awq_checkpoints.py gptqmodel TOKENIZER_FOLDER
    python tests/data/make_awq_checkpoints.py autoawq TOKENIZER_FOLDER

The model is a random Llama whose sizes are multiples of the group (128); the tokenizer only
turns the calibration text into ids below 512. Beside each checkpoint goes `expected.safetensors`:
a prompt, the logits of the model before it was quantized, and its logits rounded without search.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from kvpareto.runtime.weights.quantize import quantize
from kvpareto.runtime.weights.quantize_modules import apply

HERE = Path(__file__).parent


def make_base(folder: Path, tokenizer: Path) -> LlamaForCausalLM:
    """A random Llama with a few strong channels, which is what AWQ's search is there for."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=512,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float16",
    )
    model = LlamaForCausalLM(config).half().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2 if parameter.dim() > 1 else 1)
        for layer in model.model.layers:
            layer.input_layernorm.weight[::17] = 6.0
            layer.post_attention_layernorm.weight[::13] = 6.0
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, folder / name)
    return model


def main(library: str, tokenizer: str) -> None:
    destination = HERE / f"awq_{library}"
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary) / "base"
        model = make_base(base, Path(tokenizer))
        prompt = torch.arange(3, 483, 20)[None]
        with torch.no_grad():
            logits = model.float()(prompt).logits
            apply(model, 4)
            rounded = model(prompt).logits
        result = quantize(base, Path(temporary) / "quantized", device="cpu", library=library)
        shutil.rmtree(destination, ignore_errors=True)
        destination.mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(result / name, destination / name)
    tensors = {"prompt": prompt, "logits": logits, "rounded": rounded}
    save_file(tensors, str(destination / "expected.safetensors"))


if __name__ == "__main__":
    main(*sys.argv[1:])
