"""What latents, recurrent layers, windows and routers cost in the roofline, by hand."""

from dataclasses import fields, replace

import numpy as np
import pytest

from kvpareto.calibration.fit.hardware.engine_runs import shipped_runs
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.latency.attention_group import attention_group
from kvpareto.planner.latency.efficiency import Coefficients, shipped
from kvpareto.planner.latency.job import ConfigurationAxes, LatencyJob, job_of, some_of, stack
from kvpareto.planner.latency.recurrent_calls import recurrent_calls
from kvpareto.planner.latency.roofline import seconds
from kvpareto.planner.latency.work import work_of
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.spec import Attention, ModelSpec, RecurrentState
from kvpareto.planner.workload import Workload

H200 = find_gpu("H200")
OURS = shipped(KVPARETO)
LLAMA = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
LATENT = load_model("deepseek-ai/DeepSeek-V2-Lite-Chat", offline=True)
HYBRID = load_model("Qwen/Qwen3.5-27B", offline=True)
SHAPES = {row.model: row.spec for row in shipped_runs()}


def job(spec: ModelSpec, text: str, context: int, batch: int = 1) -> LatencyJob:
    config, workload = Configuration.parse(text), Workload(context, 16, batch=batch)
    size = kv_bytes(spec, config, workload, KVPARETO).total
    return job_of(spec, workload, ConfigurationAxes.of(config, size))


def times(
    spec: ModelSpec, text: str, context: int, batch: int = 1, coefficients: Coefficients = OURS
) -> tuple[float, float]:
    found = seconds(job(spec, text, context, batch), H200, coefficients)
    return float(found.ttft.item()), float(found.tpot.item())


def test_unlike_models_side_by_side_take_what_each_takes_alone() -> None:
    """A fit stacks the runs of all models: what one kind of layer adds is not the others'."""
    models = [LLAMA, LATENT, HYBRID, *(SHAPES[name] for name in sorted(SHAPES))]
    jobs = [job(spec, "w4a16-k8v8-g64+pc2048", 6000, 3) for spec in models]
    found = seconds(stack(jobs), H200, OURS)
    alone = [seconds(one, H200, OURS) for one in jobs]
    assert found.ttft.ravel() == pytest.approx([float(one.ttft.item()) for one in alone])
    assert found.tpot.ravel() == pytest.approx([float(one.tpot.item()) for one in alone])
    some = seconds(some_of(stack(jobs), [4, 1]), H200, OURS)
    assert (some.ttft == found.ttft[[4, 1]]).all()
    assert (some.tpot == found.tpot[..., [4, 1], :, :]).all()


def test_sets_of_coefficients_at_once_take_what_each_takes_alone() -> None:
    """A fit's slopes are of all coefficients at once."""
    models = [LLAMA, LATENT, HYBRID, *(SHAPES[name] for name in sorted(SHAPES))]
    jobs = stack([job(spec, "w4a16-k4v4-g64+pc2048", 6000, 3) for spec in models])
    names = [f.name for f in fields(OURS) if type(getattr(OURS, f.name)) is float]
    usual = np.array([[getattr(OURS, name)] * len(names) for name in names])
    moved = usual * (1 - 0.05 * np.eye(len(names)))  # a row a coefficient, a column a set
    every = {name: row.reshape(-1, 1, 1, 1, 1) for name, row in zip(names, moved, strict=True)}
    found = seconds(jobs, H200, replace(OURS, **every))
    for at, name in enumerate(names):
        alone = seconds(jobs, H200, replace(OURS, **{name: float(moved[at, at])}))
        assert found.ttft[at].ravel() == pytest.approx(alone.ttft.ravel(), rel=1e-12), name
        assert found.tpot[at].ravel() == pytest.approx(alone.tpot.ravel(), rel=1e-12), name


@pytest.mark.parametrize(
    ("batch", "context", "rounds", "tiles", "splits"),
    [
        (1, 16_368, 1, 8, 64),  # 64 parts of 256 tokens, 16 heads a program
        (1, 131_056, 2, 16, 264),  # as many as two on each of 132 processors
        (4, 8_176, 1, 8, 32),
    ],
)
def test_steps_over_latents_by_hand(
    batch: int, context: int, rounds: int, tiles: int, splits: int
) -> None:
    more = replace(OURS, latent_tile=OURS.latent_tile + 1e-5 / OURS.latent_packed)
    text = "w4a16-k4v4-g64"
    gap = times(LATENT, text, context, batch, more)[1] - times(LATENT, text, context, batch)[1]
    assert gap == pytest.approx(27 * rounds * tiles * 1e-5, rel=1e-6)
    more = replace(OURS, latent_split=OURS.latent_split + 1e-6)
    gap = times(LATENT, text, context, batch, more)[1] - times(LATENT, text, context, batch)[1]
    assert gap == pytest.approx(27 * splits * 1e-6, rel=1e-6)


def test_latents_of_several_sequences_are_attended_to_as_they_are() -> None:
    one, two = (
        attention_group(LATENT, Workload(8192, 16, batch=batch), work_of(LATENT).attention[0])
        for batch in (1, 2)
    )
    assert one.flops_per_pair == 2 * 16 * (128 + 64 + 128)
    assert (two.flops_per_pair, two.staged) == (2 * 16 * (512 + 512 + 64), 0.0)


def test_chunks_of_recurrent_models_are_launched_one_by_one() -> None:
    """48 delta nets of 78 operations and 9 for each 64 tokens, in each of 16 chunks: none is
    captured, since the first finds no state."""
    text, slow = "w4a16-k4v4-g64+pc1024", replace(OURS, recurrent_call=1e-3)
    slower = replace(OURS, recurrent_call=2e-3)
    gap = times(HYBRID, text, 16_384, 1, slower)[0] - times(HYBRID, text, 16_384, 1, slow)[0]
    assert gap == pytest.approx(16 * 48 * (78 + 9 * 16) * 1e-3, rel=1e-6)
    # not in pieces: the host's price of a layer between graphs is none of it
    pieces = replace(slow, launch_piece=OURS.launch_piece + 1e-2)
    assert times(HYBRID, text, 16_384, 1, pieces) == times(HYBRID, text, 16_384, 1, slow)
    assert times(LLAMA, text, 16_384, 1, pieces)[0] > times(LLAMA, text, 16_384, 1, slow)[0] + 4


def test_kinds_of_recurrent_mixers_have_counts_of_their_own() -> None:
    def of(model: str) -> set[tuple[int, int]]:
        mixers = [m for m, _ in SHAPES[model].mixer_counts if isinstance(m, RecurrentState)]
        return {(recurrent_calls(m).step, recurrent_calls(m).chunk) for m in mixers}

    assert of("granite-4.0-h-micro") == {(36, 82)}
    assert of("lfm2-2.6b") == {(7, 7)}
    assert of("qwen3.5-27b") == {(62, 78)}
    assert of("kimi-linear") == {(68, 469)}
    # a step launches them, beside two norms, two adds, and the gated FFN's four
    work = work_of(SHAPES["lfm2-2.6b"])
    mixers = SHAPES["lfm2-2.6b"].mixer_counts
    recurrent = sum(count for m, count in mixers if isinstance(m, RecurrentState))
    attention = sum(count for m, count in mixers if isinstance(m, Attention))
    assert work.fused_launches - 7 * recurrent - (30 * (2 + 2 + 4)) == attention * (7 + 2 + 10)


@pytest.mark.parametrize(
    ("window", "local", "context", "seen"),
    [
        (1024, None, 8192, (1024 * 7168 + 1024 * 512) / 8192),
        (None, 8192, 20_000, (2 * 8192 * 4096 + 3616 * 1808) / 20_000),
        (4096, None, 2048, 1024),
        (None, None, 4096, 2048),
    ],
)
def test_tokens_that_a_query_sees(
    window: int | None, local: int | None, context: int, seen: float
) -> None:
    (attention,) = {mixer for layer in LLAMA.layers for mixer in layer.mixers}
    assert isinstance(attention, Attention)
    slides = replace(attention, window=window, local_chunk=local)
    spec = replace(LLAMA, layers=tuple(replace(layer, mixers=(slides,)) for layer in LLAMA.layers))
    (kind,) = work_of(spec).attention
    found = attention_group(spec, Workload(context, 16), kind).seen
    assert found == pytest.approx(seen, rel=1e-3)


def test_the_softmax_of_narrow_heads_weighs_more() -> None:
    """131,072 tokens in chunks of 4,096: n^2 / 2 scores of each head, at two rates."""
    more = replace(OURS, softmax=OURS.softmax + 100)
    text, n, chunk = "w16a16-k16v16+pc4096", 131_072, 4096
    gap = times(LLAMA, text, n, 1, more)[0] - times(LLAMA, text, n)[0]
    own = n * chunk / 2
    past = n * n / 2 - own
    layers = 32 - 1  # the last runs for the row that is read
    scores = layers * 32 * 100 * (own / OURS.attention + past / OURS.attention_packed)
    assert gap == pytest.approx(scores / 989.4e12, rel=0.02)


def test_routers_by_hand() -> None:
    deepseek = load_model("deepseek-ai/DeepSeek-V3", offline=True)
    qwen = load_model("Qwen/Qwen3-30B-A3B", offline=True)
    assert work_of(deepseek).packed_routed_launches == 58 * (8 + 20)
    assert work_of(qwen).packed_routed_launches == 48 * (8 + 7)
    assert work_of(SHAPES["llama-4-scout"]).packed_routed_launches == 8 * (8 + 22)
