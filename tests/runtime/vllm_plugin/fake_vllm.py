"""As much of vLLM 0.26 as the plugin imports, so that its flow is tested without vLLM.

Names, signatures and the order of requests are vLLM's; the parent's attention records that it was
asked. tests of a real vLLM are in benchmarks/vllm/plugin.py.
"""

import sys
from dataclasses import dataclass
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from kvpareto.runtime import vllm_plugin


class _Registry(Enum):
    TRITON_ATTN = "triton"
    CUSTOM = None

    def is_overridden(self) -> bool:
        return self in overrides

    def get_path(self) -> str:
        return overrides[self]


overrides: dict[_Registry, str] = {}
quantizations: dict[str, list[type]] = {}


class AutoAWQLinearMethod:
    def __init__(self, quant_config: Any) -> None:
        self.quant_config = quant_config


class AutoAWQMarlinLinearMethod:
    pass


@dataclass
class AutoAWQConfig:
    group_size: int = 128
    zero_point: bool = True

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(config["group_size"], config["zero_point"])

    def get_quant_method(self, layer: Any, prefix: str) -> Any:
        return None if prefix == "router" else AutoAWQMarlinLinearMethod()


@dataclass
class CommonAttentionMetadata:
    query_start_loc: Tensor
    query_start_loc_cpu: Tensor
    seq_lens: Tensor
    num_reqs: int
    max_query_len: int
    block_table_tensor: Tensor
    seq_lens_cpu_upper_bound: Tensor | None
    slot_mapping: Tensor
    causal: bool = True


@dataclass
class TritonAttentionMetadata:
    query_start_loc: Tensor
    seq_lens: Tensor
    block_table: Tensor
    slot_mapping: Tensor
    causal: bool
    mm_prefix_range_tensor: Tensor | None = None
    rswa_prefix_lens: Tensor | None = None


class TritonAttentionMetadataBuilder:
    def __init__(self, spec: Any, names: list[str], config: Any, device: torch.device) -> None:
        self.device = device

    def _init_reorder_batch_threshold(self, threshold: int, supports_spec_as_decode: bool) -> None:
        self.reorder_batch_threshold = threshold

    def build(self, prefix: int, common: Any, fast: bool = False) -> TritonAttentionMetadata:
        return TritonAttentionMetadata(
            common.query_start_loc, common.seq_lens, common.block_table_tensor,
            common.slot_mapping, common.causal,
        )  # fmt: skip


class TritonAttentionImpl:
    alibi_slopes: Tensor | None = None
    chunk_lookback = -1
    kv_sharing_target_layer_name: str | None = None

    def __init__(self, num_heads: int, head_size: int, scale: float, num_kv_heads: int,
                 sliding_window: int | None, kv_cache_dtype: str, logits_soft_cap: float = 0.0,
                 sinks: Tensor | None = None, attn_type: str = "decoder") -> None:  # fmt: skip
        self.num_heads, self.head_size, self.scale = num_heads, head_size, scale
        self.num_kv_heads, self.num_queries_per_kv = num_kv_heads, num_heads // num_kv_heads
        self.sliding_window = (-1, -1) if sliding_window is None else (sliding_window - 1, 0)
        self.kv_cache_dtype, self.logits_soft_cap = kv_cache_dtype, logits_soft_cap
        self.sinks, self.attn_type = sinks, attn_type
        self.asked: list[str] = []

    def forward(self, *args: Any, **kwargs: Any) -> None:
        self.asked.append("forward")

    def do_kv_cache_update(self, *args: Any) -> None:
        self.asked.append("update")

    def _ensure_scale_caches(self, kv_cache: Tensor) -> None:
        self.asked.append("scales")


def split_decodes_and_prefills(common: Any, decode_threshold: int) -> tuple[int, int, int, int]:
    new = (common.query_start_loc_cpu[1:] - common.query_start_loc_cpu[:-1]).tolist()
    decodes = next((i for i, n in enumerate(new) if n > decode_threshold), len(new))
    return decodes, len(new) - decodes, decodes, sum(new) - decodes


def config(longest: int = 100, step: int = 64) -> Any:
    return SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=longest),
        scheduler_config=SimpleNamespace(max_num_batched_tokens=step),
        cache_config=SimpleNamespace(block_size=16),
        parallel_config=SimpleNamespace(use_ubatching=False),
    )


def install(patch: pytest.MonkeyPatch, *, cuda: bool = True, version: str = "0.26.0") -> None:
    """Put the modules where imports find them; the plugin's own are imported anew."""
    overrides.clear()
    quantizations.clear()
    contents: dict[str, dict[str, Any]] = {
        "vllm": {},
        "vllm.config": {"get_current_vllm_config": config},
        "vllm.model_executor": {},
        "vllm.model_executor.layers": {},
        "vllm.model_executor.layers.quantization": {
            "register_quantization_config": lambda name: quantizations.setdefault(name, []).append
        },
        "vllm.model_executor.layers.quantization.auto_awq": {
            "AutoAWQConfig": AutoAWQConfig,
            "AutoAWQLinearMethod": AutoAWQLinearMethod,
            "AutoAWQMarlinLinearMethod": AutoAWQMarlinLinearMethod,
        },
        "vllm.model_executor.layers.quantization.base_config": {
            "QuantizationConfig": type("QuantizationConfig", (), {})
        },
        "vllm.platforms": {"current_platform": SimpleNamespace(is_cuda=lambda: cuda)},
        "vllm.v1": {},
        "vllm.v1.attention": {},
        "vllm.v1.attention.backend": {
            "AttentionType": SimpleNamespace(DECODER="decoder"),
            "AttentionCGSupport": SimpleNamespace(UNIFORM_SINGLE_TOKEN_DECODE=1),
            "CommonAttentionMetadata": CommonAttentionMetadata,
        },
        "vllm.v1.attention.backends": {},
        "vllm.v1.attention.backends.fa_utils": {
            "is_flash_attn_varlen_func_available": lambda: True,
            "get_flash_attn_version": lambda head_size: 3,
        },
        "vllm.v1.attention.backends.registry": {
            "AttentionBackendEnum": _Registry,
            "register_backend": overrides.__setitem__,
        },
        "vllm.v1.attention.backends.triton_attn": {
            "TritonAttentionBackend": type("TritonAttentionBackend", (), {}),
            "TritonAttentionImpl": TritonAttentionImpl,
            "TritonAttentionMetadata": TritonAttentionMetadata,
            "TritonAttentionMetadataBuilder": TritonAttentionMetadataBuilder,
        },
        "vllm.v1.attention.backends.utils": {
            "split_decodes_and_prefills": split_decodes_and_prefills
        },
        "vllm.v1.worker": {},
        "vllm.v1.worker.workspace": {"current_workspace_manager": _Workspace},
    }
    for name, names in contents.items():
        module = ModuleType(name)
        module.__dict__.update(names, __path__=[])
        patch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            patch.setattr(sys.modules[parent], child, module, raising=False)
    for name in ("awq_linear", "backend", "dense", "metadata", "quantization", "workspace"):
        patch.delitem(sys.modules, f"{vllm_plugin.__name__}.{name}", raising=False)
        patch.delattr(vllm_plugin, name, raising=False)
    from importlib import metadata

    real = metadata.version
    patch.setattr(metadata, "version", lambda name: version if name == "vllm" else real(name))


class _Workspace:
    def get_simultaneous(self, *shapes: tuple[tuple[int, ...], torch.dtype]) -> list[Tensor]:
        return [torch.full(shape, float("nan"), dtype=dtype) for shape, dtype in shapes]
