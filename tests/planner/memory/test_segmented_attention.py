"""What attention over staged segments allocates: by hand, beside the runtime's own cuts, and beside
an allocator's history of an H200."""

import numpy as np
import pytest

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.gpus import Hardware
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.activation.forward_step import Attend, ForwardStep
from kvpareto.planner.memory.activation.live_tensors import LiveTensors
from kvpareto.planner.memory.activation.segmented_attention import _cut, splits, take_staged
from kvpareto.planner.memory.activation.workspace import segment_tokens
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.memory.estimate_space import memory_table
from kvpareto.planner.models.spec import Attention
from kvpareto.planner.search.enumerate import enumerate_space
from kvpareto.planner.workload import Workload

MIB = 2**20


def mixer_of(model: str) -> Attention:
    (mixer, _), *_ = load_model(model, offline=True).mixer_counts
    assert isinstance(mixer, Attention)
    return mixer


LLAMA_3B = mixer_of("meta-llama/Llama-3.2-3B-Instruct")  # 24 heads of 128 channels, 8 KV heads


def stage(new: int, past: int, previous: int) -> ForwardStep:
    return ForwardStep(
        1, new, past, previous, element=2, hidden=3072, attend=Attend.PACKED, capacity=past + new
    )


def test_splits_by_hand() -> None:
    # 264 places. 24 heads x 4 blocks of 64 queries: 96 at a time.
    assert splits(24, 128, 256, 512) == 2  # 4 runs of keys: 2 and 4 splits fill 192 or 384 of 528
    assert splits(24, 128, 256, 1536) == 12  # 12 runs: 1,152 of 1,320, the others at most 73 %
    assert splits(24, 128, 256, 4096) == 5  # 480 of 528; eleven would be 1,056 of 1,056
    assert splits(14, 128, 1024, 4096) == 1  # 224 blocks are enough
    assert splits(24, 64, 256, 1536) == 2  # runs of 256 keys for narrow heads: 6 of them


def test_the_most_alive_is_what_an_allocator_saw() -> None:
    """Chunks of 256 of Llama-3.2-3B at 8,192 tokens on an H200: 37.8 MiB in the last call (its
    result and 12 splits), two results of a segment in two parts, queries for two, the output."""
    live = LiveTensors()
    out = take_staged(live, LLAMA_3B, stage(256, 8192 - 256, 256))
    assert live.nbytes == out == 256 * 24 * 128 * 2
    assert live.peak / MIB == pytest.approx(37.8 + 3.0 + 3.0 + 1.5, abs=0.1)


def test_a_first_chunk_sees_no_past() -> None:
    live = LiveTensors()
    size, sums = 1024 * 24 * 128 * 2, 1024 * 24 * 4
    take_staged(live, LLAMA_3B, stage(1024, 0, 0))  # 384 blocks: no splits
    assert live.peak == size + size + sums


def test_windows_take_their_queries_in_steps() -> None:
    """Gemma 3: a window of 1,024 leaves 7,169 queries a segment of 8,192 tokens."""
    spec = load_model("google/gemma-3-4b-it", offline=True)
    mixer = next(x for x, _ in spec.mixer_counts if isinstance(x, Attention) and x.window)
    assert mixer.window == 1024
    width = mixer.query_heads * mixer.value_dim * 2
    whole, step = 16_000 * width, 7169 * width
    live = LiveTensors()
    take_staged(live, mixer, stage(16_000, 0, 0))
    sums = 7169 * mixer.query_heads * 4
    assert live.peak == pytest.approx(whole + 2 * step + step + sums, abs=2048)


@pytest.mark.parametrize("new", [17, 128, 512, 640, 1024, 4096, 7000, 8192])
def test_cuts_are_the_runtimes(new: int) -> None:
    pytest.importorskip("torch")
    from kvpareto.runtime.kernels.staged import _segments

    segment = segment_tokens(8, 128, 128, new)
    for past in (0, 1, 300, 2047, 2048, 4096, 5000, 8192, 16_383, 16_384, 31_744, 70_001):
        *before, (first, end) = _segments(0, past + new, new, segment)
        assert _cut(LLAMA_3B, new, past) == (len(before), end - first), past


H200 = find_gpu("H200")


@pytest.mark.parametrize(
    ("name", "less"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 0),
        ("Qwen/Qwen3-8B", 0),
        ("Qwen/Qwen3-30B-A3B", 66_191_360),
    ],
)
def test_chunks_in_8_bits_hold_no_results_of_segments(name: str, less: int) -> None:
    """On Hopper, with 4 bits or fewer; a chunk's FFN is the peak but for small experts. Without a
    card, on another, over 8 bits or with recent tokens in 16, they are counted."""
    spec, workload = load_model(name, offline=True), Workload(65_536, 128)

    def most(text: str, gpu: Hardware | None) -> int:
        config = Configuration.parse(text)
        return KVPARETO.activation(spec, config, workload, gpu).prefill_peak

    for chunk in (512, 2048, 8192):
        text = f"w4a16-k4v4-g64+pc{chunk}"
        gained = most(text, None) - most(text, H200)
        assert gained == (less if chunk == 8192 else 0)
        assert most(text, find_gpu("A100 80GB")) == most(text, None)
        for other in (f"w4a16-k8v4-g64+pc{chunk}", f"w4a16-k4v4-g64+res64+pc{chunk}"):
            assert most(other, H200) == most(other, None)


@pytest.mark.parametrize("text", ["w4a16-k4v4-g64+pc8192", "w4a16-k8v8-g64+pc8192"])
def test_a_plans_table_tells_them_apart_too(text: str) -> None:
    spec, workload = load_model("Qwen/Qwen3-30B-A3B", offline=True), Workload(65_536, 128)
    space = enumerate_space(spec, workload, KVPARETO, ((),))
    table = memory_table(spec, space, workload, KVPARETO, H200)
    index = [str(space.configuration(i)) for i in range(len(space))].index(text)
    w, f, c = np.unravel_index(index, space.shape)
    one = estimate(spec, Configuration.parse(text), workload, KVPARETO, H200)
    assert table.total_high[w, f, c] == one.total_high
