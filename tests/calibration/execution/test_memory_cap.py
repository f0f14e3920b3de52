"""A hard cap on a GPU's memory: what it is set to, and the allocator's settings."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kvpareto.calibration.execution import memory_cap as device_memory
from kvpareto.calibration.execution.memory_cap import MARGIN, DeviceMemory, allowed_bytes
from tests.support.fake_gpu import MB


def test_the_cap_is_the_budget_less_context_and_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = DeviceMemory.__new__(DeviceMemory)
    memory.device, memory.others = torch.device("cuda", 0), 7 * MB
    shares: list[float] = []
    fakes: dict[str, Callable[..., Any]] = {
        "synchronize": lambda device: None,
        "mem_get_info": lambda device: (60_000 * MB, 80_000 * MB),
        "memory_reserved": lambda device: 19_000 * MB,
        "set_per_process_memory_fraction": lambda share, device: shares.append(share),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    assert memory.used() == 20_000 * MB - 7 * MB
    assert memory.context() == 993 * MB
    with memory.held_to(24_000 * MB) as cap:
        assert cap is not None
        assert cap.allowed == 24_000 * MB - 993 * MB - MARGIN
    assert shares == [cap.allowed / (80_000 * MB), 1.0]
    assert allowed_bytes(100, 200) == 0


def test_expandable_segments_are_asked_for_unless_the_user_asked_for_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    assert device_memory.allocator_settings() is None
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    device_memory.prefer_expandable_segments()
    assert device_memory.allocator_settings() == "max_split_size_mb:64"
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")
    device_memory.prefer_expandable_segments()
    assert device_memory.allocator_settings() == device_memory.EXPANDABLE
    monkeypatch.delenv("PYTORCH_ALLOC_CONF")


def test_a_cap_needs_a_numbered_device() -> None:
    """torch takes no fraction of memory for a device without a number."""
    assert device_memory.numbered("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        assert device_memory.numbered("cuda") == torch.device("cuda", 0)
    assert device_memory.numbered("cuda:1").index == 1
