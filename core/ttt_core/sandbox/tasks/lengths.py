"""The length that a task was asked for, checked."""

from __future__ import annotations

from ttt_core.errors import ConfigError


def check_length(length: int | None, unit: str, *, least: int, most: int | None = None) -> int:
    """Return `length` if there can be a document of that length.

    Args:
        length: What was asked for.
        unit: What it counts, for the message.
        least: The shortest document that there is.
        most: The longest; None: there is no bound.

    Raises:
        ConfigError: There can't be one.
    """
    if length is None or length < least or (most is not None and length > most):
        bounds = f"at least {least:,}" if most is None else f"between {least:,} and {most:,}"
        raise ConfigError(f"the length in {unit} must be {bounds}, got {length}")
    return length
