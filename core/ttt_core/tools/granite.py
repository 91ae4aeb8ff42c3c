"""Granite 3: a JSON list behind `<|tool_call|>` (3.0, 3.2 and later) or `<tool_call>` (3.1).

See https://huggingface.co/ibm-granite.
"""

from __future__ import annotations

from ttt_core.tools.tagged import ListFormat

_TAGS = ("<|tool_call|>", "<tool_call>")


class GraniteFormat(ListFormat):
    """The list ends with the answer.

    Args:
        opening: Which of the two tags the model writes; both are read.
    """

    name = "granite"
    control_tokens = frozenset(_TAGS)

    def __init__(self, opening: str = _TAGS[0]) -> None:
        self.opening = opening
        self.triggers = (opening, *(tag for tag in _TAGS if tag != opening))
