"""Which arguments are documents, and which is the question."""

from __future__ import annotations

from pathlib import Path

import pytest

from ttt_core.cli.failures import UsageProblem
from ttt_core.cli.inputs import Inputs, is_registry, sort_arguments
from ttt_core.document import Document
from ttt_core.errors import DocumentError
from ttt_core.sandbox import make_registry


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two files, and the working directory."""
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "my notes.md").write_text("text")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "question",
    [
        "What is it?",
        "why?",
        "Summarise the second part",
        "explain what setup.py does",
        "What is in notes.txt?",
        "\u8fd9\u4e2a\u6587\u4ef6\u8bf4\u4ec0\u4e48",
        "notes\uff1f",
        "word " * 400,  # Longer than a file name can be.
    ],
)
def test_question_comes_last(here: Path, question: str) -> None:
    assert sort_arguments(["a.txt", question], []) == Inputs(("a.txt",), (question,))


@pytest.mark.parametrize(
    "name", ["notes.txt", "dir/notes", "notes", "my other notes.txt", "/tmp/none such/a file of.md"]
)
def test_missing_file_is_no_question(here: Path, name: str) -> None:
    with pytest.raises(DocumentError, match=r"no such file: .*-q"):
        sort_arguments(["a.txt", name], [])


def test_existing_file_is_a_document_even_with_spaces(here: Path) -> None:
    assert sort_arguments(["a.txt", "my notes.md"], []).names == ("a.txt", "my notes.md")


def test_with_explicit_questions_all_arguments_are_documents(here: Path) -> None:
    inputs = sort_arguments(["a.txt", "-"], ["one?", "two"])
    assert inputs == Inputs(("a.txt", "-"), ("one?", "two"))
    with pytest.raises(DocumentError, match="no such file: what is it"):
        sort_arguments(["a.txt", "what is it?"], ["one?"])


def test_unquoted_question_is_explained(here: Path) -> None:
    with pytest.raises(DocumentError, match=r"no such file: Where .*quotes"):
        sort_arguments(["a.txt", "Where", "is", "it?"], [])


def test_folder_is_refused_with_a_remedy(here: Path) -> None:
    with pytest.raises(DocumentError, match="folder is a folder; name the files"):
        sort_arguments(["folder", "what?"], [])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["what is it?"], "no document"),
        (["a.txt", ""], "question is empty"),
        (["a.txt", "  "], "question is empty"),
        (["-", "-", "what?"], "only once"),
    ],
)
def test_senseless_arguments(here: Path, arguments: list[str], problem: str) -> None:
    with pytest.raises(UsageProblem, match=problem):
        sort_arguments(arguments, [])


def test_arguments_of_a_c_locale_become_text(here: Path) -> None:
    garbled = "\u00fcber?".encode().decode("ascii", "surrogateescape")
    assert sort_arguments(["a.txt", garbled], []).questions == ("\u00fcber?",)


def test_registry_is_told_from_prose() -> None:
    assert is_registry(Document.of(make_registry(20, seed=0).text))
    assert not is_registry(Document.of("Beautiful is better than ugly.\nkey: value\n"))
