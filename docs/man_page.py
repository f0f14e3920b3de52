"""kvpareto.1: the manual page, from the same help texts as `--help` and docs/cli.md.

`make docs` writes it through write_generated.py; the wheel installs it under share/man, where `man
kvpareto` finds it beside the script's folder. `man docs/kvpareto.1` shows it from the tree.
"""

import re
from typing import Any

_END = (
    ("EXIT STATUS", (
        ("0", "Done."),
        ("1", "Nothing fits, or what was verified is not so."),
        ("2", "Bad input: one line error: and one line hint: on stderr."),
        ("3", "A library or a GPU is missing; the hint has the command that installs it."),
        ("130", "Ctrl-C."),
    )),
    ("ENVIRONMENT", (
        ("KVPARETO_HOME", "Folder of calibrations and measured rows instead of the user's own."),
        ("HF_TOKEN", "Token for configs of models that ask for one."),
        ("HF_HUB_OFFLINE", "1: never ask the hub; bundled and cached models are planned."),
        ("NO_COLOR", "Set: no colours."),
        ("COLUMNS", "Width to lay tables out for, where stdout is no terminal."),
    )),
)  # fmt: skip


def man_page(group: Any) -> str:
    """The page of the command line `group`, as typer builds it, in man(7) macros."""
    lines = [
        ".\\\" Generated from the commands' help by `make docs`; do not edit.",
        '.TH KVPARETO 1 "" kvpareto "User Commands"',
        ".SH NAME",
        r"kvpareto \- which weight bits, KV-cache bits and prefill chunk to run",
        ".SH SYNOPSIS",
        ".B kvpareto",
        "[OPTIONS] COMMAND [ARGUMENTS]",
        ".SH DESCRIPTION",
        *_prose(group.help),
        ".SH OPTIONS",
        *_options(group),
        ".SH COMMANDS",
    ]
    for name, command in group.commands.items():
        lines += _command(name, command)
    for title, entries in _END:
        lines.append(f".SH {title}")
        for term, meaning in entries:
            lines += [".TP", f".B {_text(term)}", _text(meaning)]
    return "\n".join(lines) + "\n"


def _command(name: str, command: Any) -> list[str]:
    if getattr(command, "commands", None):
        lines = [f".SS kvpareto {_text(name)}", *_prose(command.help), *_options(command)]
        for inner, each in command.commands.items():
            lines += _command(f"{name} {inner}", each)
        return lines
    arguments = [p.metavar or p.human_readable_name for p in command.params if not _is_option(p)]
    usage = " ".join(["kvpareto", name, "[OPTIONS]", *arguments])
    lines = [f".SS kvpareto {_text(name)}", f".B {_text(usage)}", ".PP"]
    return [*lines, *_prose(command.help), *_options(command)]


def _is_option(parameter: Any) -> bool:
    return bool(parameter.opts) and parameter.opts[0].startswith("-")


def _options(command: Any) -> list[str]:
    lines = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or not parameter.help:
            continue
        if _is_option(parameter):
            names = ", ".join(sorted(parameter.opts, key=len))
            value = "" if parameter.is_flag else f" {(parameter.metavar or 'VALUE').upper()}"
        else:
            names, value = parameter.metavar or parameter.human_readable_name, ""
        default = parameter.default
        shown = isinstance(default, str | int | float) and default and not parameter.is_flag
        text = re.sub(r"\s+", " ", parameter.help)
        lines += [".TP", f".B {_text(names + value)}"]
        lines.append(_text(f"{text} [default: {default}]" if shown else text))
    return lines


def _prose(text: str) -> list[str]:
    """Paragraphs; one behind a backspace, click's mark, keeps its lines."""
    lines = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        kept = paragraph.lstrip()
        if kept.startswith("\b"):
            body = kept.lstrip("\b").strip("\n").splitlines()
            lines += [".PP", ".nf", *map(_text, body), ".fi"]
        else:
            lines += [".PP", _text(re.sub(r"\s+", " ", kept))]
    return lines


def _text(text: str) -> str:
    """`text` as roff prints it: no escape, no macro, hyphens that can be copied."""
    safe = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    safe = "".join(c if c.isascii() else rf"\[u{ord(c):04X}]" for c in safe)
    return r"\&" + safe if safe.startswith((".", "'")) else safe
