"""The bench of a calibration, and what it refuses before weights are read."""

from collections.abc import Iterator
from contextlib import contextmanager

import transformers

from ..planner.errors import BadInput
from ..planner.models.spec import ModelSpec
from .design.options import CalibrationOptions
from .measure.bench import Bench
from .measure.prompts import PromptTexts


def check_here(
    source: str, spec: ModelSpec, material: PromptTexts, options: CalibrationOptions
) -> None:
    """Raise BadInput for what a cluster's workers would refuse, by this machine's tokenizer."""
    try:
        bench = Bench(
            source, spec, material, device="cpu", offline=options.offline,
            trust_remote_code=options.trust_remote_code,
        )  # fmt: skip
    except BadInput:
        return  # the workers may have files that this machine lacks
    bench.check(options.tasks is not None, options.affine)


@contextmanager
def open_bench(
    source: str, spec: ModelSpec, material: PromptTexts, device: str, options: CalibrationOptions
) -> Iterator[Bench]:
    """The bench of a calibration, its weights not read yet. Raises BadInput for what config,
    tokenizer and texts tell cannot be measured."""
    transformers.utils.logging.disable_progress_bar()
    bench = Bench(
        source,
        spec,
        material,
        device=device,
        offline=options.offline,
        trust_remote_code=options.trust_remote_code,
    )
    bench.check(options.tasks is not None, options.affine)
    try:
        yield bench
    finally:
        bench.close()
