"""Tell how a model writes tool calls: from its chat template, else from its added tokens."""

from __future__ import annotations

from collections.abc import Collection

from ttt_core.tools.base import ToolFormat
from ttt_core.tools.deepseek import DeepSeekFormat
from ttt_core.tools.granite import GraniteFormat
from ttt_core.tools.hermes import HermesFormat
from ttt_core.tools.llama import LlamaFormat
from ttt_core.tools.mistral import MistralArgsFormat, MistralFormat
from ttt_core.tools.phi import PhiFormat
from ttt_core.tools.pythonic import PythonicFormat

_DEEPSEEK = "<\uff5ctool\u2581call\u2581begin\uff5c>"


def tool_format(chat_template: str, vocabulary: Collection[str]) -> ToolFormat:
    """Choose a format; Hermes' where nothing is known, since most models have met it.

    Args:
        chat_template: The template's source.
        vocabulary: The tokenizer's tokens.
    """
    found = _from_template(chat_template)
    return found or _from_vocabulary(vocabulary) or HermesFormat()


def _from_template(text: str) -> ToolFormat | None:
    if _DEEPSEEK in text:
        return DeepSeekFormat(fenced="```json" in text)
    if "[TOOL_CALLS]" in text:
        return _mistral(text)
    if "<|/tool_call|>" in text or "functools" in text:
        return PhiFormat()
    if "</tool_call>" in text:
        return HermesFormat()
    if "<|tool_call|>" in text:
        return GraniteFormat()
    if "<tool_call>" in text:
        return GraniteFormat("<tool_call>")
    if "[func_name1(" in text:
        return PythonicFormat()
    if '"parameters": ' in text and ("<|python_tag|>" in text or "ipython" in text):
        return LlamaFormat()
    return None


def _from_vocabulary(vocabulary: Collection[str]) -> ToolFormat | None:
    if "</tool_call>" in vocabulary:
        return HermesFormat()
    if "<|/tool_call|>" in vocabulary:
        return PhiFormat()
    if "<|tool_call|>" in vocabulary:
        return GraniteFormat()
    if "[TOOL_CALLS]" in vocabulary:
        return MistralArgsFormat() if "[ARGS]" in vocabulary else MistralFormat()
    if "<|python_start|>" in vocabulary:
        return PythonicFormat()
    if "<|python_tag|>" in vocabulary:
        return LlamaFormat()
    return DeepSeekFormat() if _DEEPSEEK in vocabulary else None


def _mistral(text: str) -> ToolFormat:
    if "[ARGS]" in text:
        return MistralArgsFormat(with_id="[CALL_ID]" in text)
    return MistralFormat(gap="" if "[TOOL_CALLS][" in text else " ")
