"""What a shell asks for when Tab is pressed, and the options that set this up.

The library that answers takes for granted that a shell asks which it knows. Here a request that no
shell makes, and a shell that it does not know, become a mistake like any other.
"""

import os
import re
from collections.abc import Mapping, Sequence

from ..planner.errors import BadInput

VARIABLE = "_KVPARETO_COMPLETE"
"""Environment variable in which a shell says `complete_bash`."""
OPTIONS = "--install-completion", "--show-completion"
NAMED = "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"
"""Variable with which the library takes the shell that is typed, and looks for none."""
SHELLS = "bash", "zsh", "fish", "powershell", "pwsh"
_HINT = "bash, zsh, fish and PowerShell are known: type it in one of them"
_UNSET = f"unset {VARIABLE}; `kvpareto --install-completion` teaches a shell to complete"


def check_completion(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
    """Raise BadInput for a request for completion that cannot be answered."""
    if VARIABLE in environment:
        _check_request(environment)
    elif any(word in OPTIONS for word in arguments) and not environment.get(NAMED):
        _check_shell()


def _check_request(environment: Mapping[str, str]) -> None:
    """`complete_SHELL` beside the words that are typed, or `source_SHELL`."""
    request = environment[VARIABLE]
    wanted, _, shell = request.partition("_")
    if not request:
        return  # the library takes it for none
    if wanted not in ("complete", "source"):
        raise BadInput(f"{VARIABLE}={request} asks for nothing that a shell asks for", _UNSET)
    if shell not in SHELLS:
        raise BadInput(f"{VARIABLE}={request} names no shell that is known", _UNSET)
    if wanted == "source":
        return
    named = ("COMP_WORDS", "COMP_CWORD") if shell == "bash" else ("_TYPER_COMPLETE_ARGS",)
    for name in named:
        if name not in environment:
            raise BadInput(f"{VARIABLE}={request} without {name}, the words to complete", _UNSET)
    if shell == "bash" and not re.fullmatch("[0-9]{1,9}", environment["COMP_CWORD"]):
        raise BadInput(f"no number of a word: COMP_CWORD={environment['COMP_CWORD']}", _UNSET)


def _check_shell() -> None:
    import shellingham

    try:
        shell = shellingham.detect_shell()[0]
    except shellingham.ShellDetectionFailure:
        raise BadInput("no shell is found that could complete", _HINT) from None
    if shell not in SHELLS:
        raise BadInput(f"nothing completes for {shell}", _HINT)
