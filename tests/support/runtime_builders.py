"""Small models, descriptions, caches and sessions that the runtime's tests share."""

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import Attention, Layer, ModelSpec
from kvpareto.runtime.cache.kv_cache import PackedCache
from kvpareto.runtime.serving.queue import Counts, PromptRequest
from kvpareto.runtime.session import Session

# Weights and activations are float32, so logits agree to float32 accuracy but for the odd element
# whose last float32 bit decides how it rounds to bfloat16 (2^-9 of that one element).
TOLERANCE = 2e-4

# Every granularity, bit pair and option at least once; all valid in the grammar.
FORMATS = (
    "w16a16-k16v16",
    "w16a16-k8v8",
    "w16a16-k8v4-g64",
    "w16a16-k4v4-g32",
    "w16a16-k4v2-g32",
    "w16a16-k2v2-g128",
    "w16a16-k16v4",
    "w16a16-k4v16",
    "w16a16-k4v4-kc",
    "w16a16-k2v2-kc128-g32+res128",
    "w16a16-k4v4-pb16-g32",
    "w16a16-k8v2-pb128-g64+sink4",
    "w16a16-k4v4-pt",
    "w16a16-k2v2-pt+smooth+res64",
    "w16a16-k4v4-g64+smooth+rot",
    "w16a16-k4v4-g32+res100+sink4",
    "w16a16-k2v2-kc+sink5+smooth+rot",
    "w16a16-k6v5-g32",
    "w16a16-k3v3-kc-g64+res64",
    "w16a16-kfp8vfp8-pt",
    "w16a16-knf4vlloyd3-g32+smooth+rot",
    "w16a16-klloyd2v2-g64+clip70+sink4",
    "w16a16-knvfp4vmxfp4+smooth+rot+res64",
    "w16a16-k4vnvfp4-kc",
)


# Small enough for a CPU; windows are shorter than the prompts.
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, dict] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 24},
    "mistral": {"sliding_window": 7},
    "gemma2": {"head_dim": 24, "sliding_window": 7, "attn_logit_softcapping": 1.5},
    "gemma3_text": {"head_dim": 24, "sliding_window": 7, "layer_types": None},
    "phi3": {},
    "mixtral": {"num_local_experts": 4},
    "gpt_oss": {"head_dim": 24, "sliding_window": 7, "num_local_experts": 4},
}


def attention_spec(
    layers: int = 2,
    *,
    query_heads: int = 4,
    kv_heads: int = 2,
    dim: int = 64,
    windows: tuple[int | None, ...] = (None,),
) -> ModelSpec:
    """Attention layers only, their windows taken in turn from `windows`."""
    found = tuple(
        Layer(
            (
                Attention(
                    query_heads=query_heads,
                    kv_heads=kv_heads,
                    head_dim=dim,
                    value_dim=dim,
                    window=windows[index % len(windows)],
                ),
            ),
            None,
        )
        for index in range(layers)
    )
    return ModelSpec("test", "llama", query_heads * dim, 100, None, found, ())


def poisoned_cache(spec: ModelSpec, text: str, *, tokens: int, batch: int = 1) -> PackedCache:
    """A cache whose unwritten slots are NaN where they can be, and noise where they are codes."""
    cache = PackedCache(spec, Configuration.parse(text), tokens=tokens, batch=batch)
    noise = torch.Generator().manual_seed(7)
    for state in cache.states:
        for side in (state.key, state.value):
            side.values.random_(0, 255, generator=noise)
            for buffer in (side.scale, side.residual, side.sinks):
                if buffer is not None:
                    buffer.view(torch.uint8).fill_(255)
            if not side.form.quantized:
                side.values.fill_(torch.nan)
    return cache


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative root mean square error, in float64."""
    gap = (found.double() - expected.double()).pow(2).mean().sqrt()
    return float(gap / expected.double().pow(2).mean().sqrt())


class RoundedCache(DynamicCache):
    """What bfloat16 storage does to keys and values, and nothing else."""

    def update(self, key_states, value_states, *args, **kwargs):  # type: ignore[no-untyped-def]
        rounded = (x.bfloat16().float() for x in (key_states, value_states))
        return super().update(*rounded, *args, **kwargs)


def small_model(family: str) -> PreTrainedModel:
    torch.manual_seed(5)
    fields = {k: v for k, v in (SMALL | FAMILIES[family]).items() if v is not None}
    config = CONFIG_MAPPING[family](**fields)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, weight in model.named_parameters():
        if name.endswith(("sinks", "bias")):
            torch.nn.init.normal_(weight)
    return model


def session(
    model: PreTrainedModel, text: str, *, tokens: int, batch: int = 1, **more: Any
) -> Session:
    spec = read_model(model.config.to_dict(), "test")
    return Session(model, spec, Configuration.parse(text), tokens=tokens, batch=batch, **more)


def queued_as_alone(
    model: PreTrainedModel,
    config: str,
    prompts: list[list[int]],
    most: list[int],
    *,
    tokens: int,
    batch: int,
) -> Counts:
    """The counts of a queue, whose answers have to be those of each prompt alone."""
    expected = []
    for prompt, count in zip(prompts, most, strict=True):
        with session(model, config, tokens=64) as run:
            expected += run.generate(prompt, count, stops=frozenset()).tokens
    with session(model, config, tokens=tokens, batch=batch) as run:
        run.stops = frozenset()
        asked = [PromptRequest(i, p, m) for i, (p, m) in enumerate(zip(prompts, most, strict=True))]
        answers, counts = run.queue(asked)
        found = {answer.number: answer.tokens for answer in answers}
    assert [found[i] for i in range(len(prompts))] == expected
    return counts


def random_qwen2(layers: int, spread: float, **sizes: Any) -> PreTrainedModel:
    """A Qwen2 whose keys tests set apart by hand: hidden size 64, 4 query and 2 KV heads, 97
    tokens; weights of q, k and v normal with this spread, biases 0."""
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=97,
        bos_token_id=1,
        eos_token_id=2,
        **sizes,
    )
    model = Qwen2ForCausalLM._from_config(config, dtype=torch.float32).eval()
    for layer in model.model.layers:
        attention = layer.self_attn
        for part in (attention.q_proj, attention.k_proj, attention.v_proj):
            torch.nn.init.normal_(part.weight, std=spread)
            torch.nn.init.zeros_(part.bias)
    return model
