"""What frameworks hand over: documents stand for it, or it is one, or it stays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.integration.resolver.conversations import (
    BOOK,
    FAR,
    LONG,
    MIN,
    QUESTION,
    RULES,
    Caller,
    asked,
    asked_text,
    assistant,
    contents,
    pieces,
    prose,
    system,
    template,
    texts,
    tool,
    user,
)
from ttt_core import Document, Namespace
from ttt_core.chat import Message
from ttt_core.integration.prompt import ABOVE, Attachment, Passage, Text
from ttt_core.integration.registry import DocumentRegistry
from ttt_core.integration.resolver import Mode, reasons


def test_a_passage_that_holds_a_known_document_is_read_instead(marked: Caller) -> None:
    marked.registry.register([LONG])
    found = marked(asked(LONG.text.replace(" ", "\n")))
    assert (found.documents, found.source, found.adapt) == ((LONG,), "passage", True)
    assert contents(found) == [asked_text(ABOVE)]
    assert found.reasons == (reasons.KNOWN_PASSAGE,)


def test_what_else_a_passage_holds_stays(marked: Caller) -> None:
    marked.registry.register([LONG])
    found = marked(asked(f"{LONG.text}\n\nOther words."))
    assert contents(found) == [asked_text(f"{ABOVE}\n\nOther words.")]


def test_a_known_document_amid_other_text_is_read_instead_of_it(marked: Caller) -> None:
    marked.registry.register([LONG])
    found = marked(asked(f"{FAR.text}\n\nFound: {LONG.text} (end)"))
    assert (found.documents, found.reasons) == ((LONG,), (reasons.KNOWN_PASSAGE,))
    assert contents(found) == [asked_text(f"{ABOVE}\n\n{FAR.text}\n\nFound:\n\n(end)")]


@given(numbers=st.lists(st.integers(0, 11), min_size=1, max_size=8, unique=True))
def test_pieces_stay_word_for_word_beside_their_document(numbers: list[int]) -> None:
    caller = Caller()
    caller.registry.register([LONG])
    passage = pieces(LONG, *numbers)
    found = caller(asked(passage))
    assert (found.documents, found.source, found.adapt) == ((LONG,), "passage", True)
    assert contents(found) == [asked_text(passage)]
    assert found.reasons == (reasons.KNOWN_PIECES,)


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
    assert found.reasons == (reasons.OWN_PASSAGE,)
    for passage in (pieces(LONG, 1, 2), FAR.text, "Other words."):
        found = marked(asked(passage), **{which: (LONG,)})
        assert (found.documents, contents(found)) == ((LONG,), [asked_text(passage)])
        is_piece = passage in LONG.text or passage == pieces(LONG, 1, 2)
        assert found.reasons == ((reasons.OWN_PIECES,) if is_piece else ())


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
    assert first.reasons == (reasons.FIRST_PASSAGE,)
    again = caller(system("Be brief."), asked(BOOK, "And the otter?"))
    assert (texts(again), again.source, again.adapt) == ([BOOK], "passage", True)
    assert again.reasons == (reasons.AGAIN_PASSAGE,)
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
    assert (found.documents, found.reasons) == ((), (reasons.NO_HEAD,))
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
        assert (reasons.FIRST_GROUP in found.reasons) is not adapt


def test_a_short_passage_is_named_as_the_reason(marked: Caller) -> None:
    found = marked(asked("Other words."))
    assert found.documents == ()
    assert found.reasons == (f"a passage of fewer than {MIN} tokens was left in the text",)
