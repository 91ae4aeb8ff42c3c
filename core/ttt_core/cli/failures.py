"""Errors become one line on stderr (or one JSON object on stdout) and an exit code.

| code | meaning                                              |
|------|------------------------------------------------------|
| 1    | an error of ttt_core, or an option's value refused   |
| 2    | arguments that make no sense together                |
| 130  | stopped by Ctrl-C                                    |
| 141  | whoever read stdout went away (`| head`); silent     |
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from pydantic import ValidationError

from ttt_core.cli import console
from ttt_core.errors import TTTError

STOPPED = 130
BROKEN_PIPE = 141


class UsageProblem(Exception):
    """The arguments make no sense together; the message says what to do."""


@contextmanager
def reported(*, as_json: bool) -> Iterator[None]:
    """Report errors of the block and leave with their exit code. Bugs keep their traceback."""
    try:
        yield
        sys.stdout.flush()  # Here and not at exit, where a broken pipe could not be caught.
    except BrokenPipeError:
        _abandon_stdout()
        raise typer.Exit(BROKEN_PIPE) from None
    except KeyboardInterrupt as stop:
        _tell("KeyboardInterrupt", "; ".join(("stopped", *map(str, stop.args))), as_json)
        raise typer.Exit(STOPPED) from None
    except UsageProblem as error:
        _tell("UsageError", str(error), as_json)
        raise typer.Exit(2) from None
    except ValidationError as error:
        _tell("ValidationError", _refused_options(error), as_json)
        raise typer.Exit(1) from None
    except TTTError as error:
        _tell(type(error).__name__, str(error), as_json)
        raise typer.Exit(1) from None


def describe(error: TTTError) -> str:
    """The error in one line."""
    return " ".join(str(error).split())


def _tell(kind: str, message: str, as_json: bool) -> None:
    message = " ".join(message.split())
    if as_json:
        console.write_json({"error": {"type": kind, "message": message}})
    elif kind == "KeyboardInterrupt":
        console.note(message)
    else:
        console.error(message)


def _refused_options(error: ValidationError) -> str:
    """Name the options as they are typed, not as the fields are called."""
    parts = []
    for problem in error.errors(include_url=False, include_context=False):
        option = "--" + str(problem["loc"][0]).replace("_", "-") if problem["loc"] else ""
        text = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        parts.append(f"{option} {text}".strip())
    return "; ".join(dict.fromkeys(parts))


def _abandon_stdout() -> None:
    """Point stdout nowhere, or the interpreter would complain once more when it flushes at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
