"""SGLang's command: --dp-size alone starts whole models, and --ep-size must divide --tp-size."""

import pytest

from kvpareto import api
from kvpareto.planner.errors import BadInput, NothingFits


def command(model: str, gpu: str, users: int, parallel: str) -> str:
    words = {"gpu": gpu, "users": users, "parallel": parallel, "context": "8k", "offline": True}
    served = api.plan(model, engine="sglang", **words)["recommended"]["serving"]
    assert served is not None
    return served["command"]


@pytest.mark.parametrize(
    ("parallel", "chunk", "sizes"),
    [
        ("tp8,ep", 2048, "--tp-size 8 --ep-size 8"),
        ("tp1,dp8,ep", 16384, "--tp-size 8 --dp-size 8 --enable-dp-attention --ep-size 8"),
        (
            "tp2,pp2,dp2,ep",
            4096,
            "--tp-size 4 --pp-size 2 --dp-size 2 --enable-dp-attention --ep-size 4",
        ),
    ],
)
def test_replicas_that_share_experts_are_one_group_of_ranks(
    parallel: str, chunk: int, sizes: str
) -> None:
    """Their attention alone is replicated; it divides the chunk of 2,048 and the 64 users."""
    line = command("deepseek-ai/DeepSeek-V3", "8xB200", 64, parallel)
    assert f"--chunked-prefill-size {chunk} --max-running-requests 64 " in line
    assert line.endswith(f"--mem-fraction-static 0.942 {sizes}")


def test_whole_replicas_take_their_part_of_the_users() -> None:
    line = command("Qwen/Qwen3-8B", "2xH100", 8, "dp2")
    assert "--chunked-prefill-size 2048 --max-running-requests 4 " in line
    assert line.endswith("--dp-size 2")


def test_what_a_fraction_in_thousandths_lacks_is_no_single_byte() -> None:
    """Eighteen tokens too many, of 24 users in 73,728 bytes each: 32 MB, and 1 B was said."""
    words = {"gpu": "H100", "users": 24, "output": 0, "offline": True}
    assert api.plan("Qwen/Qwen3-8B", engine="sglang", context=36482, **words)["fits"]
    with pytest.raises(NothingFits) as caught:
        api.plan("Qwen/Qwen3-8B", engine="sglang", context=36500, **words)
    assert 18 * 24 * 73728 <= caught.value.details["missing_bytes"] <= 0.001 * 80 * 2**30


def test_weights_in_eight_bit_floats_need_a_card_of_ampere() -> None:
    words = {"engine": "sglang", "context": 2048, "offline": True}
    with pytest.raises(BadInput, match=r"fp8 weights need compute capability 8\.0, not 7\.5"):
        api.estimate("Qwen/Qwen3-4B", "wfp8-k16v16", gpu="T4", **words)
    assert api.estimate("Qwen/Qwen3-4B", "wfp8-k16v16", gpu="A10", **words)["config"]
