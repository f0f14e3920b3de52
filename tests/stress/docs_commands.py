"""Every `kvpareto` command that README and the docs show, run as a person would, one after another.

    python tests/stress/docs_commands.py      # `kvpareto` of the PATH, from any folder

On the light install what measures ends with 3 and names the install command; everything else ends
with 0. The exit code is 1 where a command does not.
"""

import re
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MEASURE = ("calibrate", "verify", "run", "chat")
OWN = (
    "my-model", "./config.json", "receipt.json", ".gguf", "ollama:", "sha256:", "profiles/models",
    ".jsonl", "~/models", "a.json", "b.json", "plan-8b.json",
)  # fmt: skip
"""Files that only the reader has: their own models, and what a measurement would have saved."""
SERVE = ("ui",)
"""What runs until Ctrl-C."""


def commands() -> list[list[str]]:
    """Arguments of every command line in a console block, and of every example in the help."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```(?:console|text)?\n(.*?)```", page.read_text("utf-8"), re.S):
            joined = block.replace("\\\n", " ")
            found += re.findall(r"^\s*(?:\$ )?kvpareto (.+)$", joined, re.M)
    unique = dict.fromkeys(found)
    return [shlex.split(line, comments=True) for line in unique if "`" not in line]


def _serves(arguments: list[str]) -> int:
    """1 where the command does not print its address, or does not end at Ctrl-C with 130."""
    served = subprocess.Popen(
        ["kvpareto", *arguments, "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    address = served.stdout.readline() if served.stdout else ""
    served.send_signal(signal.SIGINT)
    _, said = served.communicate(timeout=20)
    if address.startswith("http://127.0.0.1:") and served.returncode == 130:
        return 0
    print(f"kvpareto {shlex.join(arguments)}: exit {served.returncode}\n{address}{said}")
    return 1


def main() -> int:
    faults = 0
    with tempfile.TemporaryDirectory() as place:
        for arguments in commands():
            if arguments[0] in SERVE:
                faults += _serves(arguments)
                continue
            done = subprocess.run(
                ["kvpareto", *arguments],
                cwd=place,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                check=False,
            )
            # What names the reader's own files (./my-model) ends with 2, as it should here.
            own = any(mark in word for mark in OWN for word in arguments)
            measures = arguments[0] in MEASURE
            right = {2, 3} if measures or own else {0}
            if done.returncode not in right or "Traceback" in done.stderr:
                faults += 1
                print(f"kvpareto {shlex.join(arguments)}: exit {done.returncode}\n{done.stderr}")
            elif done.returncode == 3 and "pip install" not in done.stderr:
                faults += 1
                print(f"kvpareto {shlex.join(arguments)}: no install command\n{done.stderr}")
        print(f"{len(commands())} commands of the docs ran, {faults} not as they should")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
