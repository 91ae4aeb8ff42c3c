"""JSON that is still being written."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

_UNFINISHED = "+-.0123456789eE"
"""What a number may go on with: 12 is not to be shown where 125 is being said."""


def unfinished_object(text: str) -> dict[str, Any]:
    """Read the beginning of a JSON object; what grows in the text only grows in the object.

    LlamaIndex's own parser shows strings when they are over, and fails within literals, escapes
    and names.
    """
    try:
        value = from_json(text.rstrip(_UNFINISHED), allow_partial="trailing-strings")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
