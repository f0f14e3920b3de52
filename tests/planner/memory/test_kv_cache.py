"""KV bytes by engine: packed formats buffer by buffer, QuantizedCache, growth and the rest."""

from itertools import pairwise

import pytest

from kvpareto.planner.engines import all_engines
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.formats.kv_format import KVFormat
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import Attention, ModelSpec
from kvpareto.planner.workload import Workload
from tests.support.tiny_configs import CONFIGS

FORMATS = [
    "w16a16-k16v16",
    "w4a16-k4v4-g32",
    "w16a16-k8v2-g64+pc4",
    "w16a16-k4v4-kc16",
    "w16a16-k4v2-pb32+res8",
    "w16a16-k8v8-pt+smooth",
    "w16a16-k4v4-g32+sink4+res8+smooth",
    "w16a16-k2v2-g32+protect{0,3}:k8v8",
]


def spec_of(name: str) -> ModelSpec:
    return read_model(CONFIGS[name], name)


def layer_by_layer(spec: ModelSpec, config: Configuration, work: Workload) -> int:
    """The sum over every layer's own buffers: what a runtime would allocate."""
    total = 0
    for index, layer in enumerate(spec.layers):
        form = KVFormat.of(config, index)
        for mixer in layer.mixers:
            assert isinstance(mixer, Attention)
            if mixer.shares_kv_with is not None:
                continue
            tokens = form.capacity(mixer.window, work.tokens, config.chunk)
            sizes = (mixer.kv_heads, mixer.head_dim, mixer.value_dim)
            total += sum(b.nbytes for b in form.buffers(work.batch, *sizes, tokens))
    return total


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("name", ["llama", "ministral", "gemma4_text", "mimo_v2_flash"])
def test_packed_bytes_are_the_buffers_of_every_layer(name: str, text: str) -> None:
    spec, config, work = spec_of(name), Configuration.parse(text), Workload(83, 6, 3)
    found = kv_bytes(spec, config, work, KVPARETO)
    assert found.total == layer_by_layer(spec, config, work)
    assert found.total == found.per_token * work.tokens + found.fixed


def test_latents_are_one_head_at_k_bits_beside_a_16_bit_rotary_key() -> None:
    spec = spec_of("deepseek_v3")  # rank 20, rotary 8, four layers
    tokens = 100
    config = Configuration.parse("w16a16-k4v4-g32")
    found = kv_bytes(spec, config, Workload(tokens, 0), KVPARETO)
    # 20 channels of 4 bits are 10 bytes, one fp16 pair is 4, the rotary key 16.
    assert found.total == 4 * tokens * (10 + 4 + 16)


def test_states_stay_as_they_are() -> None:
    spec = spec_of("mamba2")
    bytes_of = {
        engine: kv_bytes(spec, Configuration(), Workload(1000, 0), engine)
        for engine in all_engines()
        if not engine.places  # llama.cpp keeps its own states, all of them in float32
    }
    # 2 layers: 12 heads x 8 x 6 in float32; 96 + 2 x 2 x 6 = 120 channels x 4 columns in bf16.
    expected = 2 * (12 * 8 * 6 * 4 + 120 * 4 * 2)
    assert {found.total for found in bytes_of.values()} == {expected}
    assert all((found.per_token, found.fixed) == (0, expected) for found in bytes_of.values())


def test_a_block_format_grows_by_its_average_over_a_block() -> None:
    spec = spec_of("llama-tied")  # 4 layers x 6 heads x 8 channels
    config = Configuration.parse("w16a16-k4v4-kc32")
    work = [Workload(tokens, 0) for tokens in (64, 96, 128)]
    found = [kv_bytes(spec, config, w, KVPARETO) for w in work]
    assert {later.total - now.total for now, later in pairwise(found)} == {32 * found[0].per_token}
    # Keys: 4 bytes a head and token, one pair for each channel and 32 tokens; values: 4 and 4.
    assert found[0].per_token == 4 * 6 * (4 + 8 * 4 // 32 + 4 + 4)


@pytest.mark.parametrize("tokens", [3, 6, 7, 8, 60])
def test_a_window_stops_growing_where_transformers_stops(tokens: int) -> None:
    spec = spec_of("mistral-window")  # a window of 7 keeps 6
    found = kv_bytes(spec, Configuration(), Workload(tokens, 0), TRANSFORMERS)
    a_token = 4 * 2 * 2 * 20 * 2
    assert found.total == min(tokens, 6) * a_token
    assert found.per_token == (a_token if tokens < 6 else 0)


# Llama-3.1-8B's shape on an H200, quanto at 4 bits, groups of 64: what stayed allocated beyond the
# weights after a prompt of 32,768 tokens was 1,208,222,208 bytes, of which the prompt's ids are
# 262,144 and small tensors 512.
LLAMA_8B = {
    "model_type": "llama",
    "dtype": "bfloat16",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": False,
}


def quantized(text: str, work: Workload) -> int:
    spec = read_model(LLAMA_8B, "llama-3.1-8b")
    return kv_bytes(spec, Configuration.parse(text), work, TRANSFORMERS).total


def test_quantized_cache_as_measured() -> None:
    assert quantized("w16a16-k4v4-g64", Workload(32_768, 0)) == 1_208_222_208 - 262_144 - 512


@pytest.mark.parametrize(
    ("context", "output", "chunk", "waiting"),
    [
        (1000, 0, None, 0),  # the first update is quantized whole
        (1000, 127, None, 127),
        (1000, 128, None, 0),  # the 128th generated token flushes
        (1000, 300, None, 44),
        (1000, 0, 256, 0),  # 256, 512, 768, then 232: each flushes
        (1000, 0, 300, 100),  # the last 100 wait
        (1000, 30, 300, 2),  # 28 more fill the residual, 2 wait
        (320, 0, 64, 0),  # 64, then 64 waits, 64 flushes, 64 waits, 64 flushes
        (256, 0, 64, 64),
    ],
)
def test_tokens_that_wait_in_the_residual(
    context: int, output: int, chunk: int | None, waiting: int
) -> None:
    text = "w16a16-k4v4-g64" + (f"+pc{chunk}" if chunk else "")
    packed, plain = (32 * 2 * 8 * 128 * bits // 16 for bits in (9, 32))
    expected = (context + output - waiting) * packed + waiting * plain
    assert quantized(text, Workload(context, output)) == expected


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("llama", "w16a16-k8v4-g32", "one width"),
        ("llama", "w16a16-k4v4-kc", "groups of channels"),
        ("llama-tied", "w16a16-k4v4+rot", "neither smooths nor rotates"),
        ("llama-tied", "w16a16-k4v4-g32", "divide every head"),
        ("mistral-window", "w16a16-k4v4", "full attention"),
        ("qwen3_next", "w16a16-k4v4", "full attention"),
        ("deepseek_v3", "w16a16-k4v4", "full attention"),
    ],
)
def test_what_quantized_cache_cannot_hold_is_said(name: str, text: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as caught:
        kv_bytes(spec_of(name), Configuration.parse(text), Workload(10, 0), TRANSFORMERS)
    assert "--engine kvpareto" in caught.value.hint
