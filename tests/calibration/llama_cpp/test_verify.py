"""`verify --engine llama.cpp`: receipts from logs, from a faked server, and from llama.cpp."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kvpareto import profiles
from kvpareto.calibration.llama_cpp.breakdown import MIB, read_breakdown
from kvpareto.calibration.llama_cpp.start import CHILD
from kvpareto.cli import run
from kvpareto.planner.user_data import ENVIRONMENT

LOG = """\
0.00.019.001 I load_tensors:   CPU_Mapped model buffer size =     5.49 MiB
0.00.019.002 I load_tensors:        CUDA0 model buffer size =     3.00 MiB
0.00.019.252 I llama_context:        CPU  output buffer size =     0.25 MiB
0.00.019.352 I llama_kv_cache:        CPU KV buffer size =     1.81 MiB
0.00.021.431 I llama_kv_cache: size =    1.81 MiB (  2048 cells,   4 layers,  1/1 seqs), \
K (q8_0):    1.06 MiB, V (q5_1):    0.75 MiB
0.00.021.500 I llama_memory_recurrent:        CPU RS buffer size =     0.05 MiB
0.00.022.586 I sched_reserve:        CPU compute buffer size =     7.52 MiB
0.01.519.190 D ~llama_context:        CPU compute buffer size is   7.5176 MiB, matches expectation
"""

SERVER = '''#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
words = sys.argv[1:]
said = dict(zip(words[::2], words[1::2]))
print("""{log}""", file=sys.stderr, flush=True)

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({{"status": "ok"}})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        count = asked["n_predict"]
        self.answer({{"content": "x", "timings": {{
            "prompt_ms": 2.0 * len(asked["prompt"]), "predicted_n": count,
            "predicted_per_token_ms": 4.0,
        }}}})

    def answer(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", int(said["--port"])), Handler).serve_forever()
'''


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "home"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model of random weights as a GGUF file."""
    pytest.importorskip("gguf", reason="gguf writes the model's file")
    from kvpareto.calibration.llama_cpp.random_models import write_model

    path = tmp_path / "small.gguf"
    write_model(json.loads(profiles.read("llama_cpp/shapes.json"))["llama-gqa"], path)
    return path


def test_a_log_is_read_as_it_is_printed() -> None:
    found = read_breakdown(LOG)
    assert found.model == {"CPU_Mapped": round(5.49 * MIB), "CUDA0": 3 * MIB}
    assert (found.keys, found.values, found.states) == (
        round(1.06 * MIB),
        round(0.75 * MIB),
        round(0.05 * MIB),
    )
    assert found.compute == {"CPU": round(7.5176 * MIB)}  # the later line has more digits
    assert found.output == MIB // 4
    assert found.cells == [2048]
    assert read_breakdown("nothing\n").total == 0


def test_repacked_weights_are_counted_once() -> None:
    """A mapped file holds them too; without a mapped file, what is repacked lies nowhere else."""
    line = "0.00.019.003 I load_tensors:   CPU_REPACK model buffer size =     2.00 MiB\n"
    mapped = read_breakdown(line + LOG)
    assert mapped.repacked == 2 * MIB
    assert mapped.total == read_breakdown(LOG).total
    loaded = read_breakdown(line + LOG.replace("CPU_Mapped", "CPU"))
    assert loaded.repacked == 0
    assert loaded.total == read_breakdown(LOG).total + 2 * MIB


def test_a_server_that_sizes_first_is_counted_once() -> None:
    """llama-server prints a model and a context that it only sizes (--fit), then the real ones."""
    begin = "0.00.1 I llama_model_loader: loaded meta data with 20 key-value pairs and 48 tensors\n"
    context = "0.00.2 I llama_context: constructing llama_context\n"
    model, rest = LOG.split("0.00.019.252", 1)
    once = begin + model + context + "0.00.019.252" + rest
    assert read_breakdown(once + once).row() == read_breakdown(LOG).row()


def test_a_receipt_from_the_real_engine(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("xllamacpp", reason="xllamacpp runs llama.cpp")
    words = ["verify", "--engine", "llama.cpp", "-m", str(model), "--budget", "400MB"]
    words += ["--config", "wF16-kq8_0vq5_1+pc64", "--context", "200", "--output", "4"]
    code = run([*words, "--quick", "--json"])
    document = json.loads(capsys.readouterr().out)
    terms = {term["name"]: term for term in document["terms"]}
    assert code == 0, document
    assert document["verified"]
    assert [terms[n]["side"] for n in ("weights", "kv", "activation", "total")] == ["inside"] * 4
    assert abs(terms["kv"]["difference"]) <= 2 * MIB // 200
    assert abs(terms["activation"]["difference"]) <= 0.005 * MIB + 100
    assert terms["ttft"]["measured"] > 0
    assert terms["tpot"]["side"] is None
    assert document["breakdown"]["cells"] == [256]
    assert document["rows_written"] == 1


def test_more_than_the_budget_is_not_verified(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("xllamacpp", reason="xllamacpp runs llama.cpp")
    words = ["verify", "--engine", "llama.cpp", "-m", str(model), "--budget", "20MB"]
    words += ["--config", "wF16-kf16vf16+pc64", "--context", "200", "--output", "4"]
    code = run([*words, "--quick", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 1
    assert not document["verified"]
    assert "more than the budget" in document["wrong"][0]


def test_a_binary_is_started_asked_and_ended(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = tmp_path / "llama-server"
    binary.write_text(SERVER.format(python=sys.executable, log=LOG))
    binary.chmod(0o755)
    words = ["verify", "--engine", "llama.cpp", "-m", str(model), "--budget", "400MB"]
    words += ["--config", "wF16-kq8_0vq5_1+pc64", "--context", "100", "--output", "4"]
    code = run([*words, "--binary", str(binary), "--json"])
    document = json.loads(capsys.readouterr().out)
    terms = {term["name"]: term for term in document["terms"]}
    assert code == 1  # the log is another model's
    assert terms["ttft"]["measured"] == pytest.approx(0.2)
    assert terms["tpot"]["measured"] == pytest.approx(0.004)
    assert terms["kv"]["measured"] == round(1.06 * MIB) + round(0.75 * MIB) + round(0.05 * MIB)
    home = tmp_path / "home" / "llama_cpp" / "runs.jsonl"
    assert json.loads(home.read_text())["engine"] == "llama.cpp"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-m", "Qwen/Qwen2.5-7B-Instruct", "--budget", "8GB"], "is no GGUF file"),
        (["--budget", "8GB"], "no plan, and no model"),
        (["-m", "x.gguf", "--budget", "8GB", "--tasks", "all"], "--tasks is not for"),
        (["-m", "x.gguf", "--budget", "8GB", "--random-weights"], "--random-weights is not for"),
    ],
)
def test_what_cannot_be_run_is_said(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["verify", "--engine", "llama.cpp", *words, "--offline"])
    assert code == 2
    assert says in capsys.readouterr().err


def test_a_binary_that_is_none_is_said(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["verify", "--engine", "llama.cpp", "-m", str(model), "--budget", "400MB"]
    words += ["--config", "wF16-kf16vf16+pc64", "--context", "100", "--output", "4"]
    code = run([*words, "--binary", str(tmp_path / "nothing")])
    assert code == 2
    assert "cannot be started" in capsys.readouterr().err


def test_a_plan_for_a_gpu_needs_a_binary_that_has_one(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.json"
    words = ["plan", "--engine", "llama.cpp", "-m", str(model), "--gpu", "4090"]
    assert run([*words, "--accept-risk", "--context", "200", "--save", str(plan)]) == 0
    capsys.readouterr()
    assert run(["verify", "--plan", str(plan)]) == 3
    assert "--binary" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count a process's own memory")
def test_what_a_run_held_is_not_what_its_parent_holds() -> None:
    held = bytearray(b"x") * 600_000_000
    code = f"import runpy; print(runpy.run_path({str(CHILD)!r})['_peak_resident']())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1_000_000 < int(done.stdout) < len(held) // 2


def test_a_plan_of_a_model_on_the_hub_asks_for_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = ["plan", "--engine", "llama.cpp", "-m", "Qwen/Qwen3-8B", "--gpu", "3090", "--offline"]
    assert run([*plan, "--context", "8k", "--save", str(tmp_path / "plan.json")]) == 0
    assert run(["verify", "--plan", str(tmp_path / "plan.json"), "--offline"]) == 2
    said = capsys.readouterr().err
    assert "Qwen/Qwen3-8B is no GGUF file" in said
    assert "-m Qwen3-8B.gguf" in said
