"""Documents: normalised text and its hash. Knows nothing of models or tokens."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ttt_core.errors import ConfigError, DocumentError
from ttt_core.lazy import lazy_property

_SAMPLE = 4096


@dataclass(frozen=True)
class Document:
    """One text to read. Build it with `Document.of`, which normalises and checks.

    Attributes:
        text: With `\\n` line ends, no byte-order mark and no blank lines around it.
        title: Shown to the model above the text when several documents are read together.
    """

    text: str
    title: str | None = None

    @classmethod
    def of(cls, text: str, *, title: str | None = None) -> Document:
        """Normalise `text` so that the same words always give the same document.

        Raises:
            DocumentError: The text is empty or only white space, or holds NUL characters.
        """
        lines = without_surrogates(text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        while lines and not lines[0].lstrip("\ufeff").strip():
            lines.pop(0)
        normal = "\n".join(lines).lstrip("\ufeff").rstrip()
        name = f"document {title!r}" if title else "the document"
        if not normal:
            raise DocumentError(f"{name} is empty; expected text with at least one word")
        if "\x00" in normal:
            raise DocumentError(f"{name} looks binary (it holds NUL bytes); expected plain text")
        return cls(text=normal, title=title)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Document:
        """Read a UTF-8 (or BOM-marked UTF-16) text file.

        Raises:
            DocumentError: No such file, a folder, a binary file, or not decodable.
        """
        path = Path(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DocumentError(f"cannot read {path}: {error.strerror}") from None
        except ValueError:  # A NUL in the name.
            raise DocumentError(f"cannot read {str(path)!r}: not a file name") from None
        return cls.from_bytes(data, name=str(path), title=path.name)

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str, title: str | None = None) -> Document:
        """Decode UTF-8 (or BOM-marked UTF-16) text; `name` says in errors where it came from.

        Raises:
            DocumentError: Binary, not decodable, or empty.
        """
        return cls.of(_decode(data, name), title=title)

    @lazy_property
    def hash(self) -> str:
        """SHA-256 of the normalised text; titles do not count."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def _decode(data: bytes, name: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\x00" in data[:_SAMPLE]:
        raise DocumentError(f"{name} is a binary file; expected plain text, Markdown or source")
    else:
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DocumentError(
            f"{name} is not {encoding.removesuffix('-sig').upper()} text (byte {error.start:,} of "
            f"{len(data):,} cannot be decoded); convert it to UTF-8, or extract its text first"
        ) from None


def without_surrogates(text: str) -> str:
    """Join surrogate pairs and replace lone ones, which no tokenizer takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


DocumentLike: TypeAlias = str | Document
Documents: TypeAlias = DocumentLike | Sequence[DocumentLike]


def as_document(documents: Documents) -> Document:
    """Make one document of text, a `Document`, or several of either, in the order given.

    Raises:
        ConfigError: It is none of these.
        DocumentError: Nothing was given, or one of the documents is empty.
    """
    parts = [_checked(part) for part in _flat(documents)]
    if not parts:
        raise DocumentError("no documents were given; expected at least one")
    if len(parts) == 1:
        return parts[0]
    headed = (f"{part.title}\n\n{part.text}" if part.title else part.text for part in parts)
    return Document.of("\n\n\n".join(headed), title=f"{len(parts)} documents")


def _flat(documents: Documents) -> Iterable[DocumentLike]:
    if isinstance(documents, str | Document):
        return [documents]
    if isinstance(documents, bytes | bytearray) or not isinstance(documents, Iterable):
        raise _no_document(documents)
    return documents


def _checked(part: object) -> Document:
    if isinstance(part, Document):
        return part
    if not isinstance(part, str):
        raise _no_document(part)
    return Document.of(part)


def _no_document(found: object) -> ConfigError:
    kind = type(found).__name__
    hint = "; Document.from_file reads one" if isinstance(found, os.PathLike) else ""
    hint = "; decode them first" if isinstance(found, bytes | bytearray) else hint
    return ConfigError(f"a document is text or a Document, or a list of them, not {kind}{hint}")
