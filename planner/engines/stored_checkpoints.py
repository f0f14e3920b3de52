"""Which quantized checkpoints engines load, and what to do with one that an engine does not.

Read in the releases: vLLM 0.26.0's model_executor/layers/quantization, SGLang 0.5.23's
srt/layers/quantization (what it has on CUDA), transformers 5.17's quantizers/auto.py.
"""

from collections.abc import Mapping
from typing import Any

from ..models.read_config import read_model
from ..models.spec import CheckpointQuantization, ModelSpec

_BOTH = (
    "fp8",
    "awq",
    "gptq",
    "auto-round",
    "mxfp4",
    "modelopt",
    "compressed-tensors",
    "bitsandbytes",
)
LOADS = {
    "vllm": (*_BOTH, "fbgemm_fp8"),  # its `inc` takes over auto-round
    "sglang": _BOTH,
    "transformers": (*(m for m in _BOTH if m != "modelopt"), "fbgemm_fp8", "hqq", "eetq", "bitnet"),
}
"""Methods of `quantization_config` by engine."""
UNREAD = {
    "vLLM": ("quark", "torchao", "fp_quant", "humming"),
    "SGLang": ("quark", "modelslim", "humming"),
    "transformers": ("aqlm", "quanto", "quark", "fp_quant", "higgs", "torchao", "vptq", "spqr"),
}
"""Methods that programs load, and whose bytes are not known here."""
SERVERS = ("vllm", "sglang")
GPTQ_BITS = (4, 8)
"""Widths for which both servers have kernels: Marlin's, of symmetric codes. Their plain GPTQ
kernels are gone from CUDA."""
GPTQ_GROUPS = (None, 32, 64, 128)
"""Weights that share a scale, None: a row's; those of Marlin's kernels."""
GPTQ_FIELDS = ("sym", "desc_act")
"""Fields that both servers ask a GPTQ checkpoint for, and have no default for."""
TRAINED = ("bitnet",)
"""Methods whose few bits a model was trained with: there is no original."""


def obstacle(engine: str, title: str, stored: CheckpointQuantization) -> str | None:
    """Why the release of a server loads no checkpoint that is stored so; None where it does."""
    if stored.bits >= 16:  # no matrix is left
        return None
    if stored.method not in LOADS[engine]:
        known = ", ".join(LOADS[engine])
        return f"{title} loads no checkpoints of {stored.method}, but of {known} and 16 bits"
    gptq = stored.gptq
    if gptq is None:
        return None
    if stored.bits not in GPTQ_BITS:
        return f"{title} loads GPTQ of 4 and 8 bits, not of {stored.bits:g}"
    if missing := [name for name in GPTQ_FIELDS if name in gptq.missing]:
        return f"{title} asks a GPTQ checkpoint for {' and '.join(missing)}, which this one lacks"
    if not gptq.symmetric:
        return f"{title} loads GPTQ of symmetric codes, and this checkpoint's sym is false"
    if stored.group_size not in GPTQ_GROUPS:
        return f"{title} loads GPTQ in groups of 32, 64, 128 or a row, not of {stored.group_size}"
    if gptq.marlin:
        return f"{title} packs GPTQ for Marlin itself, and this checkpoint is packed already"
    return None


def remedy(engine: str, spec: ModelSpec) -> str:
    """What can be done with a checkpoint that a server refuses: engines that load it as it is, the
    original, and a file of that."""
    stored, ways = spec.quantization, list[str]()
    if stored is not None:
        able = [s for s in SERVERS if s != engine and obstacle(s, s, stored) is None]
        if stored.method in LOADS["transformers"] and (
            stored.bits >= 4 or stored.method in TRAINED
        ):
            able.append("transformers")
        ways = [f"--engine {name} loads it as it is" for name in able]
        if stored.method in TRAINED:
            return "; ".join(ways)
    from .llama_cpp import LLAMA_CPP  # on the way to an error alone

    if LLAMA_CPP.cannot_run(spec) is None:
        ways.append("--engine llama.cpp plans a GGUF of its original")
    ways.append(_original(spec))
    return "; ".join(ways)


def remedy_of_unread(config: Mapping[str, Any], name: str) -> str:
    """What can be done with a checkpoint whose quantization_config is not read: programs that load
    its method without a plan, and a plan of the model with its shape. Raises BadConfig where the
    rest of its config.json is not read either."""
    from ..models.quantization.original import without_quantization

    section = config.get("quantization_config")
    method = section.get("quant_method") if isinstance(section, Mapping) else None
    able = [name for name, methods in UNREAD.items() if method in methods]
    ways = [f"{' and '.join(able)} may load it, unplanned"] if able else []
    return "; ".join([*ways, _original(read_model(without_quantization(config), name))])


def _original(spec: ModelSpec) -> str:
    from ..models.quantization.original import plan_of_original  # on the way to an error alone

    return plan_of_original(spec)
