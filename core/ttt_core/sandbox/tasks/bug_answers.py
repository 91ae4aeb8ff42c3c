"""Reading a place in code off an answer: `heapq.py:L23`, or "line 23 of heapq.py"."""

from __future__ import annotations

import re
from typing import NamedTuple

_FILE = r"(?P<file>[\w./\\-]+\.py)\b"
# Not the first line of a range: whoever names several lines has not named one. More digits are no
# line's, and very many Python refuses to make a number of.
_LINE = r"(?P<line>\d{1,9})(?!\d|\s*[-\u2013]\s*L?\d)"
_MARKS = r"[\s`'\"*:=,#()\[\]]*"
_FILE_FIRST = re.compile(
    rf"{_FILE}{_MARKS}(?:(?:at|on|in)\s+)?(?:line\b|L(?=\d))?{_MARKS}{_LINE}", re.IGNORECASE
)
_LINE_FIRST = re.compile(
    rf"\b(?:line\b{_MARKS}|L){_LINE}{_MARKS}(?:of|in)\s+(?:the\s+)?(?:file|module)?{_MARKS}{_FILE}",
    re.IGNORECASE,
)


class Place(NamedTuple):
    """A line of a file, as in `json/decoder.py:L23`."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:L{self.line}"

    def is_meant_by(self, named: Place) -> bool:
        """Tell whether `named` is this place; folders in front of the file may be left out."""
        same_file = f"/{self.file}".endswith(f"/{named.file}")
        return same_file and self.line == named.line


def read_place(answer: str) -> Place | None:
    """Read the place that an answer names; of several, the last: who reasons concludes then."""
    found = [*_FILE_FIRST.finditer(answer), *_LINE_FIRST.finditer(answer)]
    if not found:
        return None
    last = max(found, key=lambda match: match.end())
    file = last["file"].replace("\\", "/").removeprefix("./")
    return Place(file, int(last["line"]))
