"""Files of records, one a line, that several processes append to and that survive their deaths.

A line is there whole or not at all: what a killed process left unfinished is dropped by readers
and cut off by the next writer.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from ttt_core.config import Settings
from ttt_core.errors import DocumentError, StoreError
from ttt_core.evaluation.records import VERSION, to_line
from ttt_core.files import make_private, replacing
from ttt_core.locks import LOCK_SUFFIX, locked

T = TypeVar("T", bound=Settings)

_TAIL = 256
"""Bytes by which a file is known again."""


class JsonLines(Generic[T]):
    """Records of one kind in one file, by their key.

    Args:
        path: The file; it need not be there.
        kind: The records' class.
        key: Of several lines of one key, one counts.
        wins: Whether the second of two records of one key counts, and not the first.
    """

    def __init__(
        self,
        path: Path,
        kind: type[T],
        key: Callable[[T], str],
        wins: Callable[[T, T], bool] = lambda first, second: False,
    ) -> None:
        self.path = path
        self._kind, self._key, self._wins = kind, key, wins
        self._forget()

    def read(self) -> dict[str, T]:
        """Return all records by key, in the order of their first lines.

        Raises:
            DocumentError: A line is damaged, or of another version.
        """
        for record in self._new():
            key = self._key(record)
            if key not in self._held or self._wins(self._held[key], record):
                self._held[key] = record
        return dict(self._held)

    def append(self, record: T) -> None:
        """Add a line; it is on the disk when this returns.

        Raises:
            StoreError: It cannot be written.
        """
        with self._alone():
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
            with open(os.open(self.path, flags, 0o600), "r+b") as file:
                file.seek(_whole_lines(file))
                file.truncate()
                file.write(to_line(record))
                file.flush()
                os.fsync(file.fileno())

    def rewrite(self, order: Callable[[T], Any]) -> None:
        """Sort the file, each key once.

        Raises:
            DocumentError, StoreError: See `read` and `append`.
        """
        with self._alone():
            self._forget()  # Nothing may be missing from what is written, so read all of it.
            records = sorted(self.read().values(), key=order)
            if records:
                with replacing(self.path) as temporary:
                    temporary.write_bytes(b"".join(map(to_line, records)))

    def _forget(self) -> None:
        """Begin anew."""
        self._held: dict[str, T] = {}
        self._done, self._last = 0, b""
        """Bytes that were read, and the last of them: behind them is what is new."""
        self._lines = 0
        self._file: int | None = None
        """Which file that was."""

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            make_private(self.path.parent)
            with locked(self.path.with_name(self.path.name + LOCK_SUFFIX), timeout=math.inf):
                yield
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            reason = error.strerror or type(error).__name__
            raise StoreError(
                f"{self.path} cannot be written ({reason}); make room or choose another folder, "
                f"and run it again: what is there already is kept"
            ) from error

    def _new(self) -> Iterator[T]:
        """Records of lines that were not read before."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            here = os.fstat(file.fileno())
            file.seek(self._done - len(self._last))
            data = file.read()
            # It was sorted meanwhile: another file is in its place, or other lines are in it.
            if self._file not in (None, here.st_ino) or not data.startswith(self._last):
                self._forget()
                file.seek(0)
                data = file.read()
            self._file = here.st_ino
        data = data[len(self._last) : data.rfind(b"\n") + 1]
        self._done, self._last = self._done + len(data), (self._last + data)[-_TAIL:]
        for line in data.split(b"\n"):
            self._lines += bool(line)
            if line.strip():
                yield self._parse(line)

    def _parse(self, line: bytes) -> T:
        where = f"line {self._lines} of {self.path}"
        try:
            value = json.loads(line)
            version = value.get("key", value).get("version")
        except (ValueError, AttributeError):
            raise DocumentError(
                f"{where} is no record of an evaluation; choose another folder, or remove that line"
            ) from None
        if version != VERSION:
            raise DocumentError(
                f"{where} is of version {version!r}; this ttt_core reads version {VERSION}. Use "
                f"the one that wrote it, or another output folder"
            )
        try:
            return self._kind.model_validate(value)
        except ValidationError as error:  # Its own message would show what an answer said.
            fields = sorted({".".join(map(str, one["loc"])) for one in error.errors()})
            raise DocumentError(
                f"{where} is no {self._kind.__name__}: {', '.join(fields[:3])} cannot be as it "
                f"is; choose another folder, or remove that line"
            ) from None


def _whole_lines(file: Any) -> int:
    """Bytes up to the end of the last line that is whole."""
    end: int = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(end - 65536, 0)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + int(newline) + 1
        end = start
    return 0
