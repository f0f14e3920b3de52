"""The recall model with outlier channels in its keys, and the same outputs to the last bit.

    python -m kvpareto.calibration.recall_model.outliers --model recall --out DIR

Attention sees keys only through products with queries, so two changes cannot be seen:

- **scaled pairs**: the two channels that RoPE turns together are multiplied by `SCALE` in the keys
  and divided by it in the queries. RoPE is linear in each pair, so it commutes with the scale; a
  power of two changes exponents alone, so every product has the very same bits. These channels
  vary from token to token: what helps is one scale for each channel, or rotation in part.
- **offset pairs**: the model was trained with one pair of each query at zero (`network.SILENT`),
  and zero times any key is zero. A large constant goes into the key's bias there, as Qwen2.5's
  keys have it; that pair turns by less than 0.03 in 16,384 tokens, so it is the same for all of
  them: subtracting the mean over the sequence (smoothing) takes it out.

Which pairs are scaled follows from the weights alone: the largest keys, so the same command always
writes the same model.
"""

import argparse
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, SeedOssForCausalLM

from ...planner.load_model import shipped_folder
from .network import SILENT

SCALE = 8.0
PAIRS = 2  # of each key head
OFFSET = 96.0
SCALED_LAYERS = (1, 2, 3, 4, 5, 6)
OFFSET_LAYERS = (0, 3, 7)


def add_outliers(model: SeedOssForCausalLM) -> None:
    """Change the projections of keys and queries in place."""
    config: Any = model.config
    dim, kv_heads = model.model.layers[0].self_attn.head_dim, config.num_key_value_heads
    group = config.num_attention_heads // kv_heads
    half = dim // 2
    for place, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        keys = _by_head(attention.k_proj, dim)
        queries = _by_head(attention.q_proj, dim)
        for head in range(kv_heads):
            if place in SCALED_LAYERS:
                size = torch.stack([part[head].float().pow(2).sum(-1) for part in keys]).sum(0)
                pairs = (size[:half] + size[half:])[: half - 1].topk(PAIRS).indices
                channels = torch.cat([pairs, pairs + half])
                for part in keys:
                    part[head, channels] *= SCALE
                for part in queries:
                    part[head * group : (head + 1) * group, channels] /= SCALE
            if place in OFFSET_LAYERS:
                keys[1][head, list(SILENT)] = OFFSET


def _by_head(projection: torch.nn.Linear, dim: int) -> tuple[Tensor, Tensor]:
    """Views of weight [heads, dim, hidden] and bias [heads, dim, 1] that write through."""
    weight, bias = projection.weight.data, projection.bias.data
    return weight.view(-1, dim, weight.shape[1]), bias.view(-1, dim, 1)


def main() -> None:
    """The command line; see the module."""
    parser = argparse.ArgumentParser(description="put outlier channels into a recall model's keys")
    parser.add_argument("--model", default="recall", help="`recall`, or a model folder")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    folder = shipped_folder(asked.model) or Path(asked.model)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    add_outliers(model)
    model.save_pretrained(asked.out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        copyfile(folder / name, asked.out / name)
    print(f"model folder: {asked.out}")


if __name__ == "__main__":
    main()
