"""Command lines of every kind, each with the exit codes that are right for it.

tests/cli/test_failure_contract.py runs them in one process; tests/stress/command_lines.py runs each
in a process of its own, with and without the libraries of the extras. command_contract.py says what
they share.
"""

import json
import os
from pathlib import Path
from typing import Any

from tests.support import data_files
from tests.support.command_contract import Line

HEAVY = (
    "torch", "transformers", "scipy", "sklearn", "safetensors", "accelerate", "threadpoolctl",
    "joblib", "triton",
)  # fmt: skip
"""What the light install lacks."""
STORIES = str(data_files.STORIES)
QWEN = "Qwen/Qwen3-8B"


def write_things(place: Path) -> dict[str, str]:
    """Files and folders that command lines name, by a short name."""

    def folder(name: str, **files: Any) -> str:
        path = place / name
        path.mkdir()
        for file, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (path / file.replace("__", ".")).write_text(text)
        return str(path)

    config = json.loads((Path(STORIES) / "config.json").read_text())
    things = {
        "lora": folder("lora", adapter_config__json={"base_model_name_or_path": QWEN}),
        "gguf": folder("gguf", a__gguf="GGUF", b__gguf="GGUF"),
        "pipeline": folder("pipeline", model_index__json={}),
        "original": folder("original", params__json={}),
        "empty": folder("empty"),
        "escape": folder("red\x1b[31m\x9b", config__json=config),
        "surrogate": folder(os.fsdecode(b"bad\xff"), config__json=config),
        "deep": folder("deep", config__json="[" * 200_000),
        "list": folder("list", config__json="[]"),
        "infinite": folder("inf", config__json='{"model_type": "llama", "hidden_size": Infinity}'),
        "models": folder("models"),
        "fifo": str(place / "fifo"),
        "link": str(place / "link"),
        "dangling": str(place / "dangling"),
        "loop": str(place / "loop"),
        "new": str(place / "new.json"),
        "missing": str(place / "nowhere" / "x.json"),
        "notjson": str(place / "notjson.json"),
        "deepplan": str(place / "deepplan.json"),
        "binary": str(place / "binary.json"),
    }  # fmt: skip
    folder("models/one", config__json=config)
    os.mkfifo(things["fifo"])
    (place / "target").write_text('{"schema": 1, "recommended": {}}')
    os.symlink(place / "target", things["link"])
    os.symlink(place / "gone", things["dangling"])
    os.symlink(things["loop"], things["loop"])
    (place / "notjson.json").write_text("hello")
    (place / "deepplan.json").write_text('{"a":' * 100_000)
    (place / "binary.json").write_bytes(bytes(range(256)))
    return things


def lines(things: dict[str, str]) -> list[Line]:
    """All command lines; `things` from `write_things`."""
    return [
        *_global(),
        *_plans(things),
        *_estimates(things),
        *_measuring(things),
        *_profiles(things),
    ]


def _global() -> list[Line]:
    helps = [
        (), ("plan",), ("estimate",), ("calibrate",), ("verify",), ("run",), ("chat",),
        ("profiles",),
        ("profiles", "list"), ("profiles", "show"), ("profiles", "export"), ("profiles", "import"),
    ]  # fmt: skip
    good = [Line((*command, flag), 0) for command in helps for flag in ("--help", "-h")]
    good += [Line((), 0), Line(("profiles",), 0), Line(("--version",), 0)]
    bad = [
        ("nonsense",), ("--nonsense",), ("plan", "--nonsense"), ("profiles", "nonsense"), ("",),
        ("-x",), ("plan", "--"), ("plan", "--budget"), ("profiles", "show"), ("profiles", "export"),
        ("profiles", "import"), ("estimate",), ("verify",), ("plan",), ("plan", "a", "b"),
        ("estimate", "-m"), ("calibrate", "--runs", "x"), ("calibrate", "--minutes", "soon"),
        ("verify", "--seed", "x"), ("verify", "--sweep", "many"), ("profiles", "list", "more"),
        ("report", "plan.json"), ("plan", "--json=yes"), ("\x1b[31m",), ("plan", "\udcff"),
    ]  # fmt: skip
    return good + [Line(arguments, 2) for arguments in bad]


def _plans(things: dict[str, str]) -> list[Line]:
    longest = ("plan", QWEN, "--budget", "12GB")
    plan = (*longest, "--context", "8k")
    good = [
        plan, ("plan", "-m", QWEN, "--budget", "12GB"), ("plan", QWEN + "/", "--budget", "12GB"),
        ("plan", f"https://huggingface.co/{QWEN}/tree/main", "--budget", "12GiB"),
        ("plan", f"https://huggingface.co/{QWEN}/blob/main/config.json", "--budget", "24g"),
        ("plan", f"hf.co/{QWEN}", "--gpu", "4090"), (*longest, "--max-context"),
        (*plan, "--save", things["new"]), (*plan, "--save", things["link"]),
        (*plan, "--save", things["dangling"]), (*plan, "--objective", "memory"),
        (*plan, "--engine", "transformers"), ("plan", STORIES, "--budget", "2GB"),
        (*plan, "--engine", "llama.cpp"), (*longest, "--engine", "ollama", "--max-context"),
        ("plan", QWEN, "--gpu", "4060", "--ram", "32GB", "--engine", "llama.cpp"),
        ("plan", f"{STORIES}/config.json", "--budget", "2GB"),
        ("plan", things["escape"], "--budget", "2GB"),
        ("plan", things["surrogate"], "--budget", "2GB"), (*plan, "--max-loss", "10%"),
    ]  # fmt: skip
    nothing = [
        ("plan", QWEN, "--budget", "1GB"), ("plan", QWEN, "--budget", "7MB"),
        ("plan", QWEN, "--budget", "8GB", "--context", "1m"),
        ("plan", QWEN, "--budget", "1GB", "--max-context"),
        ("plan", QWEN, "--budget", "12GB", "--batch", "100000"),
    ]  # fmt: skip
    sizes = ("12", "22.5", "24", "0", "-1GB", "", "GB", "nan", "infGB", "1e9", "12XB", "9999999TB")
    bad = [("plan", QWEN, "--budget", size) for size in sizes]
    models = (
        "", " ", "nobody/nothing", "a/b/c", "qwen3:8b", f"{QWEN}:Q4_K_M", f"{QWEN}@v2", "x.gguf",
        "https://", "http://[", "https://example.com/config.json", "https://huggingface.co/",
        f"https://huggingface.co/datasets/{QWEN}", f"https://huggingface.co/{QWEN}/tree/dev",
        f"https://huggingface.co/{QWEN}/blob/main/q4.gguf", "../nowhere", "~nobody/x",
        "a" * 5000, "\x1b[31m/x", "/dev/zero", "/dev/null", "/", ".", "\udcff/x",
    )  # fmt: skip
    names = (
        "lora", "gguf", "pipeline", "original", "empty", "deep", "list", "infinite", "models",
        "fifo", "loop", "notjson", "binary",
    )  # fmt: skip
    bad += [("plan", model, "--budget", "12GB") for model in models]
    bad += [("plan", things[name], "--budget", "12GB") for name in names]
    options = (
        ("--context", "8k", "--max-context"),
        ("--context", "0"), ("--context", "2147483649"), ("--context", "x"), ("--output", "-1"),
        ("--batch", "0"), ("--batch", "99999999999"), ("--max-loss", "200%"), ("--max-loss", "nan"),
        ("--objective", "fun"), ("--engine", "vroom"), ("--gpu", "nonsense"), ("--gpu", ""),
        ("-m", "another/model"),
        *(("--save", target) for target in (
            "", "/", ".", "/dev/null", "/dev/full", "/dev/stdout", "/proc/x", "\udcff/x",
            things["fifo"], things["loop"], things["missing"], things["empty"], things["binary"],
        )),
    )  # fmt: skip
    bad += [(*plan, *option) for option in options]
    return [Line(a, 0) for a in good] + [Line(a, 1) for a in nothing] + [Line(a, 2) for a in bad]


def _estimates(things: dict[str, str]) -> list[Line]:
    good = ("w4a16-k4v4-g64+pc256", "w16a16-k16v16", "w8a16-k8v4+protect{0,35}:k8v8")
    bad = (
        "", "w4", "w3a16-k4v4", "w4a16-k4v7", "w4a7-k4v4", "w4a16-k4v4+protect{99}:k8v8",
        "w4a16-k4v4+protect{0,36}:k8v8", "w4a16-k4v4+protect{}:k8v8", "w4a16-k4v4-g48",
        "w16a16-k16v16+rot", "w" + "9" * 3000, "w4a16-k4v4\x1b[31m", "w4a16-k4v4+res99999999999",
    )  # fmt: skip
    found = [Line(("estimate", QWEN, "--config", config), 0) for config in good]
    found += [Line(("estimate", QWEN, "--config", config), 2) for config in bad]
    found.append(Line(("estimate", things["lora"], "--config", good[0]), 2))
    found.append(Line(("estimate", QWEN, "--config", good[0], "--gpu", "H200"), 0))
    gguf = ("--config", "wQ4_K_M-kq8_0vq8_0", "--engine", "llama.cpp")
    found.append(Line(("estimate", QWEN, *gguf), 0))
    return found


def _measuring(things: dict[str, str]) -> list[Line]:
    """Commands of the extras. Most end before anything is measured; on the light install with 3,
    or 2 where the mistake is seen before the library is asked for."""
    small = ("-m", STORIES, "--device", "cpu")
    tiny = ("--context", "256", "--tasks", "arithmetic", "--items", "2")
    calibrate, verify = ("calibrate", *small), ("verify", *small, "--budget", "2GB")
    config = ("--config", "w16a16-k8v8")
    done = [
        Line((*calibrate, *tiny, "--runs", "2"), 0, 3, slow=True),
        Line((*verify, *config, *tiny, "--output", "8", "--quick"), 0, 3, slow=True),
    ]
    early = [
        (*calibrate, "--runs", "0"), (*calibrate, "--minutes", "nan"),
        (*calibrate, "--minutes", "inf"),
        (*calibrate, "--tolerance", "nan"), (*calibrate, "--items", "-1"),
        ("calibrate", "-m", STORIES, "--device", "tpu"), ("calibrate", "-m", "nobody/nothing"),
        ("calibrate", "-m", things["lora"]), ("calibrate", things["gguf"]),
        ("calibrate", "a", "-m", "b"), ("calibrate", "-m", "deepseek-ai/DeepSeek-V3.2"),
        ("verify", "--plan", "x.json", "--budget", "2GB"),
        ("verify", "-m", STORIES), ("verify", "--budget", "2GB"), (*verify, "--sweep", "2"),
        (*verify, *config, "--budget", "3GB"),
        (*verify, "--items", "0"), ("verify", "-m", STORIES, "--budget", "2GB", "--device", "tpu"),
        (*verify, "--save", "/dev/null"), (*verify, "--save", things["fifo"]),
        (*verify, "--engine", "vroom"),
    ]  # fmt: skip
    later = [
        (*calibrate, "--context", "2147483648"), (*calibrate, "--context", "x"),
        (*calibrate, "--tasks", "juggling"), (*calibrate, "--text", things["fifo"]),
        (*calibrate, "--text", "/dev/zero"), (*calibrate, "--haystack", things["binary"]),
        (*calibrate, "--haystack", things["fifo"]), (*verify[:-1], "12", *config),
        (*verify[:-1], "2GB,3", *config), (*verify, "--config", "w4"),
        (*verify, "--config", "w16a16-k8v8+protect{7}:k16v16"), (*verify, "--context", "x"),
        ("verify", "-m", "nobody/x", "--budget", "2GB"),
        ("verify", "--plan", things["missing"]), ("verify", "--plan", things["notjson"]),
        ("verify", "--plan", things["fifo"]), ("verify", "--plan", things["deepplan"]),
        ("verify", "--plan", "/dev/zero"), ("verify", "--plan", things["empty"]),
    ]  # fmt: skip
    large = [("calibrate", "-m", QWEN, "--device", "cpu"),
             ("verify", "-m", QWEN, "--budget", "12GB", "--device", "cpu")]  # fmt: skip
    return (
        done + [Line(a, 2) for a in early] + [Line(a, 2, 3) for a in later]
        + [Line(a, 3, 3) for a in large]
    )  # fmt: skip


def _profiles(things: dict[str, str]) -> list[Line]:
    good = [("profiles", "list"), ("profiles", "show", QWEN), ("profiles", "show", "H200"),
            ("profiles", "show", STORIES), ("profiles", "show", things["escape"])]  # fmt: skip
    bad = [
        ("profiles", "show", "H2O"), ("profiles", "show", ""),
        ("profiles", "show", "nobody/nothing"),
        ("profiles", "show", things["lora"]), ("profiles", "show", "\x1b[31m"),
        ("profiles", "export", "nothing", "-o", things["new"]),
        ("profiles", "export", "", "-o", "x"),
        ("profiles", "export", "x", "-o", "/dev/null"), ("profiles", "export", "x", "-o", ""),
        *(("profiles", "import", things[name]) for name in
          ("missing", "notjson", "binary", "deepplan", "fifo", "empty", "loop")),
        ("profiles", "import", "/dev/zero"), ("profiles", "import", ""),
    ]  # fmt: skip
    return [Line(a, 0) for a in good] + [Line(a, 2) for a in bad]
