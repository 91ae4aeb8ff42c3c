"""Documents: normalised text, its hash, and what is refused."""

from __future__ import annotations

import codecs
import hashlib
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ttt_core import Document, DocumentError
from ttt_core.document import as_document

SECRET = "Rosebud 4711"


@pytest.mark.parametrize(
    "same",
    [
        "one\r\n\r\n  two\r\nthree",
        "one\r\r  two\rthree",
        "\ufeffone\n\n  two\nthree",
        "\n \t\n\r\none\n\n  two\nthree",
        "one\n\n  two\nthree \n\n\t\n",
    ],
    ids=["windows", "old-mac", "bom", "blank-before", "blank-after"],
)
def test_same_words_are_the_same_document(same: str) -> None:
    expected = Document.of("one\n\n  two\nthree")
    assert Document.of(same).text == expected.text == "one\n\n  two\nthree"
    assert Document.of(same).hash == expected.hash


def test_first_line_keeps_its_indentation() -> None:
    assert Document.of("\n    def f():\n        pass\n").text == "    def f():\n        pass"


def test_hash_is_of_the_text_and_not_of_the_title() -> None:
    assert Document.of("text", title="a").hash == Document.of("text", title="b").hash
    assert Document.of("text").hash == hashlib.sha256(b"text").hexdigest()
    assert Document.of("text").hash != Document.of("Text").hash


@given(st.text(st.sampled_from("a \t\r\n\x0b\ufeff")))
def test_normalising_twice_changes_nothing(text: str) -> None:
    try:
        once = Document.of(text)
    except DocumentError:
        return
    assert Document.of(once.text).text == once.text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_line_ends_never_change_the_hash(text: str) -> None:
    assume("\r" not in text and "\x00" not in text and text.strip("\ufeff").strip())
    assert Document.of(text.replace("\n", "\r\n")).hash == Document.of(text).hash


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\ufeff", "\r\n \t \r\n", "\u3000\n\u2003"])
def test_nothing_to_read_is_refused(text: str) -> None:
    with pytest.raises(DocumentError, match="empty"):
        Document.of(text)


@pytest.mark.parametrize("before", [0, 10, 5000])
def test_nul_is_refused_wherever_it_stands(before: int) -> None:
    with pytest.raises(DocumentError, match="NUL"):
        Document.of("x" * before + "\x00" + SECRET)


def test_surrogate_pairs_are_joined_and_lone_ones_replaced() -> None:
    """No tokenizer takes them."""
    assert Document.of("a\ud83d\ude00").text == "a\U0001f600"
    assert Document.of("a\ud800b").text == "a\ufffdb"


@pytest.mark.parametrize(
    "data",
    [
        "Grüße\nWelt".encode(),
        codecs.BOM_UTF8 + "Grüße\r\nWelt".encode(),
        codecs.BOM_UTF16_LE + "Grüße\nWelt".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "Grüße\nWelt\n".encode("utf-16-be"),
    ],
    ids=["utf-8", "utf-8-bom", "utf-16-le", "utf-16-be"],
)
def test_files_of_any_marked_encoding(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "greeting.txt"
    path.write_bytes(data)
    document = Document.from_file(path)
    assert document.text == "Grüße\nWelt"
    assert document.title == "greeting.txt"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\x7fELF\x00\x00" + SECRET.encode(), "binary file"),
        (SECRET.encode() + b"\xff\xfe\xfd", r"not UTF-8 text \(byte 12 of 15"),
        (f"Grüße {SECRET}".encode("latin-1"), "not UTF-8"),
        (codecs.BOM_UTF16_LE + SECRET.encode("utf-16-le") + b"x", "not UTF-16"),
        (codecs.BOM_UTF32_LE + SECRET.encode("utf-32-le"), "NUL"),
    ],
    ids=["empty", "binary", "undecodable", "latin-1", "odd-utf-16", "utf-32"],
)
def test_unreadable_files_are_refused_by_name(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "input.bin"
    path.write_bytes(data)
    with pytest.raises(DocumentError, match=reason) as caught:
        Document.from_file(path)
    assert "input.bin" in str(caught.value)
    assert "Rosebud" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "name", ["missing.txt", "", "no\x00such"], ids=["missing", "folder", "nul"]
)
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DocumentError, match="cannot read"):
        Document.from_file(tmp_path / name)


def test_refused_text_is_not_quoted() -> None:
    with pytest.raises(DocumentError, match=r"report\.txt") as caught:
        Document.of(f"{SECRET}\x00", title="report.txt")
    assert "Rosebud" not in str(caught.value)


def test_one_document_stays_as_it_is() -> None:
    document = Document.of("text", title="title")
    assert as_document(document) is document
    assert as_document([document]) is document
    assert as_document("text").text == "text"


def test_several_documents_are_one_in_the_order_given() -> None:
    parts = [Document.of("first", title="A"), "second\n", Document.of("third", title="C")]
    joined = as_document(parts)
    assert joined.text == "A\n\nfirst\n\n\nsecond\n\n\nC\n\nthird"
    assert joined.title == "3 documents"
    assert joined.hash != as_document(parts[::-1]).hash


def test_no_documents_are_refused() -> None:
    with pytest.raises(DocumentError, match="no documents"):
        as_document([])


def test_an_empty_one_among_several_is_refused() -> None:
    with pytest.raises(DocumentError, match="empty"):
        as_document(["text", " \n"])
