"""Which format a model writes: by its chat template, else by its tokens."""

from __future__ import annotations

import pytest

from ttt_core.tools import ToolCall, tool_format

CALL = [ToolCall("a1B2c3D4e", "f", {"a": 1})]
ENVELOPE = '{"name": "f", "arguments": {"a": 1}}'
DEEPSEEK = "<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581call\u2581begin\uff5c>"
SEPARATOR = "<\uff5ctool\u2581sep\uff5c>"


@pytest.mark.parametrize(
    ("template", "begins"),
    [
        ("inside <tool_call></tool_call> XML tags: {{ m.tool_calls }}", "<tool_call>\n{"),
        (
            "{{- '{\"name\": ' }}{{- '\"parameters\": ' }} Environment: ipython",
            '{"name": "f", "par',
        ),
        ("Use exact format: [func_name1(param1=value1), func_name2(...)]", "[f(a=1)]"),
        ('{{- "[TOOL_CALLS] [" }}{{ tool_call.id }}', "[TOOL_CALLS] [{"),
        ("{{ '[TOOL_CALLS][' + call }}", "[TOOL_CALLS][{"),
        ("{{- '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}", '[TOOL_CALLS]f[ARGS]{"a": 1}'),
        (
            "'[TOOL_CALLS]' + name '[CALL_ID]' + id '[ARGS]'",
            "[TOOL_CALLS]f[CALL_ID]a1B2c3D4e[ARGS]",
        ),
        ("respond only with <|tool_call|> followed by a JSON list", "<|tool_call|>[{"),
        ("respond with <tool_call> followed by a JSON list of tools used", "<tool_call>[{"),
        ("<|tool_call|>{{ calls }}<|/tool_call|>", f"<|tool_call|>[{ENVELOPE}]<|/tool_call|>"),
        ("prefix function calls with functools marker", "<|tool_call|>[{"),
        (f"{DEEPSEEK}function{SEPARATOR} ```json", f"{DEEPSEEK}function{SEPARATOR}f\n```json\n{{"),
        (f"{DEEPSEEK}tool_call_name{SEPARATOR}", f'{DEEPSEEK}f{SEPARATOR}{{"a": 1}}'),
        ("{{ messages }}", "<tool_call>\n{"),
        ("", "<tool_call>\n{"),
    ],
)
def test_the_template_says_how_calls_are_written(template: str, begins: str) -> None:
    assert tool_format(template, ()).render(CALL).startswith(begins)


@pytest.mark.parametrize(
    ("tokens", "name"),
    [
        (("<tool_call>", "</tool_call>"), "hermes"),
        (("<|tool_call|>", "<|/tool_call|>"), "phi"),
        (("<|tool_call|>",), "granite"),
        (("[TOOL_CALLS]",), "mistral"),
        (("[TOOL_CALLS]", "[ARGS]"), "mistral-args"),
        (("<|python_start|>",), "pythonic"),
        (("<|python_tag|>",), "llama"),
        (("<\uff5ctool\u2581call\u2581begin\uff5c>",), "deepseek"),
        ((), "hermes"),
    ],
)
def test_else_the_tokens_do(tokens: tuple[str, ...], name: str) -> None:
    assert tool_format("{{ messages }}", tokens).name == name


def test_the_template_has_the_first_word() -> None:
    template = "in <tool_call></tool_call> tags"
    assert tool_format(template, ("<|python_tag|>",)).name == "hermes"
