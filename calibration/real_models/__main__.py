"""`python -m kvpareto.calibration.real_models`: from GGUF files to rows, a page and profiles."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="kvpareto.calibration.real_models")
    commands = parser.add_subparsers(required=True)

    unpack = commands.add_parser("unpack", help="a GGUF file to a bfloat16 folder")
    unpack.add_argument("file", type=Path)
    unpack.add_argument("out", type=Path)
    unpack.add_argument("--like", type=Path, required=True, help="folder with config, tokenizer")
    unpack.add_argument("--name", required=True, help="the model's hub id, for the rows")
    unpack.add_argument("--device", default="cpu")
    unpack.set_defaults(run=_unpack)

    prepare = commands.add_parser("prepare", help="texts and tasks as a model's tokens")
    prepare.add_argument("folder", type=Path, help="config and tokenizer; files are added to it")
    prepare.add_argument("--text", type=Path, help="for the divergence, WikiText-2's test say")
    prepare.add_argument("--gsm8k", type=Path, help="gsm8k_test.jsonl, for chat models")
    prepare.add_argument("--mmlu", type=Path, help="subject, question, choices, answer a line")
    prepare.add_argument("--each", type=int, default=10, help="questions of a subject of MMLU")
    prepare.add_argument("--maps", type=Path, help="a text whose end affine maps learn from")
    prepare.add_argument("--contexts", default="2048,8192,16384", help="of the tasks")
    prepare.add_argument("--seed", type=int, default=0)
    prepare.set_defaults(run=_prepare)

    measure = commands.add_parser("measure", help="every point of the design")
    measure.add_argument("models", type=Path, help="folder of models' folders; may still fill")
    measure.add_argument("--out", type=Path, required=True, help="folder of rows; resumed")
    measure.add_argument("--gpus", type=int, default=1, help="0: the CPU")
    measure.add_argument("--workers", type=int, default=6, help="processes for each GPU")
    measure.add_argument("--seconds", type=float, default=600.0, help="ends there")
    measure.add_argument("--contexts", default="4096,1024,16384,32768", help="of divergence")
    measure.add_argument("--configurations", type=int, help="of the design, the first so many")
    measure.add_argument("--design", choices=("divergence", "bytes"), default="divergence")
    listed: dict[str, Any] = {"nargs": "+", "default": (), "type": _configuration}
    measure.add_argument("--formats", **listed, help="these instead of a design")
    measure.add_argument("--tasked", **listed, help="scored on tasks, likewise")
    measure.add_argument("--windows", type=int, help="of text; by default 3 to 16")
    measure.add_argument("--places", type=int, help="compared in the bodies together")
    measure.add_argument("--wait", action="store_true", help="models may still come")
    measure.add_argument("--commit", help="of this code, where it is no checkout")
    measure.set_defaults(run=_measure)

    merge = commands.add_parser("merge", help="one file of the points of many")
    merge.add_argument("rows", type=Path, nargs="+")
    merge.add_argument("--out", type=Path, required=True)
    merge.add_argument("--model", help="of this model only")
    merge.set_defaults(run=_merge)

    table = commands.add_parser("table", help="docs/real_*.md from the rows")
    table.add_argument("rows", type=Path, nargs="+")
    table.add_argument("--scored", type=Path, nargs="+", default=[], help="rows of same bytes")
    table.add_argument("--out", type=Path, required=True, help="folder of the pages")
    table.set_defaults(run=_table)

    same = commands.add_parser("bytes", help="docs/formats_measured.md from the rows")
    same.add_argument("rows", type=Path, nargs="+")
    same.add_argument("--out", type=Path, required=True)
    same.set_defaults(run=_bytes)

    ship = commands.add_parser("profiles", help="what plans of measured models use, as it ships")
    ship.set_defaults(run=_profiles)

    options = parser.parse_args(arguments)
    options.run(options)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def _unpack(options: argparse.Namespace) -> None:
    from .gguf_folder import unpack

    unpack(options.file, options.like, options.out, name=options.name, device=options.device)


def _prepare(options: argparse.Namespace) -> None:
    from .material import prepare

    written = prepare(
        options.folder,
        text=options.text,
        contexts=_numbers(options.contexts),
        gsm8k=options.gsm8k,
        mmlu=options.mmlu,
        each=options.each,
        maps=options.maps,
        seed=options.seed,
    )
    print(f"{len(written)} files in {options.folder}", flush=True)


def _configuration(text: str) -> str:
    """`text` where it is a configuration: asked before a worker starts."""
    from ...planner.errors import BadInput
    from ...planner.formats.configuration import Configuration

    try:
        Configuration.parse(text)
    except BadInput as error:
        raise argparse.ArgumentTypeError(f"{error.message}; {error.hint}") from None
    return text


def _measure(options: argparse.Namespace) -> None:
    from .campaign import CampaignSettings, WorkerCampaign

    settings = CampaignSettings(
        models=options.models,
        out=options.out,
        contexts=_numbers(options.contexts),
        configurations=options.configurations,
        commit=options.commit,
        design=options.design,
        windows=options.windows,
        places=options.places,
        formats=tuple(options.formats),
        tasked=tuple(options.tasked),
    )
    WorkerCampaign(
        settings,
        gpus=options.gpus,
        workers=options.workers,
        seconds=options.seconds,
        wait=options.wait,
    ).run()


def _merge(options: argparse.Namespace) -> None:
    from .rows import read_rows, write_rows

    points = read_rows(options.rows)
    if options.model is not None:
        points = [(header, row) for header, row in points if row["model"] == options.model]
    write_rows(options.out, points)
    print(f"{len(points)} points in {options.out}", flush=True)


def _table(options: argparse.Namespace) -> None:
    from .page import write_pages

    write_pages(options.rows, options.out, options.scored)


def _bytes(options: argparse.Namespace) -> None:
    from .same_bytes import write_table

    write_table(options.rows, options.out)


def _profiles(options: argparse.Namespace) -> None:
    from .measured_profiles import write_profiles

    del options
    write_profiles()


if __name__ == "__main__":
    main()
