"""One request's search for documents: what it goes by, and what it asks about a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ttt_core.chat import SEAM, Message
from ttt_core.document import Document
from ttt_core.errors import DocumentError
from ttt_core.integration.prompt import Passage, Place, Prompt
from ttt_core.integration.registry import DocumentRegistry, Found

Mode = Literal["marked", "auto", "off"]

ASKING = ("system", "user")
"""Roles of who brings documents; what tools return is new with every question."""

_LONG_TOKEN = 16
"""Characters: hardly a text has longer tokens on average."""


@dataclass(frozen=True, repr=False)
class Head:
    """What could be read ahead, what it would stand behind, and the conversation behind it."""

    text: str
    before: str
    messages: tuple[Message, ...]


@dataclass(kw_only=True, repr=False)
class Search:
    """One request.

    Attributes:
        prompt: The conversation.
        own: The instance's documents.
        mode: See `resolve`, as for the next three.
        min_tokens: What is shorter stays where it is.
        count_tokens: The number of tokens of a text.
        registry: What was named and seen before.
        reasons: What was said along the way.
        waits: Whether a head was marked that is read when it comes again; no other one is, now.
    """

    prompt: Prompt
    own: tuple[Document, ...]
    mode: Mode
    min_tokens: int
    count_tokens: Callable[[str], int]
    registry: DocumentRegistry
    reasons: list[str] = field(default_factory=list)
    waits: bool = False

    def passages(self) -> dict[Place, Passage]:
        """The passages of who asks; none if only call and instance are to bring documents."""
        if self.mode == "off":
            return {}
        return {
            place: part
            for place, part in self.prompt.parts()
            if isinstance(part, Passage) and self.prompt.role(place[0]) in ASKING
        }

    def texts(self) -> list[str]:
        """The contents of all messages, as text."""
        return [str(message["content"]) for message in self.prompt.left()]

    def user_head(self, texts: Sequence[str], head: str, tail: str) -> Head:
        """What of the first user turn could be read ahead; the turn is given in its two parts."""
        system = SEAM.join(texts[: self.prompt.opening])
        return Head(head, system, self.prompt.behind_head(texts, tail))

    def is_long(self, text: str) -> bool:
        """Whether a text has enough tokens; of a very long one, only its beginning is counted."""
        start = text[: self.min_tokens * _LONG_TOKEN]
        enough = len(start) < len(text) and self.count_tokens(start) > self.min_tokens
        return enough or self.count_tokens(text) >= self.min_tokens

    def seen(self, heads: Iterable[Head]) -> list[Head]:
        """Which heads were seen before, each behind the same text: keys and values depend on it."""
        # By what is noted of them: one that is found twice is not seen twice.
        sights = {f"{head.before}\0{normal(head.text)}": head for head in heads}
        continued = self.prompt.continued
        return [
            head for sight, head in sights.items() if self.registry.seen(sight, continued=continued)
        ]


def normal(text: str) -> str:
    """Normalise text as documents are; empty, if it cannot be one."""
    try:
        return Document.of(text).text
    except DocumentError:
        return ""


def is_readable(text: str) -> bool:
    """Whether a text can be a document."""
    return bool(normal(text))


def without(text: str, found: Found) -> str:
    """Cut documents out of a text; what stood between and around them stays."""
    ends = [0, *(end for _, end in found.spans)]
    starts = [*(start for start, _ in found.spans), len(text)]
    pieces = (text[end:start].strip() for end, start in zip(ends, starts, strict=True))
    return SEAM.join(piece for piece in pieces if piece)
