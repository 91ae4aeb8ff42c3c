"""Hermes, Qwen 2.5 and 3, Granite 4, SmolLM 3: `<tool_call>{"name": ..., "arguments": ...}`.

See https://github.com/NousResearch/Hermes-Function-Calling.
"""

from __future__ import annotations

from ttt_core.tools.tagged import PairFormat


class HermesFormat(PairFormat):
    """Each call on a line of its own between `<tool_call>` and `</tool_call>`."""

    name = "hermes"
    opening, closing, gap = "<tool_call>", "</tool_call>", "\n"
    triggers = ("<tool_call>",)
    control_tokens = frozenset({"<tool_call>", "</tool_call>"})

    def result(self, name: str, content: str) -> str:
        """See `ToolFormat`."""
        return f"<tool_response>\n{content}\n</tool_response>"
