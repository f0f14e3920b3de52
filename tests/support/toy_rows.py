"""Measured rows of a made-up model, and the noise that ships."""

from kvpareto.calibration.fit.accuracy_rows import AccuracyRow, row_of
from kvpareto.calibration.fit.mixed_effects import KnownModel
from kvpareto.calibration.grid.evaluate import FEATURES, SHAPE
from kvpareto.planner.accuracy import predict as accuracy
from kvpareto.planner.accuracy.measured_configs import MeasuredRetention
from kvpareto.planner.formats.configuration import Configuration

MODEL = KnownModel("own:toy", FEATURES, ("toy",), SHAPE)
SHIPPED = accuracy.published()


def rows_of(
    retention: dict[str, float], kind: str = "retrieval", context: int = 4096
) -> list[AccuracyRow]:
    """Rows of MODEL, one for each configuration and what it keeps."""
    return [
        row_of(Configuration.parse(c), MODEL.key, kind, kind, context, MeasuredRetention(r, 0.003))
        for c, r in retention.items()
    ]
