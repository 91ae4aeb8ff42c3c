"""Texts that come from anywhere, made fit to be shown: no control characters, whole ones only."""

from __future__ import annotations

import re

_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""What neither XML nor UTF-8 can hold; model outputs and file names may hold lone surrogates."""
_LONGEST = 60


def clean(text: str) -> str:
    """Return `text` with a replacement character for each one that cannot be shown."""
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)


def label(text: str) -> str:
    """Return `text` fit for a figure: on one line, and not wider than half of it."""
    line = " ".join(clean(text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
