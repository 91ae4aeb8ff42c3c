"""Tool calling for local chat models: formats by family, their grammar, reading and writing them.

Independent of any framework and of torch.
"""

from __future__ import annotations

from ttt_core.tools.base import ToolFormat
from ttt_core.tools.calls import (
    InvalidToolCall,
    Tool,
    ToolCall,
    ToolCallDelta,
    as_tools,
    new_call_id,
)
from ttt_core.tools.detect import tool_format
from ttt_core.tools.reader import CallReader

__all__ = [
    "CallReader",
    "InvalidToolCall",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolFormat",
    "as_tools",
    "new_call_id",
    "tool_format",
]
