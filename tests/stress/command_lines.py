"""Hundreds of command lines, each in a process of its own: how each ends, against the contract.

    python tests/stress/command_lines.py [--light | --full] [--fast] [--python VENV/bin/python]

Each runs with `--json` and without, on the full install and on the light one (the extras' libraries
refuse to be imported; with `--python` of a light virtual environment, really). Checked: no
traceback, the exit code that is right for it, one error and one hint, one JSON document each time,
valid under its JSON Schema in docs/schemas.
What is wrong is printed with its command; the exit code is then 1.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.command_contract import Line, Outcome, contract  # noqa: E402
from tests.support.command_lines import HEAVY, lines, write_things  # noqa: E402

_BLOCKER = """import sys
class _Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.split(".")[0])
sys.meta_path.insert(0, _Absent())
"""
SECONDS = 300


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--light", action="store_true", help="only without the extras' libraries")
    parser.add_argument("--full", action="store_true", help="only with them")
    parser.add_argument("--fast", action="store_true", help="leave out what measures")
    parser.add_argument("--python", default=sys.executable, help="of the install to be tried")
    arguments = parser.parse_args()
    counts: Counter[int] = Counter()
    faults = 0
    for is_light in (True, False):
        if arguments.full if is_light else arguments.light:
            continue
        with tempfile.TemporaryDirectory() as place:
            cases = _cases(Path(place), is_light, arguments.fast)
            with ThreadPoolExecutor(2) as pool:
                run = partial(_run, is_light, Path(place), arguments.python)
                for line, as_json, found in pool.map(run, cases):
                    counts[found.code] += 1
                    wrong = contract(line, found, as_json=as_json, is_light=is_light)
                    faults += bool(wrong)
                    if wrong:
                        words = shlex.join([*line.arguments, *["--json"] * as_json])
                        print(f"{'light' if is_light else 'full'}: {words!r}: {'; '.join(wrong)}")
    codes = ", ".join(f"{n} with {code}" for code, n in sorted(counts.items()))
    print(f"{counts.total()} command lines ended, {codes}; {faults} not as they should")
    return 1 if faults else 0


def _cases(place: Path, is_light: bool, fast: bool) -> list[tuple[Line, bool]]:
    (place / "block").mkdir()
    if is_light:
        (place / "block" / "sitecustomize.py").write_text(_BLOCKER.format(names=set(HEAVY)))
    found = lines(write_things(place))
    measuring = [] if is_light or fast else [line for line in found if line.slow]
    quick = [line for line in found if is_light or not line.slow]
    return [(line, as_json) for line in quick for as_json in (False, True)] + [
        (line, True) for line in measuring
    ]


def _run(
    is_light: bool, place: Path, python: str, case: tuple[Line, bool]
) -> tuple[Line, bool, Outcome]:
    line, as_json = case
    before = [str(place / "block")]
    if python == sys.executable:
        before.append(os.environ.get("PYTHONPATH", ""))
    environment = {
        **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        "PYTHONPATH": os.pathsep.join(before),
        "HF_HUB_OFFLINE": "1",
        "KVPARETO_HOME": str(place / f"home-{as_json}"),
    }
    command = [python, "-m", "kvpareto", *line.arguments, *["--json"] * as_json]
    done = subprocess.run(
        [os.fsencode(word) for word in command],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    return line, as_json, Outcome(done.returncode, out, err)


if __name__ == "__main__":
    sys.exit(main())
