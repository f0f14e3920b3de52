"""What our engine's roofline counts that transformers' does not: experts, chunks, wide windows."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.layers.layer_cases import SETS, cases
from kvpareto.calibration.fit.hardware.engine_runs import shipped_runs
from kvpareto.calibration.fit.hardware.latency import described
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.latency.card import Card
from kvpareto.planner.latency.efficiency import Coefficients, shipped
from kvpareto.planner.latency.job import ConfigurationAxes, job_of
from kvpareto.planner.latency.roofline import seconds
from kvpareto.planner.latency.roofline_products import few_rows, step
from kvpareto.planner.latency.work import work_of
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.spec import Attention, Layer, ModelSpec
from kvpareto.planner.workload import Workload

H200 = find_gpu("H200")
OURS = shipped(KVPARETO)
LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"
LLAMA = load_model(LLAMA_8B, offline=True)
MOE = load_model("Qwen/Qwen3-30B-A3B", offline=True)
PHI = load_model("microsoft/Phi-3.5-mini-instruct", offline=True)


def times(
    spec: ModelSpec, config: str, context: int, coefficients: Coefficients = OURS
) -> tuple[float, float]:
    """TTFT and TPOT, seconds."""
    parsed, workload = Configuration.parse(config), Workload(context, 16)
    size = kv_bytes(spec, parsed, workload, KVPARETO).total
    found = seconds(job_of(spec, workload, ConfigurationAxes.of(parsed, size)), H200, coefficients)
    return float(found.ttft.item()), float(found.tpot.item())


def test_bytes_of_a_llama_layer_by_hand() -> None:
    # A norm 4, norm and add 8, an add 6; a Q or K element 4; the mixed heads 4; an FFN element 8.
    a_layer = (4 + 8 + 6) * 4096 + 4 * (32 + 8) * 128 + 4 * 4096 + 8 * 14_336
    assert work_of(LLAMA).fused_moved_bytes == 32 * a_layer


def test_bytes_and_launches_of_routed_experts_by_hand() -> None:
    work = work_of(MOE)
    attention = (4 + 8 + 6) * 2048 + (4 + 4) * (32 + 4) * 128 + 4 * 32 * 128
    experts = 8 * (14 * 2048 + 12 * 768)
    assert work.fused_moved_bytes == 48 * (attention + experts)
    assert work.routed_launches == 48 * 30
    gpt_oss = next(row.spec for row in shipped_runs() if row.model == "gpt-oss-20b-16bit")
    assert work_of(gpt_oss).routed_launches == 24 * (23 + 3 + 4 + 5)


def test_projections_that_a_checkpoint_joins_are_launched_once() -> None:
    # Phi-3 has one matrix for q, k, v and one for gate, up: nothing is left for packing to join.
    phi, llama = work_of(PHI), work_of(LLAMA)
    assert phi.joined_launches == 0
    assert llama.joined_launches == 32 * 3
    apart = replace(PHI, tensors=LLAMA.tensors)  # seven products a layer
    assert work_of(apart).fused_launches - phi.fused_launches == 32 * 3


@pytest.mark.parametrize(
    ("name", "which", "weights"),
    [("grouped", 0, 16), ("experts_16", 1, 16), ("grouped_packed", 0, 8)],
    ids=["prefill", "step", "packed"],
)
def test_rates_of_experts_are_theirs_alone(name: str, which: int, weights: int) -> None:
    slow = replace(OURS, **{name: getattr(OURS, name) / 2})
    config = f"w{weights}a16-k16v16"
    assert times(MOE, config, 16_384, slow)[which] > 1.1 * times(MOE, config, 16_384)[which]
    # Dense models, and experts that are stored otherwise, do not know of them.
    for spec, other in ((LLAMA, config), (MOE, f"w{24 - weights}a16-k16v16")):
        assert times(spec, other, 16_384, slow) == times(spec, other, 16_384)


def test_a_window_too_wide_to_stage_costs_more_where_the_cache_is_packed() -> None:
    # Beyond 4,096 the general kernel takes the window, and unpacks tile by tile. Phi-3.5's of
    # 262,144 is none: no context outgrows it.
    wide = replace(LLAMA, layers=(_windowed(LLAMA.layers[0], 8192),) * len(LLAMA.layers))
    plain, packed = (times(wide, f"w16a16-{kv}", 24_576)[0] for kv in ("k16v16", "k8v8"))
    assert packed > 2 * plain
    for spec in (PHI, LLAMA):
        plain, packed = (times(spec, f"w16a16-{kv}", 24_576)[0] for kv in ("k16v16", "k8v8"))
        assert packed == pytest.approx(plain, rel=0.05)


def _windowed(layer: Layer, window: int) -> Layer:
    (mixer,) = layer.mixers
    assert isinstance(mixer, Attention)
    return replace(layer, mixers=(replace(mixer, window=window),))


def test_keys_with_pairs_by_channel_are_read_more_slowly() -> None:
    of = {kv: times(LLAMA, f"w4a16-{kv}", 131_072)[1] for kv in ("k4v4", "k4v4-kc128")}
    faster = replace(OURS, packed_channels=1.0)
    by_channel = times(LLAMA, "w4a16-k4v4-kc128", 131_072, faster)[1]
    assert of["k4v4-kc128"] - by_channel > 0.3e-3
    assert times(LLAMA, "w4a16-k4v4", 131_072, faster)[1] == of["k4v4"]


def test_eight_whole_chunks_repay_their_capture_and_fewer_do_not() -> None:
    # 4,096 tokens are eight chunks of 512, 4,000 are seven and a rest: all of them eager.
    whole, rest = (times(LLAMA, "w16a16-k16v16+pc512", context)[0] for context in (4096, 4000))
    assert rest > 1.3 * whole


def test_a_rest_of_a_chunk_is_a_pass_of_its_own() -> None:
    slow = replace(OURS, launch_prefill=1e-3)  # 15 ms a layer that is not captured
    eager = work_of(LLAMA).host_launches * 1e-3
    whole, more = (times(LLAMA, "w16a16-k16v16+pc512", c, slow)[0] for c in (16_384, 16_400))
    assert more - whole == pytest.approx(eager, rel=0.1)


def test_one_pair_a_tensor_is_captured_and_takes_many_small_kernels() -> None:
    per_token, per_tensor = (times(LLAMA, f"w4a16-k8v8{kind}", 32_768)[1] for kind in ("", "-pt"))
    assert per_tensor - per_token == pytest.approx(32 * 80 * OURS.card_launch, rel=0.05)


def test_the_experts_models_are_right_within_a_fifth() -> None:
    layers = {case.model for which in SETS for case in cases(which)}
    rows = [row for row in shipped_runs() if row.model not in layers and work_of(row.spec).experts]
    granite = [row for row in rows if row.model == "granite-4.0-tiny-like"]
    packed = [row for row in rows if row.config.weight_bits < 16]
    assert (len(rows), len(granite), len(packed)) == (41, 12, 23)
    # Prompts of the others were run one expert at a time.
    assert sum(row.ttft_s is not None for row in packed) == 3
    errors = []
    for row in rows:
        found = seconds(described(row), H200, OURS)  # with the kernels of its day
        assert row.tpot_s is not None
        assert np.log(found.tpot.item() / row.tpot_s) == pytest.approx(0, abs=0.2)
        if row.ttft_s is None:
            continue
        # granite-tiny's experts are 512 wide, and its short prompts wait for the host
        errors.append(np.log(found.ttft.item() / row.ttft_s))
        assert errors[-1] == pytest.approx(0, abs=0.45 if row in granite else 0.2)
    assert np.median(np.abs(errors)) <= 0.12


def test_short_chunks_read_packed_experts_again_and_wait_for_no_host() -> None:
    """128 chunks of 256 tokens read 15 GB of experts 128 times, 4 ms each; a host that launched
    48 x 128 experts one by one would take 3 s a chunk."""
    moe = load_model("Qwen/Qwen3-30B-A3B-Instruct-2507", offline=True)
    short, long = (times(moe, f"w4a16-k16v16+pc{chunk}", 32_768)[0] for chunk in (256, 4096))
    assert long < short < 6 * long
    assert short < 10


@pytest.mark.parametrize(
    ("config", "context", "taken"),
    [
        ("w4a16-k4v4-g64+pc8192", 131_000, True),
        ("w4a16-k2v4-g64+pc512", 8192, True),  # 3 blocks of queries for each of 32 heads
        ("w4a16-k4v4-g64+pc256", 8192, False),  # 2 blocks: too few
        ("w4a16-k4v4-g64+pc1024", 131_000, False),  # the room of such a chunk holds no head
        ("w4a16-k8v4-g64+pc8192", 131_000, False),
        ("w4a16-k4v4-g64+res128+pc8192", 131_000, False),
        ("w4a16-k4v4-kc-g64+pc8192", 131_000, False),
    ],
)
def test_which_chunks_hopper_attends_to_in_8_bits(config: str, context: int, taken: bool) -> None:
    without = replace(OURS, attention_eight=0.0)
    now, before = times(LLAMA, config, context)[0], times(LLAMA, config, context, without)[0]
    assert (now < before) == taken
    assert (now == before) != taken


def test_attention_in_8_bits_by_hand() -> None:
    # 131,072 tokens in chunks of 8,192: 4 * 128 * 32 operations for each of n^2 / 2 pairs, 32-fold;
    # 43 blocks of queries, 12 heads a launch: 516 blocks in 4 rounds of 132. Of the last layer
    # nobody reads more than a row.
    only = replace(OURS, attention_eight=0.5)
    twice = replace(OURS, attention_eight=1.0)
    slow, fast = (times(LLAMA, "w4a16-k4v4-g64+pc8192", 131_072, c)[0] for c in (only, twice))
    operations = 31 * 4 * 128 * 32 * 131_072**2 / 2
    assert slow - fast == pytest.approx(operations / 1978.9e12 * 528 / 516, rel=1e-3)


def test_other_gpus_and_runs_from_before_have_no_attention_in_8_bits() -> None:
    config, workload = Configuration.parse("w4a16-k4v4-g64+pc8192"), Workload(65_536, 16)
    size = kv_bytes(LLAMA, config, workload, KVPARETO).total
    job = job_of(LLAMA, workload, ConfigurationAxes.of(config, size))
    now = float(seconds(job, H200, OURS).ttft.item())
    before = float(seconds(replace(job, eight_bit_attention=0.0), H200, OURS).ttft.item())
    elsewhere = float(seconds(job, replace(H200, name="NVIDIA B200"), OURS).ttft.item())
    assert now < 0.85 * before
    assert elsewhere == before
    assert {row.has("eight_bit_attention") for row in shipped_runs()} == {True, False}


@pytest.mark.parametrize(
    ("weights", "batch", "rate", "held"),
    [
        (4, 1, "streamed", 0), (4, 2, "streamed", 0), (4, 17, "wide", 32), (4, 33, "wide", 64),
        (8, 2, "weights_8", 6), (8, 3, "tiles_8", 16), (8, 32, "tiles_8", 32), (8, 64, "tiles", 64),
    ],
)  # fmt: skip
def test_packed_products_by_rows_by_hand(weights: int, batch: int, rate: str, held: int) -> None:
    config = Configuration(weight_bits=weights)
    job = job_of(LLAMA, Workload(4000, 64, batch=batch), ConfigurationAxes.of(config, 1))
    card, linear = Card(H200, OURS), 32 * (4096 * (6144 + 4096) + 3 * 4096 * 14_336)
    stored = float(np.asarray(job.weight).item())
    read = linear * stored / (getattr(OURS, rate) * OURS.stream * H200.bandwidth)
    dense = OURS.wide_rows if rate == "wide" else OURS.few_rows
    arithmetic = 2 * linear * held / (dense * H200.fp16_flops)
    slack = work_of(LLAMA).wide_slack if rate == "wide" else 1
    # Every block of stream.cu makes its rows whole, all inputs of a product.
    made = batch * 32 * (3 * 4096 + 14_336) * OURS.row_input if rate == "streamed" else 0
    found = float(np.asarray(few_rows(job, float(batch), card)).item())
    assert found == pytest.approx(slack * (read + arithmetic) + made, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "whole", "batch", "rate", "held"),
    [("NVIDIA B200", 1.0, 33, "tiles", 64), ("NVIDIA B200", 1.0, 1, "streamed", 0),
     ("NVIDIA H200", 0.0, 33, "tiles", 64), ("NVIDIA H200", 0.0, 2, "weights_4", 6)],
)  # fmt: skip
def test_warpgroups_are_hoppers_and_runs_from_before_had_none(
    name: str, whole: float, batch: int, rate: str, held: int
) -> None:
    axes = ConfigurationAxes.of(Configuration(weight_bits=4), 1)
    job = replace(job_of(LLAMA, Workload(4000, 64, batch=batch), axes), whole_number_products=whole)
    card = Card(replace(H200, name=name), OURS)
    read = np.asarray(job.linear * job.weight / (getattr(OURS, rate) * card.stream)).item()
    made = job.row_inputs * batch * OURS.row_input if rate == "streamed" else 0.0
    found = float(np.asarray(few_rows(job, float(batch), card)).item())
    assert found == pytest.approx(read + 2 * job.linear * held / card.few_rows + made, rel=1e-6)


def test_steps_of_4_bits_begin_early() -> None:
    def step_s(bits: int, whole: float) -> float:
        axes = ConfigurationAxes.of(Configuration(weight_bits=bits), 1)
        job = replace(
            job_of(LLAMA, Workload(4000, 64, batch=16), axes),
            whole_number_products=whole,
            ready_rows=0.0,
        )
        return float(seconds(job, H200, OURS).tpot.item())

    saved = 32 * (1 - OURS.early) * OURS.card_layer
    assert step_s(4, 0.0) - step_s(4, 1.0) == pytest.approx(saved)
    assert step_s(8, 0.0) == pytest.approx(step_s(8, 1.0))


def test_more_rows_than_the_kernels_take_are_dequantized() -> None:
    def products(bits: int, batch: int) -> float:
        config = Configuration(weight_bits=bits)
        job = job_of(LLAMA, Workload(4000, 64, batch=batch), ConfigurationAxes.of(config, 1))
        return float(np.asarray(step(job, Card(H200, OURS))).item())

    assert products(4, 65) > products(16, 65)  # a copy is written, and read by the same product
    assert products(4, 16) < products(4, 32) < products(4, 64)
    assert products(4, 1) < products(16, 1) / 2.5


def test_decode_steps_of_batches_are_right_within_a_twentieth() -> None:
    shapes = {(1, 131_000), (16, 16_000), (64, 4_000), (8, 65_000)}
    rows = {
        (row.workload.batch, row.workload.context): row
        for row in shipped_runs()
        if row.model == LLAMA_8B and str(row.config) == "w4a16-k4v4-g64" and row.has("ready_rows")
    }
    for shape in shapes:
        found = seconds(described(rows[shape]), H200, OURS).tpot.item()
        assert found == pytest.approx(rows[shape].tpot_s, rel=0.05), shape


def test_granites_gate_is_one_kernel_where_rows_are_few() -> None:
    granite = next(r.spec for r in shipped_runs() if r.model == "granite-4.0-micro-like")
    work = work_of(granite)
    assert work.plain_gates == 40
    assert work_of(LLAMA).plain_gates == 0

    def step_s(batch: int, overlaps: float) -> float:
        workload = Workload(4000, 64, batch=batch)
        job = job_of(granite, workload, ConfigurationAxes.of(Configuration(), 1))
        found = seconds(replace(job, overlapping_launches=overlaps), H200, OURS)
        return float(found.tpot.item())

    # 16-bit weights: no packed product overlaps, so that the gates are all that differs
    assert step_s(1, 0.0) - step_s(1, 1.0) == pytest.approx(40 * OURS.card_launch)
    assert step_s(65, 0.0) == pytest.approx(step_s(65, 1.0))
