"""What a row says of a divergence, the same in every benchmark that measures one."""

from typing import Any

import torch

from kvpareto.calibration.measure.divergence import Divergence


def measured(apart: Divergence) -> dict[str, Any]:
    """Positions, KL and its standard error in nats, top-1 agreement, perplexity, torch."""
    return {
        "positions": apart.positions,
        "kl": apart.kl.value,
        "kl_stderr": apart.kl.stderr,
        "top1": apart.top1.value,
        "perplexity": apart.perplexity,
        "torch": torch.__version__,
    }
