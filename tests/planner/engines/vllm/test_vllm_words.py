"""What is asked of vLLM in words: targets, lengths, users; what is refused, in one line."""

import json
import shlex

import pytest

from kvpareto import api
from kvpareto.cli import run
from kvpareto.planner.errors import BadInput, NothingFits
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.planner.placement import Machine
from kvpareto.planner.search.request import MOST_USERS
from kvpareto.planner.workload import Workload, parse_lengths
from tests.planner.engines.vllm.vllm_plan import QWEN8, VLLM, plan


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("w4a16-k16v16", "no weights in w4a16"),
        ("w16a16-k8v8", "no cache of"),
        ("w16a16-kfp8v16", "no cache of"),
        ("wQ4_K_M-k16v16", "does not run Q4_K_M"),
        ("w16a16-k16v16+pcdyn", "no cache of"),
    ],
)
def test_configurations_of_other_engines(config: str, says: str) -> None:
    spec = load_model(QWEN8, offline=True)
    machine = Machine((find_gpu("H200"),), (10**11,))
    with pytest.raises(BadInput, match=says):
        VLLM.place(spec, Configuration.parse(config), Workload(4096), machine)


def test_targets_are_held_or_refused_with_the_fastest() -> None:
    found = plan(QWEN8, gpu="H100", users=16, context="16k", tpot="20ms")
    assert found["recommended"]["tpot_s"] <= 0.02
    assert found["tpot_target_s"] == 0.02
    with pytest.raises(NothingFits, match="as fast as asked") as caught:
        plan(QWEN8, gpu="L4", users=16, context="16k", ttft="10ms", accept_risk=True)
    assert caught.value.details["fastest_ttft_s"] > 0.01


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("16k", ((16384, 1.0),)),
        ("10,240", ((10240, 1.0),)),
        ("2k,16k:0.9,0.1", ((2048, 0.9), (16384, 0.1))),
        ("2k, 16k:90%,10%", ((2048, 0.9), (16384, 0.1))),
    ],
)
def test_lengths(text: str, lengths: tuple[tuple[int, float], ...]) -> None:
    assert parse_lengths(text) == lengths


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--users", "0"], "users out of range"),
        (["--users", "-3"], "users"),
        (["--users", "4", "--batch", "4"], "--users beside --batch"),
        (["--users", "65537"], "more than vllm is planned for"),
        (["--context", "2k,16k:0.9,0.2"], "sum to 1.1"),
        (["--context", "2k,16k:1"], "2 lengths and 1 parts"),
        (["--context", "2k,2k:0.5,0.5"], "named twice"),
        (["--parallel", "tp3"], "no multiple of 3"),
        (["--parallel", "zork"], "no way to share"),
        (["--parallel", "tp2,tp2"], "no way to share"),
        (["--parallel", "tp0"], "no way to share"),
        (["--ttft", "soon"], "not a time"),
        (["--tpot", "5"], "for tpot has no unit"),
        (["--tpot", "0"], "not a time"),
        (["--tpot", "0ms"], "not a time"),
        (["--ram", "64GB"], "--ram is a second budget"),
    ],
)
def test_bad_words_are_one_line_and_a_hint(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["plan", "-m", QWEN8, "--engine", "vllm", "--gpu", "2xH100", "--offline", *words]
    assert run(line) == 2
    error, hint = capsys.readouterr().err.strip().splitlines()
    assert says in error
    assert hint.startswith("hint: ")
    assert run([*line, "--json"]) == 2
    assert says in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--budget", "24GB", "--engine", "vllm"], "no GPU is named"),
        (["--budget", "24GB", "--context", "2k,16k:0.9,0.1"], "plans for one length"),
        (["--budget", "24GB", "--parallel", "tp2"], "--parallel is for engines"),
        (["--budget", "24GB", "--ttft", "2s"], "--ttft needs a GPU"),
    ],
)
def test_words_that_need_another_engine_or_a_gpu(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "-m", QWEN8, "--offline", *words]) == 2
    assert says in capsys.readouterr().err


def test_more_users_than_a_server_takes_are_simulated_for_no_hint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither where engines are compared nor where another one has no room."""
    simulated: list[int] = []
    monkeypatch.setattr(
        "kvpareto.planner.engines.vllm.speed.schedule", lambda users, *_: simulated.append(users)
    )
    for engine in ("any", "kvpareto"):
        with pytest.raises(NothingFits, match="nothing fits"):
            api.plan(QWEN8, gpu="H100", users=MOST_USERS + 1, engine=engine, offline=True)
    assert not simulated


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize(
    ("words", "dtype"),
    [
        ({"gpu": "H100", "dtype": "float16"}, "float16"),
        ({"gpu": "H100", "dtype": "bfloat16"}, ""),
        ({"gpu": "H100"}, ""),
        ({"gpu": "T4"}, "float16"),
    ],
    ids=lambda words: " ".join(words.values()) if isinstance(words, dict) else words,
)
def test_a_dtype_that_is_not_the_checkpoints_is_typed(
    engine: str, words: dict[str, str], dtype: str
) -> None:
    found = api.plan("Qwen/Qwen3-4B", engine=engine, context="2k", offline=True, **words)
    served = found["recommended"]["serving"]
    assert served is not None
    line = shlex.split(served["command"])
    assert (line[line.index("--dtype") + 1] if "--dtype" in line else "") == dtype


def test_models_that_overflow_in_float16_are_refused_there() -> None:
    for words in ({"gpu": "T4"}, {"gpu": "H100", "dtype": "float16"}):
        with pytest.raises(BadInput, match="does not run gemma3 in float16"):
            api.plan("google/gemma-3-4b-it", engine="vllm", context="2k", offline=True, **words)
