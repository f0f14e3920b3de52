"""The plugin is offered where it can serve, and says why where it cannot."""

import logging
import subprocess
import sys
from importlib import import_module, metadata

import pytest

from kvpareto.runtime.vllm_plugin import names, registration
from tests.runtime.vllm_plugin import fake_vllm


def absent(name: str) -> str:
    raise metadata.PackageNotFoundError(name)


def test_it_registers_vllms_custom_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_vllm.install(monkeypatch)
    registration.register()
    registration.register()  # vLLM may load a plugin more than once
    assert list(fake_vllm.overrides.values()) == [names.BACKEND]
    module, _, name = names.BACKEND.rpartition(".")
    backend = getattr(import_module(module), name)
    assert backend.get_name() == "CUSTOM"
    assert [choice.get_name() for choice in fake_vllm.quantizations["kvpareto_awq"]] == [
        "kvpareto_awq"
    ] * 2
    assert backend.get_required_kv_cache_layout() == "HND"


@pytest.mark.parametrize(
    ("version", "cuda", "said"),
    [("0.25.1", True, "written for vLLM 0.26, this is 0.25.1"),
     ("0.260.0", True, "this is 0.260.0"),
     ("0.26.0", False, "needs an NVIDIA GPU")],
)  # fmt: skip
def test_elsewhere_the_reason_is_logged(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    version: str,
    cuda: bool,
    said: str,
) -> None:
    fake_vllm.install(monkeypatch, version=version, cuda=cuda)
    with caplog.at_level(logging.INFO, logger="vllm.kvpareto"):
        registration.register()
    assert fake_vllm.overrides == fake_vllm.quantizations == {}
    (record,) = caplog.records
    assert said in record.message


def test_without_vllm_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", absent)
    registration.register()
    assert registration.why_not() == "vLLM is not installed"


def test_another_plugins_backend_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_vllm.install(monkeypatch)
    custom = sys.modules["vllm.v1.attention.backends.registry"].AttentionBackendEnum.CUSTOM
    fake_vllm.overrides[custom] = "other.Backend"
    registration.register()
    assert fake_vllm.overrides == {custom: "other.Backend"}
    assert "other.Backend already" in str(registration.why_not())


def test_loading_the_entry_point_imports_no_torch() -> None:
    """vLLM imports it in every process, also in those that never compute."""
    script = "import sys, kvpareto.runtime.vllm_plugin; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
