"""Broken inputs on purpose: mutated configs, files and arguments, and what came of one.

The same seed gives the same case. Used by tests/planner/models/test_fuzz.py on a sample and by
tests/stress/test_broken_configs.py on thousands.
"""

import copy
import io
import json
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kvpareto import profiles
from kvpareto.planner.engine import Engine
from kvpareto.planner.engines import all_engines
from kvpareto.planner.errors import KVParetoError
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.untrusted_json import parse_json_object
from kvpareto.planner.units import parse_bytes, parse_tokens
from kvpareto.planner.workload import Workload

MODELS = Path(profiles.__file__).parent / "models"
JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 127, 2**31, 2**63, -(2**63), 10**40, 10**400,
    0.5, -0.0, 1e308, float("nan"), float("inf"), -float("inf"),
    "", "4096", "bfloat16", "sliding_attention", "text \N{PILE OF POO} \x00 \ud800", "x" * 5000,
    "../../etc/passwd",
    [], {}, [0], [1, 2, 3], ["full_attention"], [None, {}, "a"], {"a": {"b": {"c": []}}},
    [[[[[[[[]]]]]]]], list(range(3000)),
)  # fmt: skip
SHALLOW, DEEP = "<shallow nesting>", "<deep nesting>"
CONFIGURATIONS = (
    "w16a16-k16v16",
    "w4a16-k4v4-g64+pc256",
    "w8a16-k8v4-kc+res128",
    "w16a16-k4v2-pb64-g32+smooth+rot",
    "w4a16-k2v2-pt+sink4",
    "w4a16-k8v8+protect{0,1}:k16v16+pcdyn",
)
NUMBERS = ("1", "10240", "32k", "128k", "1m", "2147483648")
SIZES = ("12GB", "11.5GiB", "1B", "1000TB")


class TooSlow(BaseException):
    """A case took longer than its limit. No Exception, so that nothing under test swallows it."""


@dataclass(frozen=True, slots=True)
class Case:
    """The bytes of one config.json and the arguments that go with it."""

    data: bytes
    config: str
    context: str
    output: str
    batch: str
    budget: str
    options: tuple[str, ...] = ()
    """Further options of `plan`."""


@cache
def seed_configs() -> tuple[dict[str, Any], ...]:
    """One bundled config of every model_type, the smallest file of each."""
    by_type: dict[str, dict[str, Any]] = {}
    paths = [p for p in MODELS.glob("*--*.json") if "hf_quant" not in p.name]
    for path in sorted(paths, key=lambda p: (p.stat().st_size, p.name)):
        config = json.loads(path.read_bytes())
        by_type.setdefault(f"{config['model_type']}{'quantization_config' in config}", config)
    return tuple(by_type.values())


def make_case(seed: int) -> Case:
    """The case of this seed: usually a broken config, sometimes broken text or arguments."""
    rng = random.Random(seed)
    config = copy.deepcopy(rng.choice(seed_configs()))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
        _break_config(config, rng)
    text = json.dumps(config, ensure_ascii=rng.random() < 0.5)
    for mark, depth in ((SHALLOW, 50), (DEEP, 20_000)):  # too deep for json.dumps
        text = text.replace(f'"{mark}"', "[" * depth + "]" * depth)
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        data = _break_bytes(data, rng)
    return Case(
        data,
        config=_break_text(rng.choice(CONFIGURATIONS), rng),
        context=_break_text(rng.choice(NUMBERS), rng),
        output=_break_text(rng.choice(("0", "1", "512")), rng),
        batch=_break_text(rng.choice(("1", "1", "2", "64", "1m")), rng),
        budget=_break_text(rng.choice(SIZES), rng),
        options=_options(rng),
    )


def _options(rng: random.Random) -> tuple[str, ...]:
    """Some of plan's options, each with a value that is usually good."""
    choices = {
        "--gpu": ("H200", "4090", "rtx 3060", "Apple M4 Max"),
        "--max-loss": ("3%", "0.05", "0"),
        "--objective": ("accuracy", "latency", "memory"),
        "--engine": ("kvpareto", "transformers", "transformers-eager"),
    }
    chosen = [name for name in choices if rng.random() < 0.3]
    return tuple(part for n in chosen for part in (n, _break_text(rng.choice(choices[n]), rng)))


def outcome_of(case: Case, seconds: int = 20) -> str:
    """`planned`, or the name of the expected error. Anything else is raised, TooSlow included."""
    with _limit(seconds):
        try:
            parse_bytes(case.budget)
            workload = Workload(
                context=parse_tokens(case.context),
                output=parse_tokens(case.output, minimum=0, what="output"),
                batch=parse_tokens(case.batch, what="batch"),
            )
            configuration = Configuration.parse(case.config)
            if str(Configuration.parse(str(configuration))) != str(configuration):
                raise AssertionError(f"{case.config!r} does not round-trip")
            spec = read_model(parse_json_object(case.data, "config.json"), "fuzz")
            errors = [_estimated(spec, configuration, workload, engine) for engine in all_engines()]
        except KVParetoError as error:
            return _checked(error)
    return "planned" if "" in errors else errors[0]


def _estimated(spec: Any, configuration: Any, workload: Any, engine: Engine) -> str:
    """Estimate under one engine; each may refuse what another can run."""
    try:
        found = estimate(spec, configuration, workload, engine, find_gpu("H200"))
    except KVParetoError as error:
        return _checked(error)
    if not 0 < found.total_low <= found.total <= found.total_high:
        raise AssertionError(f"{found.total_low} {found.total} {found.total_high}")
    return ""


def _checked(error: KVParetoError) -> str:
    """The error's class, after seeing that it is one printable line with a hint."""
    for text in (error.message, error.hint):
        if "\n" in text or not text.isprintable() or not text:
            raise AssertionError(f"not one printable line: {text!r}")
    return type(error).__name__


def command_outcome(case: Case, folder: Path, seconds: int = 60) -> str:
    """Exit code of one command line on the case, after seeing that it failed politely, if at all.

    The config goes to a folder or a file, the command is `plan` or `estimate`, by the case's size.
    """
    from kvpareto.cli import run

    path = folder / "config.json"
    path.write_bytes(case.data)
    model = str(folder if len(case.data) % 2 else path)
    common = ["--model", model, "--context", case.context, "--output", case.output]
    common += ["--batch", case.batch, "--offline"]
    command = [
        ["plan", "--budget", case.budget, *case.options, *common],
        ["plan", "--budget", case.budget, *case.options, "--json", *common],
        ["plan", "--budget", case.budget, *case.options, "--max-context", *common[:2]],
        ["estimate", "--config", case.config, "--engine", "transformers", "--json", *common],
        ["estimate", "--config", case.config, *common],
    ][len(case.data) % 5]
    out, err = io.StringIO(), io.StringIO()
    with _limit(seconds), redirect_stdout(out), redirect_stderr(err):
        code = run(command)
    errors = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
    if code not in (0, 1, 2) or "Traceback" in err.getvalue():
        raise AssertionError(f"exit {code}: {err.getvalue()[-300:]}")
    if len(errors) != (code != 0):
        raise AssertionError(f"exit {code} with {len(errors)} error lines: {command}")
    if code == 0 and "--json" in command:
        json.loads(out.getvalue())
    return f"exit {code}"


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        del number, frame
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value below `node`."""
    keys = node.keys() if isinstance(node, dict) else range(len(node))
    for key in list(keys)[:200]:
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _places(node[key])


def _break_config(config: dict[str, Any], rng: random.Random) -> None:
    places = list(_places(config))
    if not places:
        return
    node, key = rng.choice(places)
    value = node[key]
    match rng.randrange(8):
        case 0:
            del node[key]
        case 1:
            other, other_key = rng.choice(places)
            node[key] = copy.deepcopy(other[other_key]) if other_key in _keys(other) else None
        case 2 if isinstance(value, int | float) and not isinstance(value, bool):
            third = value / 3 if abs(value) < 10**15 else 0.1
            node[key] = rng.choice((-value, value * 10**6, value + 1, third, str(value)[:99]))
        case 3 if isinstance(value, list):
            node[key] = rng.choice((value[:-1], value * 2, value[::-1], [*value, None]))
        case 4 if isinstance(node, dict):
            node[rng.choice(_known_keys())] = rng.choice(JUNK)
        case 5:
            node[key] = rng.choice((SHALLOW, DEEP))
        case _:
            node[key] = copy.deepcopy(rng.choice(JUNK))


def _keys(node: Any) -> Any:
    return node.keys() if isinstance(node, dict) else range(len(node))


@cache
def _known_keys() -> tuple[str, ...]:
    """Every key of every seed, nested ones too: a config gets fields of other families."""
    return tuple(
        sorted({key for c in seed_configs() for node, key in _places(c) if isinstance(node, dict)})
    )


def _break_bytes(data: bytes, rng: random.Random) -> bytes:
    where = rng.randrange(len(data) + 1)
    match rng.randrange(7):
        case 0:
            return data[:where]
        case 1:
            return data[:where] + bytes([rng.randrange(256)]) + data[where + 1 :]
        case 2:
            return b""
        case 3:
            return b"[" * rng.choice((10, 10**5)) + data
        case 4:
            return data + data
        case 5:
            return rng.randbytes(rng.choice((1, 100, 10**5)))
        case _:
            return b"\xef\xbb\xbf" + data


def _break_text(text: str, rng: random.Random) -> str:
    if rng.random() < 0.97:
        return text
    where = rng.randrange(len(text) + 1)
    return rng.choice(
        (
            "",
            text[:where],
            text[:where] + rng.choice("-+{}0919kvgpwx \n\0é\N{PILE OF POO}") + text[where:],
            text * 2,
            "-" + text,
            text + "9" * 400,
            text.upper(),
            "nan",
            "1e9",
            "٣٢k",
        )
    )
