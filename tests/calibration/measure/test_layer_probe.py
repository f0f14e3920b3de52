"""The probe of the layers: it finds the layers whose keys carry a bias, and says what the runtime
would say of a cache in which one layer's keys, or values, are packed."""

import pytest
import torch
from transformers import PreTrainedModel

from kvpareto.calibration.measure import layer_probe as probe
from kvpareto.calibration.measure.divergence import divergence
from kvpareto.calibration.measure.layer_probe import probe_layers
from kvpareto.calibration.measure.layer_sensitivity import Sensitivity
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.models.read_config import read_model
from kvpareto.runtime import Session
from tests.support.runtime_builders import random_qwen2

LAYERS, BIASED = 8, (0, 2)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    """Random but for its keys: in two layers one channel is far from zero, as Qwen2.5-7B's are."""
    model = random_qwen2(LAYERS, 0.2, max_position_embeddings=256)
    for index in BIASED:
        model.model.layers[index].self_attn.k_proj.bias.data[[3, 19]] = 60.0
    return model


@pytest.fixture(scope="module")
def windows() -> torch.Tensor:
    return torch.randint(3, 97, (2, 48), generator=torch.Generator().manual_seed(1))


def opened(model: PreTrainedModel, config: str = "w16a16-k16v16") -> Session:
    spec = read_model(model.config.to_dict(), "test")
    return Session(model, spec, Configuration.parse(config), tokens=48)


def test_the_probe_finds_the_layers_with_a_key_bias(
    model: PreTrainedModel, windows: torch.Tensor
) -> None:
    with opened(model) as base:
        found = probe_layers(base, windows)
    assert found.proposals()[-1] == BIASED
    largest = sorted(range(LAYERS), key=lambda layer: found.keys[layer])[-2:]
    assert sorted(largest) == list(BIASED)
    assert min(found.keys[i] for i in BIASED) > 3 * max(found.values)


def test_it_measures_what_the_runtime_does_to_one_layer(
    model: PreTrainedModel, windows: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "LAYERS_AT_ONCE", 3)  # two full groups and a part of one
    with opened(model) as base:
        found = probe_layers(base, windows)
        for layer in (0, 1, 2, 7):
            others = ",".join(str(i) for i in range(LAYERS) if i != layer)
            for kind, cost in (("k4v16", found.keys), ("k16v4", found.values)):
                with opened(model, f"w16a16-{kind}+protect{{{others}}}:k16v16") as session:
                    truth = divergence(base, session, windows).kl.value
                assert cost[layer] == pytest.approx(truth, rel=0.05, abs=1e-5)


def test_nothing_is_changed_by_a_probe(model: PreTrainedModel, windows: torch.Tensor) -> None:
    with opened(model) as base:
        before = base.prefill(windows[:1])
        probe_layers(base, windows)
        assert torch.equal(base.prefill(windows[:1]), before)


def test_memory_that_runs_out_makes_smaller_groups(
    model: PreTrainedModel, windows: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    real = probe._probe

    def short_of_memory(base: Session, windows: torch.Tensor, at_once: int) -> Sensitivity:
        tried.append(at_once)
        if at_once > 2:
            raise torch.OutOfMemoryError
        return real(base, windows, at_once)

    monkeypatch.setattr(probe, "_probe", short_of_memory)
    with opened(model) as base:
        assert probe_layers(base, windows).proposals()[-1] == BIASED
    assert tried == [8, 4, 2]


def sensitivity(keys: list[float], values: list[float] | None = None) -> Sensitivity:
    return Sensitivity(tuple(keys), tuple(values or [0.0] * len(keys)))


@pytest.mark.parametrize(
    ("found", "proposed"),
    [
        (sensitivity([1.0] * 8), ()),
        (sensitivity([0.0] * 8), ()),
        (sensitivity([9.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]), ((0,),)),
        (sensitivity([8.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 7.0]), ((0,), (0, 7))),
        (sensitivity([0.1] * 8, [0.0] * 7 + [3.0]), ((7,),)),
        # of eight layers six cache nothing: a quarter of the others is less than one
        (sensitivity([9.0, 1.0] + [0.0] * 6), ()),
        (sensitivity([9.0, 1.0]), ()),
    ],
)
def test_sets_are_proposed_where_few_layers_carry_most(
    found: Sensitivity, proposed: tuple[tuple[int, ...], ...]
) -> None:
    assert found.proposals() == proposed
    for layers in proposed:
        assert found.carried(layers) >= 0.5
