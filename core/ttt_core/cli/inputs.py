"""Which arguments are documents and which is the question; reading both."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ttt_core.cli.failures import UsageProblem
from ttt_core.document import Document
from ttt_core.errors import DocumentError

STDIN = "-"

_SUFFIX = re.compile(r"\.[A-Za-z]\w{0,5}$")
_ROOTED = re.compile(r"~|\.{0,2}[/\\]|[A-Za-z]:[/\\]")
_RECORD = re.compile(r"\w+ \w+: \w+")
_FEW_WORDS = 3
_MARKS = ("?", "\uff1f", "\u061f", "\u037e")
"""Question marks: Latin, full-width, Arabic, Greek."""


@dataclass(frozen=True)
class Inputs:
    """What was given: names of documents, and the questions, none if they are still to come."""

    names: tuple[str, ...]
    questions: tuple[str, ...]


def sort_arguments(arguments: Sequence[str], asked: Sequence[str]) -> Inputs:
    """Tell documents from the question.

    Args:
        arguments: `FILE... ["QUESTION"]`.
        asked: What was given with `--question`; then all arguments are documents.

    Raises:
        UsageProblem: No document, an empty question, or `-` more than once.
        DocumentError: A file that does not exist, or a folder.
    """
    names, questions = list(arguments), list(asked)
    if not questions and names and not _exists(names[-1]) and _is_question(names[-1]):
        questions = [names.pop()]
    if any(not question.strip() for question in questions):
        raise UsageProblem("the question is empty")
    if not names:
        raise UsageProblem(
            'no document; give a file before the question: ttt ask FILE "QUESTION" (- is stdin)'
        )
    try:
        check_names(names)
    except DocumentError as error:
        raise DocumentError(f"{error}{_advice(names)}") from None
    return Inputs(tuple(names), tuple(map(_as_utf8, questions)))


def check_names(names: Sequence[str]) -> None:
    """Refuse what cannot be a document before anything is loaded.

    Raises:
        UsageProblem: `-` more than once.
        DocumentError: A file that does not exist, or a folder.
    """
    if names.count(STDIN) > 1:
        raise UsageProblem("- (stdin) can be given only once")
    for name in names:
        if not _exists(name):
            raise DocumentError(f"no such file: {name}")
        if name != STDIN and Path(name).is_dir():
            raise DocumentError(
                f"{name} is a folder; name the files to read in it, for example {Path(name) / '*'}"
            )


def read_documents(names: Sequence[str]) -> list[Document]:
    """Read all documents.

    Raises:
        DocumentError: Empty, binary, undecodable or unreadable.
    """
    return [_read_stdin() if name == STDIN else Document.from_file(name) for name in names]


def read_question_lines() -> tuple[str, ...]:
    """Read stdin, one question a line, for `ttt ask FILE < questions.txt`."""
    return tuple(line.strip() for line in sys.stdin if line.strip())


def is_registry(document: Document) -> bool:
    """Whether this is what the bundled model can read: mostly lines like `amber falcon: Oslo`."""
    lines = [line for line in document.text.split("\n") if line.strip()]
    return 2 * sum(bool(_RECORD.fullmatch(line.strip())) for line in lines) > len(lines)


def _read_stdin() -> Document:
    data = sys.stdin.buffer.read()
    try:
        return Document.of(data.decode("utf-8-sig"), title="stdin")
    except UnicodeDecodeError:
        raise DocumentError("stdin is not UTF-8 text; convert it first") from None


def _as_utf8(argument: str) -> str:
    """Undo what Python does to arguments under a C locale; tokenizers refuse its surrogates."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _exists(name: str) -> bool:
    try:
        return name == STDIN or (name != "" and Path(name).exists())
    except (OSError, ValueError):  # Longer than a file name can be, or with a NUL in it.
        return False


def _is_question(text: str) -> bool:
    """Whether a name of no file reads like a question rather than like a misspelt file.

    In doubt it is a file: "no such file" costs nothing, an answer to `notes.txt` misleads.
    """
    text = text.strip()
    if not text or text.endswith(_MARKS):
        return True
    words = len(text.split())
    if words == 1:
        return not text.isascii()  # Several scripts put no spaces between words.
    return not (_SUFFIX.search(text) and (words <= _FEW_WORDS or _ROOTED.match(text)))


def _advice(names: Sequence[str]) -> str:
    """Say what to do if what is missing was meant as the question."""
    missing = next((index for index, name in enumerate(names) if not _exists(name)), None)
    if missing is None:
        return ""
    if missing == len(names) - 1:
        return f" (if it is the question: -q {names[missing]!r})"
    return " (if it begins the question: put the question in quotes)"
