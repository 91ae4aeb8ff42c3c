"""Which text of a prompt is a document: who wins, what is never trained on, and nothing is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ttt_core import ConfigError, Document, Namespace
from ttt_core.chat import Message
from ttt_core.integration import resolver as module
from ttt_core.integration.prompt import (
    ABOVE,
    TEMPLATE,
    Attachment,
    Marked,
    Part,
    Passage,
    Text,
)
from ttt_core.integration.registry import DocumentRegistry
from ttt_core.integration.resolver import NOTHING, Mode, Resolved, resolve

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


@pytest.fixture
def marked() -> Caller:
    return Caller()


@pytest.fixture
def auto() -> Caller:
    return Caller("auto")


def contents(resolved: Resolved) -> list[str]:
    return [message["content"] for message in resolved.messages]


def texts(resolved: Resolved) -> list[str]:
    return [document.text for document in resolved.documents]


# Who wins


def test_nothing_is_nothing() -> None:
    assert Resolved() == NOTHING
    assert not NOTHING.adapt


def test_plain_text_has_no_document(marked: Caller) -> None:
    messages = (system(f"{BOOK}"), user(f"{BOOK}\n\n{QUESTION}"))
    assert marked(*messages) == Resolved(messages=messages, opening=1)


def test_the_call_wins(marked: Caller) -> None:
    messages = [user([Marked(BOOK), Attachment(ATTACHED), Text(QUESTION)])]
    found = marked(*messages, call=(INSTEAD,), own=(Document.of(BOOK),))
    assert (found.documents, found.source, found.adapt) == ((INSTEAD,), "call", True)
    assert contents(found) == [f"{BOOK}\n\nbirds.txt\n\n{OTHER}\n\n{QUESTION}"]
    assert found.reasons == (module.CALL_NAMES_OTHERS, module.INSTEAD_OF_OWN)


def test_the_call_with_the_instances_own_replaces_nothing(marked: Caller) -> None:
    assert marked(user(QUESTION), call=(INSTEAD,), own=(INSTEAD,)).reasons == ()


def test_content_wins_over_the_instance(marked: Caller) -> None:
    found = marked(user([Marked(BOOK), Text(QUESTION)]), own=(INSTEAD,))
    assert (texts(found), found.source) == ([BOOK], "content")
    assert found.reasons == (module.INSTEAD_OF_OWN,)


def test_the_instance_wins_over_the_prompt(auto: Caller) -> None:
    for _ in range(2):
        found = auto(user(f"{BOOK}\n\n{QUESTION}"), own=(INSTEAD,))
        assert (found.documents, found.source, found.adapt) == ((INSTEAD,), "instance", True)
        assert contents(found) == [f"{BOOK}\n\n{QUESTION}"]


def test_what_is_read_about_an_instance_does_not_depend_on_what_was_seen(marked: Caller) -> None:
    message = user([Text("See: "), Marked(BOOK), Text(QUESTION)])
    assert marked(message, own=(INSTEAD,)) == marked(message, own=(INSTEAD,))
    assert marked(message, own=(INSTEAD,)).reasons == (module.BEHIND_TEXT,)


@pytest.mark.parametrize("own", [(), (INSTEAD,)])
def test_off_leaves_contents_alone(own: tuple[Document, ...]) -> None:
    parts: list[Part] = [Text("a"), Marked(BOOK), Attachment(ATTACHED), Text(QUESTION)]
    found = Caller("off")(user(parts), own=own)
    assert contents(found) == [f"a{BOOK}\n\nbirds.txt\n\n{OTHER}\n\n{QUESTION}"]
    assert (found.documents, found.adapt) == (own, bool(own))
    assert Caller("off")(user(QUESTION), call=(INSTEAD,), own=own).documents == (INSTEAD,)


# Attachments


@pytest.mark.parametrize("role", ["system", "user"])
def test_attachments_go_to_the_head(marked: Caller, role: str) -> None:
    first = {"role": role, "content": [Text("a"), Attachment(ATTACHED), Text("b")], "name": "n"}
    found = marked(first, user(QUESTION))
    assert found.documents == (ATTACHED,)
    assert found.messages == ({"role": role, "content": "a\n\nb", "name": "n"}, user(QUESTION))


def test_attachments_of_later_turns_too_in_their_order(marked: Caller) -> None:
    again: Part = Attachment(INSTEAD)
    found = marked(
        user([again, Text(QUESTION)]),
        assistant("Oslo"),
        user([Attachment(ATTACHED), Text("And the heron?"), again]),
    )
    assert found.documents == (INSTEAD, ATTACHED)
    assert contents(found) == [QUESTION, "Oslo", "And the heron?"]


@pytest.mark.parametrize("make", [tool, assistant])
@pytest.mark.parametrize("part", [Attachment(Document.of(BOOK)), Marked(BOOK)])
def test_answers_and_tools_bring_no_documents(marked: Caller, make: Any, part: Part) -> None:
    found = marked(user(QUESTION), assistant(""), make([Text("Found:"), part]))
    assert found.documents == ()
    assert BOOK in contents(found)[2]
    assert found.reasons == (module.IN_ANSWERS,)


def test_a_short_attachment_is_a_document(marked: Caller) -> None:
    assert marked(user([Attachment(Document.of("a")), Text(QUESTION)])).adapt


def test_messages_of_documents_alone_are_gone(marked: Caller) -> None:
    """But turns go on alternating, and somebody has asked."""
    document = Attachment(INSTEAD)
    assert contents(marked(system([document]), user([document]), user(QUESTION))) == [QUESTION]
    assert contents(marked(user(QUESTION), user([document]))) == [QUESTION]
    assert contents(marked(user([document]), user([document]))) == [""]
    later = marked(user(QUESTION), assistant("Oslo"), user([document]))
    assert contents(later) == [QUESTION, "Oslo", ""]


def test_nothing_is_read_ahead_of_an_answer(marked: Caller, auto: Caller) -> None:
    for role in (marked, auto):
        found = role(assistant("Hello"), user([Attachment(INSTEAD), Marked(BOOK)]))
        assert found.documents == ()
        assert contents(found) == ["Hello", f"{INSTEAD.text}\n\n{BOOK}"]
        assert found.reasons == (module.NO_HEAD,)


# Marked text


@pytest.mark.parametrize("before", [[], [Text("\n ")], [Attachment(INSTEAD)]])
def test_marked_text_that_stands_first_is_the_document(marked: Caller, before: list[Part]) -> None:
    found = marked(system("Be brief."), user([*before, Marked(BOOK), Text(f"\n\n{QUESTION}")]))
    assert texts(found)[-1] == BOOK
    assert (found.source, found.adapt) == ("content", True)
    assert [text.strip() for text in contents(found)] == ["Be brief.", QUESTION]


def test_marked_system_text_is_the_document_and_the_rest_stays(marked: Caller) -> None:
    found = marked(system([Text("Be brief."), Marked(BOOK)]), user(QUESTION))
    assert (texts(found), contents(found)) == ([BOOK], ["Be brief.", QUESTION])
    found = marked(system([Marked(BOOK)]), user(QUESTION))
    assert (texts(found), contents(found)) == ([BOOK], [QUESTION])


def test_several_marked_texts_are_read_together(marked: Caller) -> None:
    found = marked(system([Marked(OTHER)]), user([Marked(BOOK), Text(QUESTION)]))
    assert (texts(found), contents(found)) == ([OTHER, BOOK], [QUESTION])


def test_short_marked_text_stays(marked: Caller) -> None:
    found = marked(user([Marked("Be brief."), Text(QUESTION)]))
    assert (found.documents, contents(found)) == ((), [f"Be brief.{QUESTION}"])
    assert "fewer than 8 tokens" in found.reasons[0]


def test_marked_text_that_is_no_document_stays(marked: Caller) -> None:
    found = marked(user([Marked(f"\0{BOOK}"), Marked("\n"), Text(QUESTION)]))
    assert (found.documents, contents(found)) == ((), [f"\0{BOOK}\n{QUESTION}"])
    assert found.reasons == (module.UNREADABLE,)


def test_long_marked_text_is_not_counted_to_its_end(marked: Caller) -> None:
    counted: list[int] = []

    def count(text: str) -> int:
        counted.append(len(text))
        return len(text.split())

    message = user([Marked(f"{BOOK}\n" * 1000), Text(QUESTION)])
    found = resolve([message], call=None, own=(), mode="marked", min_tokens=MIN,
                    count_tokens=count, registry=marked.registry)  # fmt: skip
    assert found.adapt
    assert max(counted) < 1000


def test_marked_text_of_later_turns_stays(marked: Caller) -> None:
    later = user([Marked(f"{OTHER} And there?")])
    found = marked(user([Marked(BOOK), Text(QUESTION)]), assistant("Oslo"), later)
    assert texts(found) == [BOOK]
    assert contents(found)[2] == f"{OTHER} And there?"
    assert found.reasons == (module.LATER,)


def test_text_before_the_mark_is_read_along_when_it_comes_again(marked: Caller) -> None:
    def message(question: str) -> Message:
        return user([Text("Read this:\n"), Marked(BOOK), Text(f"\n\n{question}")])

    first = marked(system("Be brief."), message(QUESTION))
    assert (first.documents, first.source, first.adapt) == ((), None, False)
    assert contents(first) == ["Be brief.", f"Read this:\n{BOOK}\n\n{QUESTION}"]
    assert first.reasons == (module.FIRST_MARKED,)

    again = marked(system("Be brief."), message("And the otter?"))
    assert (texts(again), again.source) == ([f"Read this:\n{BOOK}"], "content")
    assert (contents(again), again.adapt) == (["Be brief.", "And the otter?"], True)


def test_of_several_marks_the_last_that_was_there_before(marked: Caller) -> None:
    """As Anthropic's servers do: agents mark the end of what they sent, over and over."""
    marked(user([Text("a"), Marked(BOOK), Marked(f"{OTHER} 1")]))
    found = marked(user([Text("a"), Marked(BOOK), Marked(f"{OTHER} 2")]))
    assert (texts(found), contents(found)) == ([f"a{BOOK}"], [f"{OTHER} 2"])
    found = marked(user([Text("a"), Marked(BOOK), Marked(f"{OTHER} 2")]))
    assert (texts(found), contents(found)) == ([f"a{BOOK}{OTHER} 2"], [""])


def test_a_question_before_the_mark_is_never_read_ahead(marked: Caller, auto: Caller) -> None:
    for caller in (marked, auto):
        for number in range(4):
            message = user([Text(f"Question {number}: where? "), Marked(BOOK)])
            assert not caller(message).documents


def test_marks_behind_text_stay_beside_other_documents(marked: Caller) -> None:
    found = marked(user([Attachment(INSTEAD), Text(QUESTION), Marked(BOOK)]))
    assert (texts(found), contents(found)) == ([INSTEAD.text], [f"{QUESTION}{BOOK}"])
    assert found.reasons == (module.BEHIND_TEXT,)


def test_text_before_the_mark_may_be_a_message_of_its_own(marked: Caller) -> None:
    messages = [user("Read this."), user([Marked(BOOK), Text(QUESTION)]), user("Be brief.")]
    marked(*messages)
    found = marked(*messages)
    assert texts(found) == [f"Read this.\n\n{BOOK}"]
    assert contents(found) == [f"{QUESTION}\n\nBe brief."]


# Known documents


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_known_document_is_found_wherever_it_stands(auto: Caller, ends: str) -> None:
    document = Document.of(f"{BOOK}\n\n{OTHER}", title="birds")
    auto.registry.register([document])
    prompt = f"{QUESTION}\n\nContext:\n{document.text}\n\nAnswer:".replace("\n", ends)
    found = auto(system("Be brief."), user(prompt))
    assert (found.documents, found.source, found.adapt) == ((document,), "auto", True)
    assert contents(found) == ["Be brief.", f"{QUESTION}\n\nContext:\n\nAnswer:"]
    assert found.reasons == (module.KNOWN,)


def test_a_known_document_in_a_system_message_or_a_later_turn(auto: Caller) -> None:
    auto.registry.register([Document.of(BOOK)])
    found = auto(system(f"Be brief.\n\n{BOOK}"), user(QUESTION))
    assert (texts(found), contents(found)) == ([BOOK], ["Be brief.", QUESTION])
    found = auto(system(BOOK), user(QUESTION))
    assert (texts(found), contents(found)) == ([BOOK], [QUESTION])
    found = auto(user("Hello"), assistant("Hello"), user(f"{BOOK}\n\n{QUESTION}"))
    assert (texts(found), contents(found)) == ([BOOK], ["Hello", "Hello", QUESTION])


def test_known_groups_are_read_together(auto: Caller) -> None:
    group = (Document.of(BOOK, title="a"), Document.of(OTHER, title="b"))
    auto.registry.register(group)
    found = auto(user(f"[1]\n{BOOK}\n\n[2]\n{OTHER}\n\n{QUESTION}"))
    assert found.documents == group
    assert contents(found) == [f"[1]\n\n[2]\n\n{QUESTION}"]


def test_of_known_documents_the_longest(auto: Caller) -> None:
    for text in (BOOK, f"{OTHER}\n{BOOK}"):
        auto.registry.register([Document.of(text)])
    found = auto(system(BOOK), user(f"{OTHER}\n{BOOK}\n\n{QUESTION}"))
    assert (texts(found), contents(found)) == ([f"{OTHER}\n{BOOK}"], [BOOK, QUESTION])


@pytest.mark.parametrize("make", [tool, assistant])
def test_known_documents_in_answers_stay(auto: Caller, make: Any) -> None:
    auto.registry.register([Document.of(BOOK)])
    assert auto(user(QUESTION), make(BOOK)).documents == ()


def test_known_documents_are_for_auto_only(marked: Caller) -> None:
    marked.registry.register([Document.of(BOOK)])
    assert marked(user(f"{BOOK}\n\n{QUESTION}")).documents == ()


# Heads


HEADS = [
    lambda text, question: [user(f"{text}\n\n{question}")],
    lambda text, question: [user(f"{text}\n\n{question}\n")],
    lambda text, question: [user(f"{text}\r\n \r\nQuestion: {question}\r\nHelpful Answer:")],
    lambda text, question: [user(f"{text}\n\nQuestion: {question}\n\nAnswer:")],
    lambda text, question: [user(text), user(question)],
    lambda text, question: [user(text), user(f"{question}\n\nThink before you answer.")],
    lambda text, question: [system(text), user(question)],
    lambda text, question: [system("Be brief."), system(text), user(question)],
    lambda text, question: [system("Be brief."), user(f"{text}\n\n{question}")],
]
"""Where prompts have their context."""


@pytest.mark.parametrize("make", HEADS)
def test_a_head_is_read_and_adapted_to_when_it_comes_again(auto: Caller, make: Any) -> None:
    first = auto(*make(BOOK, QUESTION))
    assert texts(first)[0].startswith(BOOK)
    assert (first.source, first.adapt) == ("auto", False)
    assert first.reasons == (module.FIRST_HEAD,)

    again = auto(*make(BOOK, "And the otter?"))
    assert (texts(again), again.source, again.adapt) == ([BOOK], "auto", True)
    assert again.reasons == (module.AGAIN_HEAD,)
    assert "And the otter?" in contents(again)[-1]
    assert not any(BOOK in text for text in contents(again))


@pytest.mark.parametrize("make", HEADS)
def test_snippets_that_change_are_never_trained_on(auto: Caller, make: Any) -> None:
    for number in range(5):
        assert not auto(*make(f"{BOOK}\nSnippet {number}", f"Question {number}?")).adapt


def test_a_document_behind_its_question_is_never_trained_on(auto: Caller) -> None:
    for number in range(5):
        found = auto(user(f"Question {number}: where?\n\n{BOOK}\n\nThink before you answer."))
        assert not found.adapt


def test_a_system_message_that_changes_is_never_trained_on(auto: Caller) -> None:
    """Keys and values of the head depend on it."""
    for number in range(5):
        assert not auto(system(f"It is {number} o'clock."), user(f"{BOOK}\n\n{QUESTION}")).adapt


def test_steps_of_one_question_are_no_second_sight(auto: Caller) -> None:
    """An agent sends the same snippets again with every result of a tool."""
    turns: list[Message] = [user(f"{BOOK}\n\n{QUESTION}")]
    first = auto(*turns)
    for number in range(3):
        turns += [assistant(""), tool(f"result {number}")]
        step = auto(*turns)
        assert (step.documents, step.adapt) == (first.documents, False)
    assert auto(*turns, user("And the otter?")).adapt


def test_a_conversation_that_goes_on_is_worth_it(auto: Caller) -> None:
    opening = user(f"{BOOK}\n\n{QUESTION}")
    auto(opening)
    found = auto(opening, assistant("Oslo"), user("And the otter?"))
    assert (texts(found), found.adapt) == ([BOOK], True)
    assert contents(found) == [QUESTION, "Oslo", "And the otter?"]


@pytest.mark.parametrize("longer_first", [True, False])
def test_of_two_heads_the_longer(auto: Caller, longer_first: bool) -> None:
    long, short = f"{BOOK} {BOOK}", OTHER
    instructions, context = (long, short) if longer_first else (short, long)
    for _ in range(2):
        assert texts(auto(system(instructions), user(f"{context}\n\n{QUESTION}"))) == [long]


def test_a_stable_system_message_beats_longer_snippets(auto: Caller) -> None:
    for number in range(2):
        found = auto(system(BOOK), user(f"{OTHER} {OTHER} {number}\n\n{QUESTION}"))
    assert (texts(found), found.adapt) == ([BOOK], True)
    assert contents(found) == [f"{OTHER} {OTHER} 1\n\n{QUESTION}"]


@pytest.mark.parametrize(
    "messages",
    [
        [user(QUESTION)],
        [user(f"Hello.\n\n{QUESTION}")],
        [system("Be brief."), user(BOOK)],
        [system("Be brief."), user(f"a\0b {BOOK}\n\n{QUESTION}")],
        [user(QUESTION), assistant(BOOK), user(f"{BOOK}\n\n{QUESTION}")],
    ],
)
def test_short_heads_stay(auto: Caller, messages: Sequence[Message]) -> None:
    for _ in range(2):
        found = auto(*messages)
        assert (found.documents, found.messages) == ((), tuple(messages))
        assert "8 tokens" in found.reasons[0]


def test_a_mark_that_waits_is_not_read_otherwise(auto: Caller) -> None:
    message = user([Text("Read this: "), Marked(BOOK), Text(f"\n\n{QUESTION}")])
    assert auto(message).reasons == (module.FIRST_MARKED,)
    assert texts(auto(message)) == [f"Read this: {BOOK}"]


# All of it


def test_unknown_modes_are_errors(marked: Caller) -> None:
    with pytest.raises(ConfigError, match="'marked', 'auto' or 'off', found 'on'"):
        marked(user(QUESTION), mode="on")


@pytest.mark.parametrize("content", [3, [BOOK], [{"type": "text", "text": BOOK}]])
def test_unknown_contents_are_errors_that_tell_nothing(marked: Caller, content: Any) -> None:
    with pytest.raises(ConfigError, match="Text, Marked, Attachment and Passage") as caught:
        marked({"role": "user", "content": content})
    assert "falcon" not in str(caught.value)


def test_nothing_of_the_text_is_shown() -> None:
    parts = [Text(BOOK), Marked(BOOK), Attachment(Document.of(BOOK))]
    found = Caller("off")(user([Marked(BOOK)]), own=(Document.of(BOOK),))
    assert "falcon" not in repr((parts, found))


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


# Passages


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


def test_a_passage_that_holds_a_known_document_is_read_instead(marked: Caller) -> None:
    marked.registry.register([LONG])
    found = marked(asked(LONG.text.replace(" ", "\n")))
    assert (found.documents, found.source, found.adapt) == ((LONG,), "passage", True)
    assert contents(found) == [asked_text(ABOVE)]
    assert found.reasons == (module.KNOWN_PASSAGE,)


def test_what_else_a_passage_holds_stays(marked: Caller) -> None:
    marked.registry.register([LONG])
    found = marked(asked(f"{LONG.text}\n\nOther words."))
    assert contents(found) == [asked_text(f"{ABOVE}\n\nOther words.")]


def test_a_known_document_amid_other_text_is_read_instead_of_it(marked: Caller) -> None:
    marked.registry.register([LONG])
    found = marked(asked(f"{FAR.text}\n\nFound: {LONG.text} (end)"))
    assert (found.documents, found.reasons) == ((LONG,), (module.KNOWN_PASSAGE,))
    assert contents(found) == [asked_text(f"{ABOVE}\n\n{FAR.text}\n\nFound:\n\n(end)")]


@given(numbers=st.lists(st.integers(0, 11), min_size=1, max_size=8, unique=True))
def test_pieces_stay_word_for_word_beside_their_document(numbers: list[int]) -> None:
    caller = Caller()
    caller.registry.register([LONG])
    passage = pieces(LONG, *numbers)
    found = caller(asked(passage))
    assert (found.documents, found.source, found.adapt) == ((LONG,), "passage", True)
    assert contents(found) == [asked_text(passage)]
    assert found.reasons == (module.KNOWN_PIECES,)


def test_noted_pieces_are_replaced(marked: Caller) -> None:
    shown = [f"Title: birds\n{pieces(LONG, number)}" for number in (1, 4)]
    marked.registry.note(marked.registry.register([LONG]), shown)
    found = marked(asked("\n\n".join(shown)))
    assert (found.documents, contents(found)) == ((LONG,), [asked_text(ABOVE)])


def test_pieces_of_other_documents_among_noted_ones_stay(marked: Caller) -> None:
    shown = [pieces(LONG, number) for number in range(9)]
    marked.registry.note(marked.registry.register([LONG]), shown)
    other = pieces(FAR, 0)
    found = marked(asked("\n\n".join([*shown, other])))
    assert contents(found) == [asked_text(f"{ABOVE}\n\n{other}")]


@pytest.mark.parametrize("which", ["call", "own"])
def test_passages_of_the_documents_that_are_read_are_left_out(marked: Caller, which: str) -> None:
    found = marked(asked(f"{LONG.text}\n\nOther words."), **{which: (LONG,)})
    assert found.documents == (LONG,)
    assert contents(found) == [asked_text(f"{ABOVE}\n\nOther words.")]
    assert found.reasons == (module.OWN_PASSAGE,)
    for passage in (pieces(LONG, 1, 2), FAR.text, "Other words."):
        found = marked(asked(passage), **{which: (LONG,)})
        assert (found.documents, contents(found)) == ((LONG,), [asked_text(passage)])
        is_piece = passage in LONG.text or passage == pieces(LONG, 1, 2)
        assert found.reasons == ((module.OWN_PIECES,) if is_piece else ())


def test_a_call_without_documents_leaves_passages_alone(marked: Caller) -> None:
    marked.registry.register([LONG])
    for _ in range(2):
        found = marked(asked(LONG.text), call=(), own=(LONG,))
        assert (found.documents, contents(found)) == ((), [asked_text(LONG.text)])


def test_attachments_win_over_passages(marked: Caller) -> None:
    marked.registry.register([LONG])
    found = marked(user([Attachment(FAR), Passage(LONG.text), Text(QUESTION)]))
    assert (found.documents, found.source) == ((FAR,), "content")
    assert LONG.text in contents(found)[0]
    found = marked(user([Attachment(LONG), Passage(LONG.text), Text(QUESTION)]))
    assert (found.documents, found.source) == ((LONG,), "content")
    assert contents(found) == [f"{ABOVE}{QUESTION}"]


@pytest.mark.parametrize("mode", ["marked", "auto"])
def test_an_unknown_passage_is_read_at_first_and_adapted_to_at_second_sight(mode: Mode) -> None:
    caller = Caller(mode)
    first = caller(system("Be brief."), asked(BOOK))
    assert (texts(first), first.source, first.adapt) == ([BOOK], "passage", False)
    assert first.reasons == (module.FIRST_PASSAGE,)
    again = caller(system("Be brief."), asked(BOOK, "And the otter?"))
    assert (texts(again), again.source, again.adapt) == ([BOOK], "passage", True)
    assert again.reasons == (module.AGAIN_PASSAGE,)
    assert contents(again) == ["Be brief.", asked_text(ABOVE, "And the otter?")]


def test_sights_of_passages_are_those_of_one_namespace_and_system_message() -> None:
    memory = Caller()
    other = Caller()
    other.registry = DocumentRegistry(Namespace("other"), _memory=memory.registry._memory)
    for caller in (memory, other):
        for opening in ([], [system("Be brief.")], [system("Be long.")]):
            assert not caller(*opening, asked(BOOK)).adapt
            assert caller(*opening, asked(BOOK)).adapt


def test_a_system_message_behind_the_question_is_not_read_along(marked: Caller) -> None:
    """Keys and values do not depend on it."""
    marked(asked(BOOK), assistant("Oslo"), system("It is nine o'clock."), user("And?"))
    found = marked(asked(BOOK), assistant("Oslo"), system("It is ten o'clock."), user("And?"))
    assert found.adapt


def test_prompts_of_all_engines_make_one_document_of_a_passage(marked: Caller) -> None:
    """What their templates say is told behind it."""
    assert not marked(template("Answer."), asked(BOOK)).adapt
    assert marked(template("Refine the answer."), asked(BOOK)).adapt
    assert not marked(system("Be brief."), template("Answer."), asked(BOOK)).adapt
    assert marked(template("Refine it."), system("Be brief."), asked(BOOK)).adapt


def test_steps_of_one_question_are_no_second_sight_of_a_passage(marked: Caller) -> None:
    turns: list[Message] = [asked(BOOK)]
    marked(*turns)
    for number in range(3):
        turns += [assistant(""), tool(f"result {number}")]
        assert not marked(*turns).adapt


@pytest.mark.parametrize("passage", ["Oslo, Lima.", "", " \n", f"{BOOK}\0"])
def test_short_and_unreadable_passages_are_text(marked: Caller, passage: str) -> None:
    for _ in range(2):
        found = marked(asked(passage))
        assert (found.documents, contents(found)) == ((), [asked_text(passage)])


def test_a_few_words_of_a_known_document_are_text(marked: Caller) -> None:
    """Some engines pass the question itself as what it is about."""
    marked.registry.register([Document.of(f"{prose('heron')}\n\n{QUESTION} In Oslo.")])
    for words in (QUESTION, "In Oslo", "heron1x1 heron1x2"):
        assert marked(asked(words)).documents == ()


@pytest.mark.parametrize("make", [tool, assistant])
def test_passages_in_answers_are_text(marked: Caller, make: Any) -> None:
    marked.registry.register([LONG])
    for _ in range(2):
        found = marked(user(QUESTION), make([Text("Found: "), Passage(LONG.text)]))
        assert (found.documents, found.reasons) == ((), ())
        assert contents(found) == [QUESTION, f"Found: {LONG.text}"]
    found = marked(user(QUESTION), make([Passage(LONG.text)]), user(QUESTION), own=(LONG,))
    assert contents(found)[1] == LONG.text


def test_no_passage_is_read_ahead_of_an_answer(marked: Caller) -> None:
    marked.registry.register([LONG])
    found = marked(assistant("Hello"), asked(LONG.text))
    assert (found.documents, found.reasons) == ((), (module.NO_HEAD,))
    assert contents(found) == ["Hello", asked_text(LONG.text)]


def test_known_passages_of_later_turns_are_read(marked: Caller) -> None:
    marked.registry.register([LONG])
    found = marked(user("Hello"), assistant("Hello"), asked(LONG.text))
    assert found.documents == (LONG,)
    assert contents(found) == ["Hello", "Hello", asked_text(ABOVE)]


@pytest.mark.parametrize("own", [(), (LONG,)])
def test_off_leaves_passages_alone(own: tuple[Document, ...]) -> None:
    caller = Caller("off")
    caller.registry.register([LONG])
    for _ in range(2):
        found = caller(asked(LONG.text), own=own)
        assert (found.documents, contents(found)) == (own, [asked_text(LONG.text)])


def test_of_a_passage_its_body_is_the_document(marked: Caller) -> None:
    shown = [f"file_path: /home/{number}\n\n{BOOK}" for number in range(2)]
    first = marked(asked(shown[0], body=BOOK))
    assert (texts(first), first.adapt) == ([BOOK], False)
    again = marked(asked(shown[1], body=BOOK))
    assert (texts(again), again.adapt) == ([BOOK], True)
    assert contents(again) == [asked_text(ABOVE)]


def test_a_passage_that_stays_is_shown_whole(marked: Caller) -> None:
    marked.registry.register([LONG])
    piece = pieces(LONG, 2, 3)
    shown = f"file_path: /home\n\n{piece}"
    found = marked(asked(shown, body=piece))
    assert (found.documents, contents(found)) == ((LONG,), [asked_text(shown)])
    assert contents(marked(asked("path: /\n\nOslo", body="Oslo")))[0].count("path: /") == 1


def test_a_passage_in_a_system_message_is_read(marked: Caller) -> None:
    """As chat engines put it."""
    marked.registry.register([LONG])
    opening = template([Text("Documents:\n"), Passage(LONG.text), Text(f"\n{RULES}")])
    found = marked(opening, user("Hello"), assistant("Hello"), user(QUESTION))
    assert found.documents == (LONG,)
    assert found.messages[:2] == (user(f"Documents:\n{ABOVE}\n{RULES}"), user("Hello"))
    assert found.opening == 1


# Templates


def test_a_templates_system_message_is_told_behind_the_document(marked: Caller) -> None:
    opening = [template(RULES), system("Be brief."), template("Think first.")]
    found = marked(*opening, user(QUESTION), assistant("Oslo"), user("Sure?"), own=(LONG,))
    assert found.messages == (
        system("Be brief."),
        user(f"{RULES}\n\nThink first."),
        user(QUESTION),
        assistant("Oslo"),
        user("Sure?"),
    )
    assert found.opening == 2


def test_without_documents_a_templates_system_message_stays_one(marked: Caller) -> None:
    found = marked(template(RULES), system("Be brief."), user(QUESTION))
    assert found.messages == (system(RULES), system("Be brief."), user(QUESTION))
    assert found.opening == 2


def test_a_templates_system_message_of_later_turns_stays_there(marked: Caller) -> None:
    found = marked(user(QUESTION), assistant("Oslo"), template(RULES), user("Sure?"), own=(LONG,))
    assert found.messages == (user(QUESTION), assistant("Oslo"), system(RULES), user("Sure?"))
    assert found.opening == 0


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


def test_nothing_of_passages_is_shown() -> None:
    caller = Caller()
    found = caller(asked(BOOK))
    assert "falcon" not in repr((Passage(BOOK, BOOK), found))


@pytest.mark.parametrize("which", ["call", "own"])
def test_noted_pieces_of_the_documents_that_are_read_are_left_out(
    marked: Caller, which: str
) -> None:
    identifier = marked.registry.register([LONG], named=False)
    marked.registry.note(identifier, [pieces(LONG, 1, 2)], ["Other words."])
    found = marked(asked(f"{pieces(LONG, 1, 2)}\n\nOther words."), **{which: (LONG,)})
    assert contents(found) == [asked_text(f"{ABOVE}\n\nOther words.")]
    found = marked(asked(pieces(LONG, 1, 2)), **{which: (LONG,)})
    assert contents(found) == [asked_text(pieces(LONG, 1, 2))]


def test_documents_brought_together_once_are_read_and_not_adapted_to(marked: Caller) -> None:
    identifier = marked.registry.register([LONG, FAR], named=False)
    for adapt in (False, True, True):
        marked.registry.note(identifier, [pieces(LONG, 1)])
        found = marked(asked(pieces(LONG, 1)))
        assert (found.documents, found.adapt) == ((LONG, FAR), adapt)
        assert (module.FIRST_GROUP in found.reasons) is not adapt


def test_a_short_passage_is_named_as_the_reason(marked: Caller) -> None:
    found = marked(asked("Other words."))
    assert found.documents == ()
    assert found.reasons == (f"a passage of fewer than {MIN} tokens was left in the text",)
