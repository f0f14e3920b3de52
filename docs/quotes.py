"""What commands answer, as pages quote it: the page with a line `<!-- name -->` has the quote of
that name, a part of the answer under its command; `make docs` writes it (write_generated.py)."""

import contextlib
import io
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from unittest.mock import patch


@dataclass(frozen=True)
class Quote:
    """Of the answer to `line`, what begins with the line that starts with `first` and ends before
    the one that starts with `end`; empty: all of it."""

    line: str
    first: str = ""
    end: str = ""
    columns: int = 100

    def text(self) -> str:
        """The command and that part, as a block. Raises ValueError where the answer has none."""
        lines = answer(self.line, self.columns).splitlines()
        begin = next(i for i, text in enumerate(lines) if text.startswith(self.first))
        rest = lines[begin:]
        stop = next((i for i, text in enumerate(rest) if text.startswith(self.end)), None)
        if self.end and stop is None:
            raise ValueError(f"kvpareto {self.line}: no line starts with {self.end!r}")
        shown = "\n".join(rest[:stop] if self.end else rest).strip("\n")
        return f"```console\n$ kvpareto {self.line}\n{shown}\n```"


LLAMA = "estimate -m meta-llama/Llama-3.1-8B-Instruct --config w4a16-k4v4-g64+pc1024 --gpu H200"
QUOTES: Mapping[str, Quote] = {
    "offloaded": Quote(
        'plan -m openai/gpt-oss-20b --engine llama.cpp --gpu "RTX 3060 12GB" --ram 32GB '
        "--context 16k",
        end="budget ",
        columns=140,
    ),
    "kinds_kept": Quote(
        "estimate --model Qwen/Qwen2.5-7B-Instruct --config w16a16-k4v4-g64 --context 8k",
        first="  retention",
        end="  TTFT",
    ),
    "terms": Quote(LLAMA, first="  weights", end="  retention"),
    "times": Quote(LLAMA, first="  TTFT"),
    "model_facts": Quote("profiles show deepseek-ai/DeepSeek-V3", end="  source"),
}


def answer(line: str, columns: int) -> str:
    """What a command line, without its `kvpareto`, prints on a terminal of so many columns."""
    from kvpareto.cli import run

    terminal = {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": str(columns), "LINES": "99"}
    with (
        patch.dict(os.environ, terminal | {"KVPARETO_HOME": os.devnull}),
        contextlib.redirect_stdout(io.StringIO()) as printed,
    ):
        run(shlex.split(line))
    return "".join(one.rstrip() + "\n" for one in printed.getvalue().splitlines())
