"""Sizes and ages, as people write and read them."""

from __future__ import annotations

import re

from ttt_core.cli.failures import UsageProblem

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_FEWEST = 1 << 16  # Nobody means fewer bytes than this.
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d|w|y)", re.IGNORECASE)
_SECONDS = {"y": 365 * 86400, "w": 7 * 86400, "d": 86400, "h": 3600, "min": 60, "s": 1}


def parse_size(text: str, *, option: str) -> int:
    """Return the bytes that `text` means: `20GiB` (powers of 1,024), `20GB` (of 1,000), `20000`.

    Args:
        text: What was typed.
        option: The option's name, for the error.

    Raises:
        UsageProblem: It is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageProblem(f"{option} is a size such as 20GiB, not {text!r}")
    number, unit, binary = match.groups()
    if text.strip() == number and 0 < float(number) < _FEWEST:
        raise UsageProblem(f"{option} {text.strip()} would be bytes; give a unit, such as MiB")
    return int(float(number) * (1024 if binary else 1000) ** _POWERS[unit.lower()])


def format_size(size: int) -> str:
    """Write a number of bytes with three or four digits."""
    amount = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:,.0f} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:,.1f} TiB"


def parse_age(text: str, *, option: str) -> float:
    """Return the seconds that `text` means: `30d`, `12h`, `90min`.

    Args:
        text: What was typed.
        option: The option's name, for the error.

    Raises:
        UsageProblem: It is no age.
    """
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise UsageProblem(
            f"{option} is an age such as 30d or 12h (s, min, h, d, w or y), not {text!r}"
        )
    return float(match[1]) * _SECONDS[match[2].lower()]


def format_age(seconds: float) -> str:
    """Write an age in its largest unit."""
    for unit in ("y", "d", "h", "min"):
        if seconds >= _SECONDS[unit]:
            return f"{seconds // _SECONDS[unit]:.0f} {unit}"
    return "< 1 min"
