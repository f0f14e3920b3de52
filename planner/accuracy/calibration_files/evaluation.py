"""Whether a calibration's coefficients evaluate: retention of 0 to 1 at the space's corners."""

import numpy as np

from ..formula import GRANULARITIES, Floats, FormatArrays
from ..model_features import REFERENCE_SIZE_B, Features
from ..predictor import Predictor
from ..retention import OutlierLayers, protected_shares
from .values import DamagedCalibration


def check_evaluates(predictor: Predictor) -> None:
    """Every kind of granularity at the fewest bits and the most, no layer protected and all, at the
    ends of what is planned: finite, within 0 to 1, the interval's ends on their sides."""
    payload, models = predictor.payload, predictor.models
    probed, own = payload.get("probed"), payload["models"][payload["own"]]
    layers = int(own["shape"][1])
    outliers = (
        OutlierLayers(tuple(own["outlier_layers"]), own["outlier_share"])
        if probed is None
        else OutlierLayers(keys=tuple(probed["keys"]), values=tuple(probed["values"]))
    )
    features = Features(None, REFERENCE_SIZE_B, False, False, 128, layers, 1.0, outliers)
    formats, bits = _probes(), np.array([16.0, 8.0, 4.0])
    for protected in ((), range(layers)):
        part = protected_shares(outliers, layers, protected)
        kept = np.array([part.plain, part.outlier, part.value])
        shares = np.repeat(kept[:, None], len(formats.k_bits), axis=1)
        for sensitivity in (models.known(payload["own"], features), models.unseen(features)):
            ends = sensitivity.z, 0.0, -sensitivity.z
            for context in (1.0, 4096.0, 2.0**22):
                with np.errstate(all="ignore"):
                    retention = predictor.retention(
                        sensitivity,
                        formats,
                        formats.with_bits(8, 8),
                        shares,
                        context,
                        bits,
                        tuple(payload["kinds"]),
                        ends,
                    )
                for of_part in retention:
                    _check_ends(of_part)


def _check_ends(ends: Floats) -> None:
    low, middle, high = ends
    if not (np.isfinite(ends).all() and (ends >= 0).all() and (ends <= 1).all()):
        raise DamagedCalibration("the coefficients give a retention that is none")
    if not ((low <= middle + 1e-12).all() and (middle <= high + 1e-12).all()):
        raise DamagedCalibration("the coefficients give an interval whose ends are swapped")


def _probes() -> FormatArrays:
    """Cache formats at the corners of the space."""
    bits = np.array([2.0, 4.0, 8.0, 16.0])
    grid = [
        axis.ravel()
        for axis in np.meshgrid(bits, np.arange(len(GRANULARITIES)), [0.0, 1.0], indexing="ij")
    ]
    k_bits, granularity, on = grid
    return FormatArrays(
        k_bits=k_bits,
        v_bits=k_bits,
        granularity=granularity.astype(np.int64),
        group=np.where(on > 0, 32.0, 128.0),
        block=np.where(on > 0, 64.0, 1.0),
        smoothing=on,
        rotate_k=on,
        rotate_v=on,
        residual=128.0 * on,
    )
