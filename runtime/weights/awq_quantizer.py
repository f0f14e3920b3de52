"""The one place that speaks to an AWQ library: gptqmodel or AutoAWQ, whichever is installed.

Both search, layer by layer, for the per-channel scales under which rounding to 4 bits changes
the layer's output least on sample text (AWQ: Lin et al., arXiv 2306.00978), and write the same
format. gptqmodel is the kept one and is preferred; AutoAWQ is archived but imports and works
with transformers 5. Versions that were tried: docs/weights_runtime.md. Neither is needed to
load or to run what they write.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import torch

from ...planner.errors import MissingDependency
from ...planner.install import install_command

GPTQMODEL, AUTOAWQ = "gptqmodel", "autoawq"
_MODULES = {GPTQMODEL: "gptqmodel", AUTOAWQ: "awq"}


def installed() -> list[str]:
    """Libraries that can be used here, the preferred one first."""
    return [name for name, module in _MODULES.items() if find_spec(module) is not None]


def choose(library: str | None = None) -> str:
    """`library`, or the preferred one. Raises MissingDependency where it is not installed."""
    available = installed()
    if (library or next(iter(available), None)) not in available:
        raise MissingDependency(
            f"{library or 'an AWQ library'} is not installed, and quantizing to 4 bits needs one",
            f"run {install_command('awq')}",
        )
    return library or available[0]


def search_and_save(
    source: Path,
    destination: Path,
    samples: list[list[int]],
    *,
    group_size: int,
    device: str,
    library: str,
) -> None:
    """Quantize the 16-bit checkpoint folder `source` into the folder `destination`.

    `samples` are token ids of the text whose activations the search looks at.
    """
    run = {GPTQMODEL: _with_gptqmodel, AUTOAWQ: _with_autoawq}[library]
    run(source, destination, samples, group_size, device)


def _with_gptqmodel(
    source: Path, destination: Path, samples: list[list[int]], group_size: int, device: str
) -> None:
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu:
        # Read at import; without it gptqmodel plans for no CPU worker and waits for ever.
        os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    from gptqmodel import BACKEND, GPTQModel
    from gptqmodel.quantization.config import (
        FORMAT,
        METHOD,
        QuantizeConfig,
    )

    settings = QuantizeConfig(
        bits=4,
        group_size=group_size,
        sym=False,  # zero points, as the format has them
        method=METHOD.AWQ,
        format=FORMAT.GEMM,
    )
    model = GPTQModel.load(str(source), settings, device=device, trust_remote_code=False)
    calibration = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in samples]
    backend = BACKEND.AWQ_TORCH if on_cpu else BACKEND.AUTO
    model.quantize(calibration, batch_size=1, backend=backend)
    model.save(str(destination))


def _with_autoawq(
    source: Path, destination: Path, samples: list[list[int]], group_size: int, device: str
) -> None:
    from awq import AutoAWQForCausalLM

    model = AutoAWQForCausalLM.from_pretrained(
        str(source), device_map=device, trust_remote_code=False
    )
    settings = {"zero_point": True, "q_group_size": group_size, "w_bit": 4, "version": "GEMM"}
    longest = max(len(ids) for ids in samples)
    model.quantize(
        quant_config=settings,
        calib_data=samples,
        max_calib_samples=len(samples),
        max_calib_seq_len=longest,
    )
    model.save_quantized(str(destination))
