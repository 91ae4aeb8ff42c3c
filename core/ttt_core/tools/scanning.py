"""Find the end of a JSON value, or of a bracketed piece of Python, that arrives in pieces."""

from __future__ import annotations

import json
from typing import Any, NoReturn

_PAIRS = {"{": "}", "[": "]", "(": ")"}
_SPACE = " \t\n\r"


class Malformed(Exception):
    """The text is not what it has to be; the message says why, without the text."""


class Scanner:
    """Follows brackets and strings, and knows after each character whether the value is complete.

    Looks no closer than that finding the end needs: what it accepts may still be no valid value.
    Characters that JSON cannot hold outside strings are refused at once, so that a broken value
    does not swallow the closing tag behind it.

    Attributes:
        done: Whether the value is complete.
    """

    def __init__(self, *, quotes: str = '"', brackets: str = "{[", signs: str = ",:+-._") -> None:
        self.done = False
        self._quotes = quotes
        self._opening = {one: _PAIRS[one] for one in brackets}
        self._closing = set(self._opening.values())
        self._signs = signs
        self._stack: list[str] = []
        self._quote = ""
        self._escaped = False
        self._scalar = False

    def read(self, text: str, at: int = 0) -> int:
        """Return how many of the characters from `at` on belong to the value.

        Raises:
            Malformed: The first of them can be no part of it.
        """
        for index in range(len(text) - at):
            character = text[at + index]
            if not self._quote and self._ends_scalar(character):
                self.done = True
                return index
            try:
                self._step(character)
            except Malformed:
                if index:  # What is right so far counts, however the text was cut into pieces.
                    return index
                raise
            if self.done:
                return index + 1
        return len(text) - at

    def end(self) -> None:
        """Say that no more text follows.

        Raises:
            Malformed: The value is not complete.
        """
        if self._scalar and not self._stack:
            self.done = True
        if not self.done:
            raise Malformed("the answer ended before the call did")

    def _step(self, character: str) -> None:
        if self._quote:
            self._inside_string(character)
        else:
            self._outside_string(character)

    def _inside_string(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == self._quote:
            self._quote = ""
            self.done = not self._stack

    def _outside_string(self, character: str) -> None:
        if character in self._quotes:
            self._quote = character
        elif character in self._opening:
            self._stack.append(self._opening[character])
        elif character in self._closing:
            if self._stack[-1:] != [character]:  # Unchanged, so that it is refused again.
                raise Malformed("a bracket is closed that is not open")
            self._stack.pop()
            self.done = not self._stack
        elif not (character.isalnum() or character in self._signs or character.isspace()):
            raise Malformed(f"the character {character!r} cannot stand there")
        else:
            self._scalar = True

    def _ends_scalar(self, character: str) -> bool:
        ends = character in ",:" or character in self._closing or character.isspace()
        return self._scalar and not self._stack and ends


def parse_json(text: str) -> Any:
    """Parse JSON; line breaks inside strings are forgiven, numbers that JSON has not are not.

    Raises:
        Malformed: It is no JSON, or holds text that cannot be encoded.
    """
    try:
        value = json.loads(text, strict=False, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise Malformed("the JSON is nested too deeply") from None
    except UnicodeEncodeError:
        raise Malformed("a string holds half of a surrogate pair") from None
    except json.JSONDecodeError as error:
        raise Malformed(f"no valid JSON: {error.msg} at character {error.pos}") from None
    except ValueError:  # An integer of thousands of digits, or what is infinite as a float.
        raise Malformed("a number is too large") from None
    return value


def parse_object(text: str) -> dict[str, Any]:
    """Parse a JSON object; nothing and `null` are an empty one.

    Raises:
        Malformed: It is something else.
    """
    value = parse_json(text) if text.strip() else {}
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"the arguments are a JSON {type(value).__name__}, not an object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise Malformed(f"{name} is no JSON number")
