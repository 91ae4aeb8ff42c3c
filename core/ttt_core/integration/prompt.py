"""A prompt in parts: which of its texts are marked, attached, or what a framework found.

Frameworks' messages are translated to these parts; `resolver` says which of them are documents.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TypeAlias

from ttt_core.chat import SEAM, Message
from ttt_core.document import Document
from ttt_core.errors import ConfigError


@dataclass(frozen=True)
class Text:
    """Text of a message."""

    text: str = field(repr=False)


@dataclass(frozen=True)
class Marked:
    """Text that its author marked for caching."""

    text: str = field(repr=False)


@dataclass(frozen=True)
class Attachment:
    """A document that came as one, beside the text."""

    document: Document = field(repr=False)


@dataclass(frozen=True)
class Passage:
    """Text that a framework passed as what the question is about, such as retrieved pieces.

    Attributes:
        text: As it stands in the prompt.
        body: What of it may be read as a document; None: all.
    """

    text: str = field(repr=False)
    body: str | None = field(default=None, repr=False)

    @property
    def content(self) -> str:
        """What of it may be read as a document."""
        return self.text if self.body is None else self.body


Part: TypeAlias = Text | Marked | Attachment | Passage

ABOVE = "(the document above)"
"""Stands where a passage stood that is read ahead: the prompt around it speaks of it."""

TEMPLATE = "template"
"""A key of messages: this system message is part of a prompt's template, and the user did not write
it for the document. It is told behind the document, so that the prompts of all kinds of query
engines, chat engines and synthesizers make one document of it, and one adapter."""


Place: TypeAlias = tuple[int, int]
"""A message's number and that of one of its parts."""


class Prompt:
    """A conversation in parts: `turns[opening:rest]` is the first user turn, if it comes first."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        self._parts = [_parts(message.get("content")) for message in messages]
        roles = _roles(messages)
        self.opening = sum(1 for _ in takewhile(lambda role: role == "system", roles))
        turn = list(takewhile(lambda role: role == "user", roles[self.opening :]))
        self.rest = self.opening + len(turn)
        self.has_head = bool(turn) or self.opening == len(roles)
        self.continued = bool(roles) and roles[-1] != "user"

    @property
    def has_marks(self) -> bool:
        """Whether there are parts that their author marked or attached."""
        return any(isinstance(part, Marked | Attachment) for _, part in self.parts())

    def parts(self) -> list[tuple[Place, Part]]:
        """All parts with their places, in order."""
        return [
            ((number, index), part)
            for number, parts in enumerate(self._parts)
            for index, part in enumerate(parts)
        ]

    def role(self, number: int) -> str:
        """The role of a message, by its number."""
        return str(self._messages[number]["role"])

    def left(
        self, taken: Collection[Place] = (), instead: Mapping[Place, str] | None = None
    ) -> tuple[Message, ...]:
        """The conversation without some of its parts, and other text in place of some."""
        texts = [
            _joined(
                [
                    None if (number, index) in taken else _exchanged(part, instead, (number, index))
                    for index, part in enumerate(parts)
                ]
            )
            for number, parts in enumerate(self._parts)
        ]
        return self.with_texts(texts, {number for number, _ in taken})

    def with_texts(self, texts: Sequence[str], changed: Collection[int]) -> tuple[Message, ...]:
        """The conversation with other contents; messages that became empty are left out.

        But not a user's, unless it stands beside another one: turns go on alternating.
        """
        kept: list[Message] = []
        for number, (message, text) in enumerate(zip(self._messages, texts, strict=True)):
            neighbours = [*kept[-1:], *self._messages[number + 1 : number + 2]]
            needed = message["role"] != "system" and "user" not in _roles(neighbours)
            if text.strip() or needed or number not in changed:
                kept.append({**message, "content": text})
        return tuple(kept)

    def cut_at(self, place: Place) -> tuple[str, str]:
        """The first user turn up to a part's end, and from there."""
        number, index = place
        before = [_joined(parts) for parts in self._parts[self.opening : number]]
        behind = [_joined(parts) for parts in self._parts[number + 1 : self.rest]]
        parts = self._parts[number]
        head, tail = _joined(parts[: index + 1]), _joined([None, *parts[index + 1 :]])
        return SEAM.join([*before, head]), SEAM.join([text for text in (tail, *behind) if text])

    def behind_head(self, texts: Sequence[str], tail: str) -> tuple[Message, ...]:
        """The conversation with `tail` as its first user turn."""
        merged = {**self._messages[self.rest - 1], "content": tail}
        others = self.with_texts(texts, ())
        return (*others[: self.opening], merged, *others[self.rest :])


def _exchanged(part: Part, instead: Mapping[Place, str] | None, place: Place) -> Part:
    return Text(instead[place]) if instead and place in instead else part


def is_system(message: Message) -> bool:
    """Return whether a message is the system's."""
    return bool(message["role"] == "system")


def _roles(messages: Sequence[Message]) -> list[str]:
    return [str(message["role"]) for message in messages]


def _parts(content: object) -> list[Part]:
    if content is None or isinstance(content, str):
        return [Text(content or "")]
    parts: list[Part] = []
    for part in content if isinstance(content, list | tuple) else [content]:
        if not isinstance(part, Part):
            raise ConfigError(
                f"a message's content is text, or a list of Text, Marked, Attachment and Passage, "
                f"not {type(part).__name__}"
            )
        parts.append(part)
    return parts


def text_of(message: Message) -> str:
    """Return all text of a message, documents included."""
    return "".join(text_of_part(part) for part in _parts(message["content"]))


def text_of_part(part: Part) -> str:
    """Return a part's text; a document's with its title."""
    if not isinstance(part, Attachment):
        return part.text
    title, text = part.document.title, part.document.text
    return f"{title}{SEAM}{text}" if title else text


def _joined(parts: Sequence[Part | None]) -> str:
    """Join parts; None stands for one that was taken out: words around it must not grow together.

    Text that follows text does so without anything between, as in LangChain's messages.
    """
    text, apart = "", False
    for part in parts:
        if part is None:
            apart = True
            continue
        alone = isinstance(part, Attachment)
        piece = text_of_part(part)
        piece = piece.lstrip("\r\n") if apart and not alone else piece
        if piece.strip() or not apart:
            text += SEAM + piece if text and (apart or alone) else piece
            apart = alone
    return text
