"""Python literals as data: read by turning them into JSON, and written."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from ttt_core.tools.scanning import Malformed, parse_json

_TOKEN = re.compile(
    r"(?P<string>'''(?:[^\\]|\\.)*?'''|\"\"\"(?:[^\\]|\\.)*?\"\"\""
    r"|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<word>[A-Za-z_]\w*)|(?P<sign>[\[\](){},:])|(?P<number>[-+.\w]+)|(?P<space>\s+)",
    re.DOTALL,
)
_WORDS = {"True": "true", "False": "false", "None": "null"}
_SIGNS = {"(": "[", ")": "]"}
_ESCAPES = "\\'\"abfnrtvxuUN0123\n"


def parse_literal(text: str) -> Any:
    """Parse a literal of strings, numbers, booleans, None, lists, tuples and dicts.

    JSON is taken too: models mix the two.

    Raises:
        Malformed: It is anything else.
    """
    try:
        return parse_json(text)
    except Malformed:
        return parse_json(_as_json(text))


def as_python(value: Any) -> str:
    """Write JSON data as a Python literal, strings in double quotes."""
    if isinstance(value, dict):
        members = (f"{as_python(key)}: {as_python(each)}" for key, each in value.items())
        return "{" + ", ".join(members) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_python, value)) + "]"
    if value is None or isinstance(value, bool):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def split_commas(text: str) -> list[str]:
    """Split at the commas that stand in no string and no bracket; nothing behind the last one."""
    parts, start, depth, at = [], 0, 0, 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        sign = token["sign"] if token else None
        if sign == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
        elif sign:
            depth += (sign in "[({") - (sign in "])}")
        at = token.end() if token else at + 1
    return [*parts, text[start:]] if text[start:].strip() else parts


def _as_json(text: str) -> str:
    out: list[str] = []
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if not token:
            raise Malformed("a value is no literal")
        at = token.end()
        if token["space"]:
            continue
        if token[0] in {"]", ")", "}"} and out[-1:] == [","]:
            out.pop()  # Python forgives a comma behind the last element.
        out.append(_token_as_json(token))
    return " ".join(out)


def _token_as_json(token: re.Match[str]) -> str:
    if token["string"]:
        return json.dumps(_string(token[0]))
    return _WORDS.get(token[0]) or _SIGNS.get(token[0]) or token[0]


def _string(text: str) -> str:
    """Read one string token; what is no escape in Python stands for itself."""
    text = re.sub(r"\\(.)", lambda m: m[0] if m[1] in _ESCAPES else f"\\{m[0]}", text, flags=re.S)
    try:
        value = ast.literal_eval(text.replace("\r", "\\r").replace("\n", "\\n"))
    except (SyntaxError, ValueError):
        raise Malformed("a string has a broken escape") from None
    return str(value)
