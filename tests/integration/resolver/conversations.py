"""What the resolver's tests say to it, and what of its findings they look at."""

from __future__ import annotations

from typing import Any

from ttt_core import Document, Namespace
from ttt_core.chat import Message
from ttt_core.integration.prompt import TEMPLATE, Part, Passage, Text
from ttt_core.integration.registry import DocumentRegistry
from ttt_core.integration.resolver import Mode, Resolved, resolve

MIN = 8
BOOK = "The amber falcon nests in Oslo, and the silver otter in Lima."
OTHER = "The copper heron winters in Quito, and the golden lynx in Bern."
QUESTION = "Where does the falcon nest?"
INSTEAD = Document.of("Another text that has nothing to do with it.")
ATTACHED = Document.of(OTHER, title="birds.txt")

Content = str | list[Part]


def system(content: Content) -> Message:
    return {"role": "system", "content": content}


def user(content: Content) -> Message:
    return {"role": "user", "content": content}


def assistant(content: Content) -> Message:
    return {"role": "assistant", "content": content}


def tool(content: Content) -> Message:
    return {"role": "tool", "content": content, "tool_call_id": "abcdefghi"}


class Caller:
    """Resolves one request after the other, as an engine's callers do."""

    def __init__(self, mode: Mode = "marked") -> None:
        self.registry = DocumentRegistry(Namespace())
        self.mode: Mode = mode

    def __call__(self, *messages: Message, **options: Any) -> Resolved:
        given = {"call": None, "own": (), "mode": self.mode, "min_tokens": MIN, **options}
        return resolve(
            messages, count_tokens=lambda text: len(text.split()), registry=self.registry, **given
        )


def contents(resolved: Resolved) -> list[str]:
    return [message["content"] for message in resolved.messages]


def texts(resolved: Resolved) -> list[str]:
    return [document.text for document in resolved.documents]


def prose(name: str, count: int = 12) -> str:
    """Paragraphs that no other name has."""
    return "\n\n".join(
        " ".join(f"{name}{line}x{word}" for word in range(8)) for line in range(count)
    )


LONG, FAR = Document.of(prose("falcon")), Document.of(prose("otter"))
RULES = "Answer from the documents only."


def pieces(document: Document, *numbers: int) -> str:
    parts = document.text.split("\n\n")
    return "\n\n".join(parts[number] for number in numbers)


def asked(passage: str, question: str = QUESTION, *, body: str | None = None) -> Message:
    """What a question answering prompt looks like."""
    return user([Text("Documents:\n"), Passage(passage, body), Text(f"\nQuestion: {question}\n")])


def asked_text(passage: str, question: str = QUESTION) -> str:
    return f"Documents:\n{passage}\nQuestion: {question}\n"


def template(content: Content) -> Message:
    return {"role": "system", "content": content, TEMPLATE: True}
