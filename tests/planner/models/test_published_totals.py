"""Published configs of new families: parameters and caches that were measured on the meta device.

The files are quoted from public ports and pull requests, GLM-5.3 Flash is its class's default, and
those of Hunyuan-A13B and Gemma 3n are written from memory: their totals are the published ones.
"""

import pytest

from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.kv_cache import kv_bytes, state_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import Attention, LatentAttention
from kvpareto.planner.workload import Workload
from tests.planner.models.published_configs import load


@pytest.mark.parametrize(
    ("name", "parameters", "per_token", "states"),
    [
        # 7 of 42 layers are latent: 576 elements of 2 bytes a token
        ("ling-3.0-flash", 124_414_191_072, 7 * 576 * 2, 76_840_960),
        # 8 of 48 layers see everything, with one head of 512 channels
        ("gemma-4-12b-unified", 11_907_350_272, 8 * 2 * 512 * 2, 0),
        # its class ties where the file is silent, and its checkpoint has a head
        ("mistral-small-3.1-24b", 24_011_361_280, 40 * 2 * 8 * 128 * 2, 0),
        # its class is spelled HunYuanMoEV1, and lists say each layer's numbers
        ("hunyuan-a13b", 80_393_183_232, 32 * 2 * 8 * 128 * 2, 0),
        # nothing grows; 18 states of 2,560 float32 and three columns of bfloat16
        ("recurrentgemma-2b", 2_682_862_080, 0, 18 * 2560 * (4 + 3 * 2)),
    ],
)
def test_totals_are_those_measured(name: str, parameters: int, per_token: int, states: int) -> None:
    spec = read_model(load(name), name)
    held = kv_bytes(spec, Configuration(), Workload(131_072, 1), TRANSFORMERS)
    assert (spec.parameters, held.per_token) == (parameters, per_token)
    assert state_bytes(spec, 1) == states


def test_gemma_3n_is_read_as_its_text_model_with_the_towers_that_were_published() -> None:
    """Its list of sparse activations carries no size; 4 of 7 full layers keep a cache."""
    spec = read_model(load("gemma-3n-e4b"), "gemma-3n-e4b")
    assert (spec.parameters, spec.bounds[0].high) == (6_835_235_568, 7_849_978_192)
    held = kv_bytes(spec, Configuration(), Workload(8_192, 1), TRANSFORMERS)
    assert held.per_token == 4 * 2 * 2 * 256 * 2


def test_recurrentgemma_keeps_its_window_alone() -> None:
    spec = read_model(load("recurrentgemma-2b"), "recurrentgemma-2b")
    windows = [m.window for layer in spec.layers for m in layer.mixers if isinstance(m, Attention)]
    assert windows == [2048] * 8


def test_glm_5_3_flash_has_no_rotary_part() -> None:
    """`qk_rope_head_dim` 0 is what the file says; the class's default is the published size."""
    spec = read_model({"model_type": "glm5_next", "dtype": "bfloat16"}, "glm-5.3-flash")
    assert spec.parameters == 313_786_889_214
    latent = [m for layer in spec.layers for m in layer.mixers if isinstance(m, LatentAttention)]
    assert {(m.rope_dim, m.kv_rank) for m in latent} == {(0, 512)}
    assert len(latent) == 11
