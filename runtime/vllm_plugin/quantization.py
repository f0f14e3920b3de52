"""vLLM's quantization `kvpareto_awq`: AWQ checkpoints on this project's 4-bit kernels.

vLLM's own interface for such: `register_quantization_config`, and `--quantization kvpareto_awq`
chooses it. The class here only says so: vLLM's AWQ, which takes seconds to import, is imported
where a model is loaded with it (awq_linear.py).
"""

from typing import Any

import torch
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig

from .names import QUANTIZATION


class PackedAwqChoice(QuantizationConfig):
    """What vLLM asks before a model is loaded."""

    @classmethod
    def get_name(cls) -> str:
        return QUANTIZATION

    @classmethod
    def get_supported_act_dtypes(cls) -> list[torch.dtype]:
        return [torch.half, torch.bfloat16]

    @classmethod
    def get_min_capability(cls) -> int:
        return 80

    @staticmethod
    def get_config_filenames() -> list[str]:
        return ["quantize_config.json", "quant_config.json"]

    @classmethod
    def override_quantization_method(
        cls, hf_quant_cfg: dict[str, Any], user_quant: str | None, hf_config: Any = None
    ) -> str | None:
        """Only where it was asked for, and the checkpoint is AWQ's."""
        stored = str(hf_quant_cfg.get("quant_method", "")).lower()
        return QUANTIZATION if user_quant == QUANTIZATION and stored == "awq" else None

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> QuantizationConfig:
        from .awq_linear import PackedAwqConfig

        return PackedAwqConfig.from_config(config)

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> None:
        raise NotImplementedError  # `from_config` gives the configuration of layers
