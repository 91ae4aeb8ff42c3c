"""All formats, and calls to write in them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from ttt_core.tools import ToolCall, ToolCallDelta, ToolFormat
from ttt_core.tools.deepseek import DeepSeekFormat
from ttt_core.tools.granite import GraniteFormat
from ttt_core.tools.hermes import HermesFormat
from ttt_core.tools.llama import LlamaFormat
from ttt_core.tools.mistral import MistralArgsFormat, MistralFormat
from ttt_core.tools.phi import PhiFormat
from ttt_core.tools.pythonic import PythonicFormat

FORMATS: dict[str, ToolFormat] = {
    "hermes": HermesFormat(),
    "llama": LlamaFormat(),
    "pythonic": PythonicFormat(),
    "mistral": MistralFormat(),
    "mistral-tight": MistralFormat(gap=""),
    "mistral-args": MistralArgsFormat(),
    "mistral-args-id": MistralArgsFormat(with_id=True),
    "granite": GraniteFormat(),
    "granite-old": GraniteFormat("<tool_call>"),
    "phi": PhiFormat(),
    "deepseek": DeepSeekFormat(),
    "deepseek-3.1": DeepSeekFormat(fenced=False),
}

TRAPS = [
    "</tool_call>",
    "<tool_call>",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|/tool_call|>",
    "functools[",
    '{"name": "x", "parameters": {}}',
    "```",
    "; ",
    ")]",
    "**",
    "\\",
    '"',
    "'",
    '"""',
    "'''",
    "{",
    "}]",
    "a=1, b",
    "\n",
    "\u2028",
    "<\uff5ctool\u2581call\u2581end\uff5c>",
    "\U0001f642",
    "\x00",
]
"""What a reader could take for something else if it looked no closer."""

TEXTS = st.lists(st.sampled_from(TRAPS) | st.text(max_size=5), max_size=5).map("".join)
NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True)
KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True) | TEXTS
NUMBERS = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = TEXTS | NUMBERS | st.booleans() | st.none()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)
CALLS = st.lists(
    st.builds(ToolCall, st.just("a1B2c3D4e"), NAMES, ARGUMENTS), min_size=1, max_size=3
)


def read(
    format: ToolFormat, pieces: list[str], **options: Any
) -> tuple[str, list[ToolCallDelta], list[ToolCall], list[Any]]:
    """Feed an answer in pieces; return its text, the deltas, the calls and the invalid ones."""
    reader = format.reader(**options)
    out = [event for piece in pieces for event in reader.feed(piece)] + reader.finish()
    text = "".join(event for event in out if isinstance(event, str))
    deltas = [event for event in out if isinstance(event, ToolCallDelta)]
    return text, deltas, reader.calls, reader.invalid


def cut(text: str, borders: list[int]) -> list[str]:
    """Cut a text at the given places, wherever these are."""
    places = sorted({border % (len(text) + 1) for border in borders} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(places)]


def joined(deltas: list[ToolCallDelta]) -> list[tuple[str | None, str | None, str]]:
    """Put the pieces of every call together: id, name, text of the arguments."""
    whole: list[tuple[str | None, str | None, str]] = []
    for delta in deltas:
        if delta.index == len(whole):
            whole.append((delta.id, delta.name, delta.arguments))
        else:
            assert delta.index == len(whole) - 1
            assert delta.id is None
            assert delta.name is None
            id, name, arguments = whole[-1]
            whole[-1] = id, name, arguments + delta.arguments
    return whole
