"""What formats make of a model's attention, read from one pass: channels that stand out, offsets
that smoothing takes out, and the errors of values held to a cache that really packs them."""

import pytest
import torch
from transformers import PreTrainedModel

from kvpareto.calibration.measure.layer_sensitivity import Sensitivity
from kvpareto.calibration.measure.read_attention import LEAST, read_attention
from kvpareto.planner.accuracy.key_noise.attention_noise import (
    KEY_STRUCTURES,
    VALUE_STRUCTURES,
    AttentionNoise,
)
from kvpareto.planner.accuracy.key_noise.key_ranges import BITS, TRANSFORMS
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.models.read_config import read_model
from kvpareto.runtime import Session
from tests.support.runtime_builders import random_qwen2

LOUD, OFFSET = 0, 2
"""Layers with a pair of channels that is larger, and with one whose bias is."""
LAYERS, HEAD = 4, 64
SLOWEST = [HEAD // 2 - 1, HEAD - 1]


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    model = random_qwen2(LAYERS, 0.12, head_dim=HEAD, max_position_embeddings=512, rope_theta=1e6)
    for index, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        keys, queries = attention.k_proj, attention.q_proj
        if index == LOUD:
            for first in range(0, 2 * HEAD, HEAD):
                keys.weight.data[[first + 3, first + 3 + HEAD // 2]] *= 16.0
            for first in range(0, 4 * HEAD, HEAD):
                queries.weight.data[[first + 3, first + 3 + HEAD // 2]] /= 16.0
        if index == OFFSET:
            for first in range(0, 2 * HEAD, HEAD):
                keys.bias.data[[first + channel for channel in SLOWEST]] = 40.0
    return model


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(3, 97, (LEAST,), generator=torch.Generator().manual_seed(1))


def opened(model: PreTrainedModel, config: str = "w16a16-k16v16") -> Session:
    spec = read_model(model.config.to_dict(), "test")
    return Session(model, spec, Configuration.parse(config), tokens=LEAST)


@pytest.fixture(scope="module")
def found(model: PreTrainedModel, tokens: torch.Tensor) -> AttentionNoise:
    with opened(model) as base:
        noise = read_attention(base, tokens)
    assert noise is not None
    return noise


def keys(found: AttentionNoise, transform: str, structure: str, bits: int = 4) -> list[float]:
    place = BITS.index(bits), TRANSFORMS.index(transform), KEY_STRUCTURES.index(structure)
    noise: list[float] = found.keys[place].tolist()
    return noise


def test_channels_that_stand_out_cost_what_shares_their_scale(found: AttentionNoise) -> None:
    plain = keys(found, "plain", "head")
    quiet = plain[1]
    assert plain[LOUD] > 20 * quiet
    assert plain[OFFSET] > 20 * quiet
    apart = keys(found, "plain", "kc32")
    assert apart[LOUD] < 3 * apart[1]
    assert apart[OFFSET] < 3 * apart[1]
    assert keys(found, "plain", "g32")[LOUD] <= plain[LOUD]


def test_smoothing_takes_out_what_all_tokens_share_and_rotation_what_stands_out(
    found: AttentionNoise,
) -> None:
    plain, smooth, turned = (keys(found, name, "head") for name in ("plain", "smooth", "rot"))
    assert smooth[OFFSET] < plain[OFFSET] / 10
    assert smooth[LOUD] > plain[LOUD] / 2
    assert turned[LOUD] < plain[LOUD] / 2


def test_fewer_bits_disturb_more(found: AttentionNoise) -> None:
    eight, four, two = (keys(found, "plain", "head", bits)[1] for bits in (8, 4, 2))
    assert four / eight == pytest.approx((255 / 15) ** 2, rel=0.5)
    assert two > 5 * four


def test_values_err_as_a_cache_that_packs_them(
    model: PreTrainedModel, tokens: torch.Tensor, found: AttentionNoise
) -> None:
    """The first layer's output with values in 4 bits, by the runtime's own cache."""
    outputs: dict[str, torch.Tensor] = {}
    for config in ("w16a16-k16v16", "w16a16-k16v4-g32"):
        name = config

        def keep(module: object, given: tuple[torch.Tensor, ...], name: str = name) -> None:
            outputs[name] = given[0].detach()

        hook = model.model.layers[0].self_attn.o_proj.register_forward_pre_hook(keep)
        with opened(model, config) as session:
            session.prefill(tokens[None])
        hook.remove()
    exact, packed = outputs.values()
    later = slice(LEAST // 2, LEAST)
    lost = (packed - exact)[:, later].square().sum() / exact[:, later].square().sum()
    place = BITS.index(4), 0, VALUE_STRUCTURES.index("g32")
    assert found.values[place][0] == pytest.approx(float(lost), rel=0.15)


def test_a_row_of_the_probe_keeps_it(found: AttentionNoise) -> None:
    probed = Sensitivity((0.1,) * LAYERS, (0.2,) * LAYERS, found)
    assert probed.items[: 2 * LAYERS] == (*probed.keys, *probed.values)
    assert len(probed.items) == 2 * LAYERS + len(found.flat)


def test_a_short_text_is_not_read(model: PreTrainedModel, tokens: torch.Tensor) -> None:
    with opened(model) as base:
        assert read_attention(base, tokens[: LEAST - 1]) is None


def test_nothing_is_changed_by_reading(model: PreTrainedModel, tokens: torch.Tensor) -> None:
    with opened(model) as base:
        before = base.prefill(tokens[None])
        read_attention(base, tokens)
        assert torch.equal(base.prefill(tokens[None]), before)
