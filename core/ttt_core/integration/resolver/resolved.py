"""What was found in a request: the documents to read, and the conversation that is left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ttt_core.chat import Message
from ttt_core.document import Document

DocumentsFrom = Literal["call", "content", "instance", "passage", "auto"]


@dataclass(frozen=True)
class Resolved:
    """What to read, and the conversation that is left.

    Attributes:
        documents: To be read together, ahead of the conversation; often none.
        messages: All contents are text. Messages that only held documents are gone.
        source: Who said that these are the documents; `auto`: nobody did.
        adapt: Whether to adapt to them. If not, their keys and values are worth keeping anyway.
        reasons: For the caller, in plain sentences; nothing of the texts.
        opening: How many of the first messages are instructions.
        fallback: What to do instead where this does not fit the window; None: nothing.
    """

    documents: tuple[Document, ...] = field(default=(), repr=False)
    messages: tuple[Message, ...] = field(default=(), repr=False)
    source: DocumentsFrom | None = None
    adapt: bool = False
    reasons: tuple[str, ...] = ()
    opening: int = 0
    fallback: Resolved | None = None


NOTHING = Resolved()
"""No documents, and no messages either."""
