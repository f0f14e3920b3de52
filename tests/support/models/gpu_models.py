"""Models small enough to be made in a test, with heads that the kernels take."""

from typing import Any

import torch

from tests.support.runtime_builders import FAMILIES, SMALL
from tests.support.tiny_configs import CONFIGS

LATENT: dict[str, Any] = {
    "hidden_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4, "kv_lora_rank": 512,
    "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "num_hidden_layers": 3, "first_k_dense_replace": 3, "intermediate_size": 512,
    "max_position_embeddings": 2048,
}  # fmt: skip
WIDE: dict[str, Any] = {
    "hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    "max_position_embeddings": 2048,
}  # fmt: skip


def model_of(kind: str, fields: dict[str, Any], device: str = "cuda") -> Any:
    """A bfloat16 model of one of CONFIGS with other `fields`, random weights."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    torch.manual_seed(3)
    content = {k: v for k, v in (CONFIGS[kind] | fields).items() if v != "absent"}
    made = CONFIG_MAPPING[content.pop("model_type")](**content)
    model: Any = AutoModelForCausalLM.from_config(made)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.05)
    return model.to(device, torch.bfloat16).eval()


def gpu_model(family: str) -> Any:
    """A bfloat16 model with heads that the kernels take."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    torch.manual_seed(5)
    fields = {k: v for k, v in (SMALL | FAMILIES[family]).items() if v is not None}
    fields |= {"head_dim": 64, "hidden_size": 256, "max_position_embeddings": 1024}
    fields |= {"sliding_window": 50} if "sliding_window" in fields else {}
    model: Any = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**fields))
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.06)
    return model.to("cuda", torch.bfloat16).eval()


def prompt(tokens: int) -> torch.Tensor:
    """The same random ids on the GPU at each call, [1, tokens]."""
    make = torch.Generator().manual_seed(1)
    return torch.randint(3, 97, (1, tokens), generator=make).cuda()
