"""Phi-4-mini: a JSON list in `<|tool_call|>` tags, or behind the word `functools`.

See https://huggingface.co/microsoft/Phi-4-mini-instruct.
"""

from __future__ import annotations

from ttt_core.tools.tagged import ListFormat


class PhiFormat(ListFormat):
    """The tags are what the model is told to write; the word is what it writes at times."""

    name = "phi"
    opening, closing = "<|tool_call|>", "<|/tool_call|>"
    triggers = ("<|tool_call|>", "functools[")
    control_tokens = frozenset({"<|tool_call|>", "<|/tool_call|>"})
