"""Whatever is read as a document: all of the prompt is there, in its order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.integration.resolver.conversations import (
    BOOK,
    FAR,
    LONG,
    Caller,
    Content,
    contents,
    pieces,
    system,
    texts,
    user,
)
from ttt_core import Document
from ttt_core.chat import Message
from ttt_core.integration.prompt import TEMPLATE, Attachment, Marked, Part, Passage, Text
from ttt_core.integration.resolver import Mode, Resolved

WORDS = st.sampled_from(["falcon", "otter ", "Oslo", " é", "\n", "\n\n", "\r\n\r\n", "?", ":", ""])
TEXTS = st.lists(WORDS, max_size=24).map("".join)
DOCUMENTS = st.builds(
    lambda text, title: Document.of(f"x{text}", title=title),
    TEXTS,
    st.none() | st.just("birds"),
)
PARTS = st.one_of(
    TEXTS.map(Text), TEXTS.map(Marked), DOCUMENTS.map(Attachment), st.just(Marked(BOOK))
)
CONTENTS = TEXTS | st.lists(PARTS, max_size=4)
ROLES = st.sampled_from(["system", "user", "user", "assistant", "tool"])
MESSAGES = st.lists(
    st.builds(lambda role, content: {"role": role, "content": content}, ROLES, CONTENTS), max_size=5
)


def tag(messages: Sequence[Message]) -> tuple[list[Message], list[str]]:
    """Give every piece of text a character of its own at both ends; return all pieces, too."""
    pieces: list[str] = []

    def tagged(part: Part) -> Part:
        mark = chr(0x4E00 + len(pieces))
        if isinstance(part, Attachment):
            text, title = f"{mark}{part.document.text}{mark}", part.document.title
            pieces.append(text)
            return Attachment(Document.of(text, title=title))
        pieces.append(f"{mark}{part.text}{mark}")
        return type(part)(pieces[-1])

    found: list[Message] = []
    for message in messages:
        content = message["content"]
        own = [tagged(part) for part in ([Text(content)] if isinstance(content, str) else content)]
        text = isinstance(content, str)
        found.append({**message, "content": pieces[-1] if text else own})
    return found, pieces


def letters(texts: Sequence[str]) -> Counter[str]:
    return Counter("".join("".join(texts).split()))


@given(
    messages=MESSAGES,
    known=st.lists(st.integers(0, 9), max_size=3),
    mode=st.sampled_from(["marked", "auto", "off"]),
    min_tokens=st.integers(0, 4),
)
def test_nothing_is_lost(
    messages: list[Message], known: list[int], mode: Mode, min_tokens: int
) -> None:
    """Documents and messages together hold all that was given."""
    messages, pieces = tag(messages)
    caller = Caller(mode)
    if group := [Document.of(pieces[number]) for number in known if number < len(pieces)]:
        caller.registry.register(group)
    for _ in range(2):
        found = caller(*messages, min_tokens=min_tokens)
        assert not letters(pieces) - letters([*texts(found), *contents(found)])
        assert (found.source is None) == (not found.documents)
        assert found.adapt <= bool(found.documents)
        assert all(isinstance(text, str) for text in contents(found))


@given(messages=MESSAGES, min_tokens=st.integers(0, 4))
def test_order_stays(messages: list[Message], min_tokens: int) -> None:
    """What is left of each role stands in the order it stood in, and other keys stay."""
    numbered = [{**message, "number": number} for number, message in enumerate(messages)]
    caller = Caller("auto")
    for _ in range(2):
        found = caller(*numbered, min_tokens=min_tokens)
        numbers = [message["number"] for message in found.messages]
        assert numbers == sorted(set(numbers))
        assert all(each["role"] == messages[each["number"]]["role"] for each in found.messages)
        left = [number for number in range(len(messages)) if number not in numbers]
        assert all(messages[number]["role"] in ("system", "user") for number in left)


@given(
    messages=st.lists(st.builds(lambda r, t: {"role": r, "content": t}, ROLES, TEXTS), max_size=5),
    min_tokens=st.integers(0, 4),
    mode=st.sampled_from(["marked", "off"]),
)
def test_text_without_marks_is_left_alone(
    messages: list[Message], min_tokens: int, mode: Mode
) -> None:
    caller = Caller(mode)
    for _ in range(2):
        found = caller(*messages, min_tokens=min_tokens)
        assert found == Resolved(messages=tuple(messages), opening=found.opening)


@given(text=TEXTS, tail=TEXTS, min_tokens=st.integers(0, 4))
def test_first_sight_is_never_trained_on(text: str, tail: str, min_tokens: int) -> None:
    caller = Caller("auto")
    assert not caller(system(text), user(f"{text}\n\n{tail}"), min_tokens=min_tokens).adapt


SHOWN = st.one_of(
    TEXTS.map(Text),
    TEXTS.map(Marked),
    TEXTS.map(Passage),
    st.sampled_from([Passage(LONG.text), Passage(pieces(LONG, 1, 2)), Passage(FAR.text)]),
    DOCUMENTS.map(Attachment),
)
WITH_PASSAGES = st.lists(
    st.builds(
        lambda role, content, key: {"role": role, "content": content, **key},
        ROLES,
        TEXTS | st.lists(SHOWN, max_size=3),
        st.sampled_from([{}, {TEMPLATE: True}, {TEMPLATE: False}]),
    ),
    max_size=5,
)


@given(
    messages=WITH_PASSAGES,
    own=st.sampled_from([(), (LONG,), (FAR, LONG)]),
    known=st.booleans(),
    mode=st.sampled_from(["marked", "auto", "off"]),
    min_tokens=st.integers(0, 4),
)
def test_with_passages_too_nothing_is_lost_and_all_is_text(
    messages: list[Message],
    own: tuple[Document, ...],
    known: bool,
    mode: Mode,
    min_tokens: int,
) -> None:
    messages, pieces = tag(messages)
    caller = Caller(mode)
    if known:
        caller.registry.register([LONG])
    for _ in range(2):
        found = caller(*messages, own=own, min_tokens=min_tokens)
        assert all(isinstance(text, str) for text in contents(found))
        assert not any(TEMPLATE in message for message in found.messages)
        assert (found.source is None) == (not found.documents)
        assert found.adapt <= bool(found.documents)
        assert not any("falcon0x0" in reason for reason in found.reasons)
        roles = [message["role"] for message in found.messages]
        assert set(roles[: found.opening]) <= {"system", "user"}
        assert "user" not in roles[: max(found.opening - 1, 0)]
        assert roles[found.opening : found.opening + 1] != ["system"]
        assert not {piece[0] for piece in pieces} - set("".join([*texts(found), *contents(found)]))


@given(messages=MESSAGES, mode=st.sampled_from(["marked", "auto", "off"]))
def test_passages_that_are_no_documents_are_as_text(messages: list[Message], mode: Mode) -> None:
    """Short ones change nothing, unless what they say is attached as well."""
    parts = [part for message in messages for part in _listed(message["content"])]
    assume(not any(isinstance(part, Attachment) for part in parts))
    plain, passing = Caller(mode), Caller(mode)
    for _ in range(2):
        as_passages = [
            {**message, "content": _as_passage(message["content"])} for message in messages
        ]
        found = replace(passing(*as_passages, min_tokens=1000), reasons=())
        assert found == replace(plain(*messages, min_tokens=1000), reasons=())


def _listed(content: Content) -> list[Part]:
    return [] if isinstance(content, str) else content


def _as_passage(content: Content) -> Content:
    return [Passage(content)] if isinstance(content, str) else content
