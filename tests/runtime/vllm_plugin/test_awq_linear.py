"""AWQ's layers inside vLLM: which are taken, that loading reorders them, what they compute.

vLLM is faked (fake_vllm.py); products run in plain torch, without a GPU.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from kvpareto.runtime.weights.awq_format import pack
from tests.runtime.vllm_plugin import fake_vllm
from tests.support.runtime_builders import relative_error

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}


@pytest.fixture
def awq(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake_vllm.install(monkeypatch)
    from kvpareto.runtime.vllm_plugin import awq_linear

    return awq_linear


def layer(inputs: int, outputs: int, group: int = 128) -> tuple[Any, torch.Tensor]:
    """A module as vLLM loads it from a checkpoint, and its weight [inputs, outputs]."""
    draw = torch.Generator().manual_seed(inputs + outputs)
    codes = torch.randint(0, 16, (inputs, outputs), generator=draw, dtype=torch.uint8)
    zeros = torch.randint(0, 16, (inputs // group, outputs), generator=draw, dtype=torch.uint8)
    scales = torch.rand(inputs // group, outputs, generator=draw).bfloat16()
    module = torch.nn.Module()
    for name, tensor in (("qweight", pack(codes)), ("qzeros", pack(zeros)), ("scales", scales)):
        module.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))
    spread = [x.float().repeat_interleave(group, 0) for x in (zeros, scales)]
    return module, (codes.float() - spread[0]) * spread[1]


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 256, 96), (3, 384, 40), (70, 128, 8)])
def test_a_layer_multiplies_as_its_checkpoint_says(
    awq: Any, group: int, rows: int, inputs: int, outputs: int
) -> None:
    module, weight = layer(inputs, outputs, group)
    method = awq.PackedAwqMethod(awq.PackedAwqConfig(group))
    method.process_weights_after_loading(module)
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows)).bfloat16()
    bias = torch.arange(outputs).bfloat16()
    for added in (None, bias):
        y = method.apply(module, x.view(1, rows, inputs), added)
        want = x.float() @ weight + (0 if added is None else added.float())
        assert y.shape == (1, rows, outputs)
        assert relative_error(y[0], want) < 6e-3  # bfloat16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("rows", [1, 2, 3, 16, 33, 64, 65, 300])
def test_a_gpu_multiplies_the_same_in_a_graph(awq: Any, rows: int) -> None:
    module, weight = layer(4096, 6144)
    module.cuda()
    method = awq.PackedAwqMethod(awq.PackedAwqConfig())
    method.process_weights_after_loading(module)
    x = torch.randn(rows, 4096, generator=torch.Generator().manual_seed(rows)).bfloat16()
    given = x.cuda()
    for _ in range(2):  # kernels are compiled before the graph
        method.apply(module, given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = method.apply(module, given)
    y.fill_(float("nan"))
    graph.replay()
    assert relative_error(y.cpu(), x.float() @ weight) < 6e-3


def test_the_bytes_of_a_layer_stay_as_many(awq: Any) -> None:
    module, _ = layer(256, 64)
    before = sum(p.nbytes for p in module.parameters())
    awq.PackedAwqMethod(awq.PackedAwqConfig()).process_weights_after_loading(module)
    assert sum(p.nbytes for p in module.parameters()) == before


def test_the_scratch_holds_the_largest_matrix_of_all_layers(awq: Any) -> None:
    for inputs, outputs in ((128, 64), (256, 512), (128, 8)):
        module, _ = layer(inputs, outputs)
        awq.PackedAwqMethod(awq.PackedAwqConfig()).process_weights_after_loading(module)
    (scratch,) = awq._scratches(module.qweight.device)
    assert scratch.scratch.numel() == 2 * 256 * 512


@pytest.mark.parametrize(
    ("config", "size", "ours"),
    [
        ({}, (4096, 6144), True),
        ({"group_size": 64}, (128, 8), True),
        ({"group_size": -1}, (4096, 6144), False),
        ({"group_size": 16}, (4096, 6144), False),
        ({"zero_point": False}, (4096, 6144), False),
        ({}, (4096 + 64, 6144), False),
        ({}, (4096, 6140), False),
    ],
)
def test_layers_that_the_layout_does_not_hold_are_vllms(
    awq: Any, config: dict[str, Any], size: tuple[int, int], ours: bool
) -> None:
    asked = awq.PackedAwqConfig.from_config(AWQ | config)
    whole = SimpleNamespace(input_size=size[0], output_size=size[1])
    shard = SimpleNamespace(
        input_size=2 * size[0], output_size=999,
        input_size_per_partition=size[0], output_size_per_partition=size[1],
    )  # fmt: skip
    for module in (whole, shard):  # vLLM asks before and after it knows the rank's part
        assert isinstance(asked.get_quant_method(module, "x"), awq.PackedAwqMethod) is ours
    assert asked.get_quant_method(whole, "router") is None


@pytest.mark.parametrize(
    ("stored", "typed", "chosen"),
    [("awq", "kvpareto_awq", True), ("awq", None, False), ("awq", "awq", False),
     ("gptq", "kvpareto_awq", False), ("", "kvpareto_awq", False)],
)  # fmt: skip
def test_it_is_chosen_by_name_alone(awq: Any, stored: str, typed: str | None, chosen: bool) -> None:
    from kvpareto.runtime.vllm_plugin.quantization import PackedAwqChoice

    said = PackedAwqChoice.override_quantization_method({"quant_method": stored}, typed)
    assert said == ("kvpareto_awq" if chosen else None)
    assert isinstance(PackedAwqChoice.from_config(AWQ), awq.PackedAwqConfig)


def test_torch_compile_sees_one_node(awq: Any) -> None:
    module, _ = layer(128, 16)
    method = awq.PackedAwqMethod(awq.PackedAwqConfig())
    method.process_weights_after_loading(module)
    graphs: list[list[str]] = []

    def keep(graph: Any, _: Any) -> Any:
        graphs.append([str(n.target) for n in graph.graph.nodes if n.op == "call_function"])
        return graph.forward

    x = torch.randn(2, 128).bfloat16()
    same = torch.compile(lambda x: method.apply(module, x), backend=keep, fullgraph=True)(x)
    assert torch.equal(same, method.apply(module, x))
    assert sum("awq_product" in name for name in graphs[0]) == 1
