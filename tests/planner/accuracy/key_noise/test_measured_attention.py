"""A model's own noise where its attention was measured: its fit, its profile, its plans."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

from kvpareto.calibration.evidence.attention_tables import attention_of
from kvpareto.calibration.fit.calibrated_noise import (
    STEP,
    NoiseRows,
    as_fitted,
    fit_calibrated_noise,
    prior_of,
)
from kvpareto.calibration.fit.profile import fit_profile
from kvpareto.calibration.grid.evaluate import FEATURES
from kvpareto.calibration.measure.layer_sensitivity import Sensitivity
from kvpareto.calibration.records.record_file import LAYERS, Record
from kvpareto.planner.accuracy import predict as accuracy
from kvpareto.planner.accuracy.calibrated_noise import CalibratedNoise
from kvpareto.planner.accuracy.calibration_files.check import check_payload
from kvpareto.planner.accuracy.calibration_files.values import DamagedCalibration
from kvpareto.planner.accuracy.format_arrays import formats_of
from kvpareto.planner.accuracy.interactions import TABLES
from kvpareto.planner.accuracy.key_noise.attention_noise import AttentionNoise
from kvpareto.planner.accuracy.predictor import Predictor
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from tests.support.fake_bench import MadeUpModel, campaign
from tests.support.toy_rows import MODEL, SHIPPED, rows_of

SPEC = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)


def of_layers(count: int) -> AttentionNoise:
    """`recall-outliers`'s table, its layers again and again."""
    found = attention_of("recall-outliers")
    assert found is not None
    layers = np.arange(count) % found.keys.shape[-1]
    return AttentionNoise(found.keys[..., layers], found.values[..., layers])


MEASURED = replace(MODEL, features=replace(FEATURES, attention=of_layers(8)))
PRIOR = prior_of(SHIPPED, SHIPPED.models.unseen(MEASURED.features))
ROWS = rows_of(
    {
        "w16a16-k4v4": 0.02,
        "w16a16-k2v16-kc": 0.98,
        "w16a16-k16v2": 0.97,
        "w16a16-k4v4-g32+smooth+rot": 0.99,
        "w16a16-k4v2-pt+res128": 0.1,
        "w16a16-k2v4-pb64+protect{0,3}:k8v8": 0.4,
    }
)


def test_slopes_are_the_derivatives_of_measured_noise_too() -> None:
    data = NoiseRows(ROWS, MEASURED)
    own = fit_calibrated_noise(ROWS, MEASURED, PRIOR)
    gradient, here = data.gradient(own)
    of_tables = {name for entries in TABLES.values() for name in entries}
    for name in (
        "scale:outlier",
        "residual",
        "plain:rotation=0",
        "key_bits:bits=2",
        "value:rotation=1",
    ):
        moved = CalibratedNoise({**own.values, name: own.values[name] + STEP}, own.formats)
        expected = (data.predict(moved) - here) / STEP
        assert np.abs(expected).max() > 1e-4 or name not in of_tables
        assert gradient[:, list(own.values).index(name)] == pytest.approx(expected, abs=1e-3)
    # all keys are of one kind: the outliers' own tables say nothing
    assert not gradient[:, list(own.values).index("outlier:rotation=0")].any()


def test_before_any_row_the_table_tells_what_a_config_cannot() -> None:
    """Keys that stand out lose all per token and nothing per channel, before a task is run."""
    prior = CalibratedNoise(dict(zip(PRIOR.names, PRIOR.mean.tolist(), strict=True)), {})
    texts = ("w16a16-k4v16", "w16a16-k4v16-kc", "w16a16-k4v16+smooth+rot", "w16a16-k2v16+rot")
    rows = rows_of(dict.fromkeys(texts, 0.5))
    lost, kept, turned, coarse = NoiseRows(rows, MEASURED).predict(prior)
    assert lost < 0.4
    assert kept > 0.99
    assert turned > 0.9
    assert coarse < 0.4
    even = attention_of("recall")
    without = replace(MODEL, features=replace(FEATURES, attention=even))
    assert NoiseRows(rows, without).predict(prior)[0] > 0.99


def test_a_calibration_by_text_alone_does_without() -> None:
    assert as_fitted(MEASURED.features, ["perplexity"]).attention is None
    assert as_fitted(MEASURED.features, ["perplexity", "retrieval"]).attention is not None


class Read(MadeUpModel):
    """A made-up model whose attention is read."""

    def probe(self) -> tuple[Sensitivity, int]:
        probed, tokens = super().probe()
        return replace(probed, attention=of_layers(len(probed.keys))), tokens


@pytest.fixture(scope="module")
def records() -> list[Record]:
    records: list[Record] = []
    campaign(Read(), records, 14)[0]._runner.probe()  # type: ignore[attr-defined]
    campaign(Read(), records, 14)[0].run()
    return records


def test_a_profile_carries_it_and_plans_agree_with_themselves(records: list[Record]) -> None:
    payload = fit_profile(SPEC, records)
    assert payload is not None
    kept = payload["own_noise"]["attention"]
    assert kept == of_layers(32).flat
    predictor = Predictor(payload)
    assert predictor.models.of(SPEC).features.attention is not None
    texts = ("w16a16-k4v4", "w4a16-k2v8-kc", "w16a16-k4v4+protect{0,31}:k8v8")
    configs = [Configuration.parse(text) for text in texts]
    many = accuracy.predict_many(SPEC, configs, 4096, predictor)
    grid = accuracy.predict_grid(
        SPEC,
        (16, 4),
        formats_of(SPEC, configs),
        4096,
        protections=[(), (0, 31)],
        protection=[0, 0, 1],
        predictor=predictor,
    )
    for i, (one, weights) in enumerate(zip(many, (0, 1, 0), strict=True)):
        if one.provenance != "measured":
            assert one.retention == pytest.approx(grid.retention[weights, i])
            assert one.low <= one.retention <= one.high
    assert check_payload(payload).payload == payload
    damaged = deepcopy(payload)
    damaged["own_noise"]["attention"] = kept[:-1]
    with pytest.raises(DamagedCalibration):
        check_payload(damaged)


def test_rows_of_before_say_nothing_of_it(records: list[Record]) -> None:
    """A probe's row without the attention, as earlier versions left it."""
    row = next(record for record in records if record.task == LAYERS)
    found, before = (
        Sensitivity.of([row.model_copy(update={"items": items})])
        for items in (row.items, row.items[: 2 * 32])
    )
    assert found is not None
    assert before == replace(found, attention=None)
