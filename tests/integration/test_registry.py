"""What was named and what was seen: found again, bounded, and only by those who may know."""

from __future__ import annotations

import gc
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt_core import Document, DocumentError, Namespace
from ttt_core.document import as_document
from ttt_core.integration import registry as module
from ttt_core.integration.excerpts import LINE, MOSTLY, Pieces, squeeze
from ttt_core.integration.notes import Notes
from ttt_core.integration.registry import (
    LONGEST_GAP,
    Covering,
    DocumentRegistry,
    registry_for,
)

ONE, TWO = Document.of("amber falcon: Oslo"), Document.of("silver otter: Lima")
SECRET = b"sixteen bytes or more"
WORDS = st.lists(st.sampled_from(["falcon", "otter", "Oslo", "a", "\n", "\n\n", "é"]), max_size=12)
TEXTS = WORDS.map(" ".join).filter(str.strip)


@pytest.fixture
def registry() -> DocumentRegistry:
    return DocumentRegistry(Namespace())


class Host:
    """Stands for an engine's; weakly referable, as that one is."""


def engine(host: Host, namespace: str = "default", secret: bytes | None = None) -> Any:
    return SimpleNamespace(_host=host, namespace=Namespace(namespace, secret))


def test_documents_come_back_by_their_id(registry: DocumentRegistry) -> None:
    identifier = registry.register([ONE, TWO])
    assert registry.get(identifier) == (ONE, TWO)
    assert registry.register((ONE, TWO)) == identifier
    assert len(identifier) == 16
    assert int(identifier, 16) >= 0


def test_order_counts_and_titles_of_several_do(registry: DocumentRegistry) -> None:
    titled = Document(ONE.text, title="birds")
    groups = [(ONE,), (ONE, TWO), (TWO, ONE), (titled, TWO)]
    assert len({registry.register(group) for group in groups}) == len(groups)
    assert registry.register([titled]) == registry.register([ONE])  # As with adapters.


@pytest.mark.parametrize("group", [(ONE,), (Document(ONE.text, title="birds"), TWO)])
def test_id_is_the_adapted_documents(registry: DocumentRegistry, group: Any) -> None:
    """`AdaptedDocument.id` is a digest of the hash of what the engine reads."""
    expected = Namespace().digest("document", as_document(group).hash.encode())[:16]
    assert registry.register(group) == expected


def test_a_handles_own_id_is_taken_as_it_is(registry: DocumentRegistry) -> None:
    """What the engine cut off is not part of what a handle is named by."""
    assert registry.register([ONE], "0123456789abcdef") == "0123456789abcdef"
    assert registry.get("0123456789abcdef") == (ONE,)


def test_ids_differ_by_namespace_and_secret() -> None:
    spaces = [Namespace(), Namespace("a"), Namespace("a", SECRET), Namespace("a", SECRET[::-1])]
    assert len({DocumentRegistry(space).register([ONE]) for space in spaces}) == len(spaces)


def test_no_documents_is_an_error(registry: DocumentRegistry) -> None:
    with pytest.raises(DocumentError, match="at least one"):
        registry.register(())


def test_unknown_ids_are_none(registry: DocumentRegistry) -> None:
    assert registry.get("0" * 16) is None


def test_those_used_last_stay() -> None:
    registry = DocumentRegistry(Namespace(), most_bytes=3 << 20)
    texts = [Document(chr(ord("a") + number) * (1 << 20)) for number in range(4)]
    ids = [registry.register([text]) for text in texts[:2]]
    assert registry.get(ids[0])
    registry.register([texts[2]])
    assert registry.get(ids[1]) is None  # Three of a MiB, and what Python adds, are too many.
    assert registry.get(ids[0]) == (texts[0],)
    assert registry.find(texts[1].text) is None


def test_short_documents_count_too() -> None:
    registry = DocumentRegistry(Namespace(), most_bytes=1 << 20)
    ids = [registry.register([Document(f"line {number}")]) for number in range(200)]
    assert 0 < sum(registry.get(one) is not None for one in ids) <= 64


def test_seen_only_the_second_time(registry: DocumentRegistry) -> None:
    assert not registry.seen("a")
    assert not registry.seen("b")
    assert registry.seen("a")
    assert registry.seen("a")


def test_a_continued_question_is_no_new_sight(registry: DocumentRegistry) -> None:
    assert not registry.seen("a")
    assert not registry.seen("a", continued=True)
    assert not registry.seen("a", continued=True)
    assert registry.seen("a")
    assert registry.seen("a", continued=True)


def test_a_history_from_elsewhere_is_a_first_sight(registry: DocumentRegistry) -> None:
    assert not registry.seen("a", continued=True)
    assert registry.seen("a")


def test_sights_are_bounded_and_no_texts() -> None:
    registry = DocumentRegistry(Namespace(), most_sights=3)
    for text in "abc":
        registry.seen(text)
    assert registry.seen("a")
    registry.seen("d")
    assert registry.seen("a")
    assert not registry.seen("b")
    assert all(len(digest) == 32 for digest in registry._memory._sights)


@given(before=TEXTS, text=TEXTS, behind=TEXTS)
def test_finds_what_stands_in_a_text(before: str, text: str, behind: str) -> None:
    registry = DocumentRegistry(Namespace())
    document = Document.of(text)
    registry.register([document])
    prompt = f"{before} <{document.text}> {behind}"
    found = registry.find(prompt)
    assert found is not None
    assert found.documents == (document,)
    [(start, end)] = found.spans
    assert prompt[start:end] == document.text


@given(text=TEXTS, other=TEXTS)
def test_finds_nothing_else(text: str, other: str) -> None:
    registry = DocumentRegistry(Namespace())
    document = Document.of(text)
    registry.register([document])
    assert (registry.find(other) is None) or document.text in other


def test_of_several_the_longest(registry: DocumentRegistry) -> None:
    long = Document.of(f"{ONE.text}\n{TWO.text}")
    for document in (ONE, long, TWO):
        registry.register([document])
    found = registry.find(f"Context:\n{long.text}\n\nWhere?")
    assert found is not None
    assert found.documents == (long,)
    assert found.length == len(long.text)


def test_no_piece_of_a_word(registry: DocumentRegistry) -> None:
    registry.register([Document.of("art")])
    assert registry.find("starting parts") is None
    assert registry.find("start of art, parts") is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{ONE.text}\n---\n{TWO.text}", True),
        (f"{TWO.text}\n---\n{ONE.text}", False),
        (f"{TWO.text}\n{ONE.text}\n{TWO.text}", True),
        (f"{ONE.text}\n{'-' * LONGEST_GAP}{TWO.text}", False),
        (f"{ONE.text}{'-' * LONGEST_GAP}{TWO.text}", True),
        (f"{ONE.text}{'-' * 300}{ONE.text} {TWO.text}", True),
        (f"{ONE.text} and more", False),
    ],
)
def test_groups_are_found_whole_and_in_order(
    registry: DocumentRegistry, text: str, expected: bool
) -> None:
    registry.register([ONE, TWO])
    found = registry.find(text)
    assert (found is not None) == expected
    if found:
        assert [text[start:end] for start, end in found.spans] == [ONE.text, TWO.text]


def test_long_texts_that_repeat_themselves_are_no_trap(registry: DocumentRegistry) -> None:
    document = Document.of("ab" * 50_000)
    registry.register([document])
    assert registry.find("ab" * 100_000) is None  # At every other place, a piece of a word.
    assert registry.find(f"{'ab ' * 100_000}{document.text}") is not None


def test_many_documents_of_one_origin_are_told_apart(registry: DocumentRegistry) -> None:
    def page(number: int) -> Document:
        return Document.of(f"{'header ' * 50}number-{number:05} {'footer ' * 50}")

    for number in range(500):
        registry.register([page(number)])
    found = registry.find(f"Read this:\n{page(333).text}\n\nWhich number?")
    assert found is not None
    assert found.documents == (page(333),)


def test_engines_of_one_host_and_namespace_share() -> None:
    host = Host()
    identifier = registry_for(engine(host)).register([ONE])
    registry_for(engine(host)).seen("a")
    assert registry_for(engine(host)).get(identifier) == (ONE,)
    assert registry_for(engine(host)).seen("a")
    assert registry_for(engine(Host())).get(identifier) is None


@pytest.mark.parametrize("other", [("other", None), ("default", SECRET)])
def test_namespaces_share_nothing(other: tuple[str, bytes | None]) -> None:
    host = Host()
    mine, others = registry_for(engine(host)), registry_for(engine(host, *other))
    identifier = mine.register([ONE])
    mine.seen("a")
    assert others.get(identifier) is None
    assert others.find(ONE.text) is None
    assert not others.seen("a")


def test_forgotten_with_the_host() -> None:
    host = Host()
    registry_for(engine(host)).register([ONE])
    before = len(module._memories)
    del host
    gc.collect()
    assert len(module._memories) == before - 1


def test_namespaces_of_one_host_share_its_limit() -> None:
    memory = module._Memory(1 << 20, 10)
    first = DocumentRegistry(Namespace("a"), _memory=memory)
    identifier = first.register([ONE])
    DocumentRegistry(Namespace("b"), _memory=memory).register([Document("x" * (1 << 20))])
    assert first.get(identifier) is None
    assert Namespace("a").folder not in memory._groups


def test_threads_see_a_text_first_exactly_once() -> None:
    registry = DocumentRegistry(Namespace())
    texts = [f"text {number % 50}" for number in range(2000)]
    barrier = threading.Barrier(8)

    def work(worker: int) -> list[bool]:
        barrier.wait()
        return [registry.seen(text) for text in texts[worker::8]]

    with ThreadPoolExecutor(8) as workers:
        seen = [one for part in workers.map(work, range(8)) for one in part]
    assert seen.count(False) == 50


def test_threads_register_and_find() -> None:
    registry = DocumentRegistry(Namespace(), most_bytes=20 * module._LEAST_BYTES)
    documents = [Document.of(f"document number {number} of many") for number in range(60)]

    def work(document: Document) -> bool:
        identifier = registry.register([document])
        found = registry.find(f"Context: {document.text}.")
        held = registry.get(identifier)
        return (found is None or found.documents == (document,)) and held in (None, (document,))

    with ThreadPoolExecutor(8) as workers:
        assert all(workers.map(work, documents * 10))
    assert sum(registry.find(document.text) is not None for document in documents) == 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_forked_under_the_lock_goes_on(registry: DocumentRegistry) -> None:
    identifier = registry.register([ONE])
    with warnings.catch_warnings(), module._lock:
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads.
        child = os.fork()
        if child == 0:
            free = module._lock.acquire(blocking=False)
            if free:
                module._lock.release()
            os._exit(0 if free and registry.get(identifier) == (ONE,) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Pieces of documents


def prose(seed: int, count: int = 120) -> str:
    """Sentences that no other seed has."""
    names = [f"word{seed}x{number * number % 97}" for number in range(count)]
    lines = [" ".join(names[at : at + 12]) for at in range(0, count, 12)]
    return "\n\n".join(lines)


LONG, LONGER = Document.of(prose(1)), Document.of(prose(2, 240))


def pieces(document: Document, *numbers: int) -> str:
    parts = document.text.split("\n\n")
    return "\n\n".join(parts[number] for number in numbers)


def test_pieces_lead_to_their_document(registry: DocumentRegistry) -> None:
    for document in (LONG, LONGER):
        registry.register([document])
    found = registry.covering(pieces(LONGER, 3, 7))
    assert found is not None
    assert (found.documents, found.stands_for) == ((LONGER,), False)
    assert registry.covering(prose(3)) is None
    assert registry.covering("word2x9") is None


@pytest.mark.parametrize("change", [str, lambda text: text.replace(" ", "\n"), str.strip])
def test_all_of_a_document_stands_for_it(registry: DocumentRegistry, change: Any) -> None:
    registry.register([LONG])
    found = registry.covering(change(f"file: birds.txt\n\n{LONG.text}"))
    assert found is not None
    assert (found.documents, found.stands_for) == ((LONG,), True)
    assert "".join(found.rest.split()) == "file:birds.txt"


def test_of_several_groups_the_smallest(registry: DocumentRegistry) -> None:
    registry.register([LONG, LONGER])
    registry.register([LONGER])
    both = registry.covering(f"{pieces(LONG, 1, 2)}\n\n{pieces(LONGER, 1, 2)}")
    one = registry.covering(pieces(LONGER, 1, 2))
    assert both is not None
    assert one is not None
    assert (both.documents, one.documents) == ((LONG, LONGER), (LONGER,))


def test_noted_pieces_stand_for_their_document(registry: DocumentRegistry) -> None:
    """As a framework shows them, with titles that are no part of the document, in one prompt."""
    identifier = registry.register([LONGER])
    shown = [f"Title: birds {number}\n{pieces(LONGER, number)}" for number in (2, 5)]
    for seam in ("\n\n", "\n"):
        registry.note(identifier, shown)
        found = registry.covering(seam.join(reversed(shown)))
        assert found == Covering((LONGER,), stands_for=True)
        assert registry.noted(shown[0]) is None
    again = registry.covering(pieces(LONGER, 3, 4))
    assert again is not None
    assert not again.stands_for


def test_each_prompt_has_a_note_of_its_own(registry: DocumentRegistry) -> None:
    identifier = registry.register([LONGER], named=False)
    shown = pieces(LONGER, 2)
    for _ in range(3):
        registry.note(identifier, [shown])
    found = [registry.covering(shown) for _ in range(5)]
    assert [one is not None for one in found] == [True, True, True, False, False]
    assert len(registry._memory.notes) == 0


def test_what_a_retriever_brought_is_not_found_by_its_text(registry: DocumentRegistry) -> None:
    identifier = registry.register([LONGER], named=False)
    assert registry.get(identifier) == (LONGER,)
    assert registry.covering(LONGER.text) is None
    assert registry.find(LONGER.text) is None
    registry.register([LONGER])
    assert registry.covering(LONGER.text) is not None
    registry.register([LONGER], named=False)
    assert registry.covering(LONGER.text) is not None


def test_what_stands_beside_noted_pieces_stays(registry: DocumentRegistry) -> None:
    identifier = registry.register([LONGER], named=False)
    mine, others = pieces(LONGER, 2), pieces(Document.of(prose(9)), *range(8))
    registry.note(identifier, [mine], [others])
    found = registry.covering(f"{mine}\n\n{others}")
    assert found is not None
    assert found.stands_for
    assert squeeze(found.rest) == squeeze(others)


def test_documents_that_were_brought_together_are_worth_it_when_they_come_again(
    registry: DocumentRegistry,
) -> None:
    def worth(*documents: Document, named: bool = False) -> bool:
        identifier = registry.register(documents, named=named)
        registry.note(identifier, [pieces(LONGER, 2)])
        found = registry.noted(pieces(LONGER, 2))
        assert found is not None
        return found.adapt

    assert worth(LONGER)
    assert [worth(LONGER, LONG) for _ in range(3)] == [False, True, True]
    registry.expect(registry.register([LONG, LONGER], named=False))
    assert worth(LONG, LONGER)
    other = Document.of(prose(9))
    assert worth(LONGER, other, named=True)


def test_of_equal_groups_the_last_one(registry: DocumentRegistry) -> None:
    """What is noted or named last may be a newer version of the same."""
    old, new = LONGER, Document.of(f"{LONGER.text}\n\nAnd then they flew away, all of them.")
    shown = pieces(LONGER, 2)
    for first, last in ((old, new), (new, old)):
        registry.register([first])
        registry.register([last])
        found = registry.covering(shown)
        assert found is not None
        assert found.documents == (last,)
        registry.note(registry.register([first]), [shown])
        registry.note(registry.register([last]), [shown])
        noted = registry.noted(shown)
        assert noted is not None
        assert noted.documents == (last,)
        registry.noted(shown)


def test_what_was_not_noted_is_not_lost(registry: DocumentRegistry) -> None:
    """A piece of a document that is not read may stand among those that were noted."""
    identifier = registry.register([LONGER])
    shown = [pieces(LONGER, number) for number in range(8)]
    registry.note(identifier, shown)
    foreign = pieces(Document.of(prose(9)), 0)
    found = registry.covering("\n\n".join([*shown, foreign]))
    assert found == Covering((LONGER,), stands_for=True, rest=foreign)


def test_of_noted_groups_the_one_that_knows_most(registry: DocumentRegistry) -> None:
    """Even where nearly all is of the smaller group, and then the smaller one."""
    alone, both = registry.register([LONGER]), registry.register([LONGER, LONG])
    of_longer = [pieces(LONGER, number) for number in range(9)]
    registry.note(alone, of_longer)
    registry.note(both, [*of_longer, pieces(LONG, 0)])
    found = registry.covering("\n\n".join([*of_longer, pieces(LONG, 0)]))
    assert found == Covering((LONGER, LONG), stands_for=True)
    assert registry.covering("\n\n".join(of_longer)) == Covering((LONGER,), stands_for=True)


def test_few_noted_ones_among_many_stand_for_nothing(registry: DocumentRegistry) -> None:
    identifier = registry.register([LONGER])
    registry.note(identifier, [pieces(LONGER, 0)])
    others = prose(9, 36)
    assert registry.covering(f"{pieces(LONGER, 0)}\n\n{others}") is None


def test_notes_of_forgotten_documents_lead_nowhere() -> None:
    registry = DocumentRegistry(Namespace(), most_bytes=1 << 15)
    registry.note(registry.register([LONG]), [pieces(LONG, 0)])
    for number in range(5, 12):
        registry.register([Document.of(prose(number))])
    assert registry.covering(pieces(LONG, 0)) is None


def test_notes_are_bounded_and_no_texts() -> None:
    notes = Notes(3)
    for number in range(5):
        notes.add("mine", "one", [f"digest {number}"], stands=True)
    assert len(notes) == 3
    assert notes.find("mine", ["digest 0"], [1]) is None
    assert notes.find("mine", ["digest 4"], [1]) is not None
    registry = DocumentRegistry(Namespace())
    registry.note(registry.register([LONGER]), [pieces(LONGER, 0)])
    kept = list(registry._memory.notes._lines)
    assert all(len(digest) == 32 for _, digest in kept)


@given(text=TEXTS, other=TEXTS)
def test_notes_are_for_their_texts_only(text: str, other: str) -> None:
    registry = DocumentRegistry(Namespace())
    identifier = registry.register([LONG])
    registry.note(identifier, [text])
    found = registry.covering(other)
    noted, shown = (Pieces(one, LINE).squeezed for one in (text, other))
    known = sum(len(line) for line in shown if line in noted)
    assert (found is not None) == (known >= MOSTLY * sum(map(len, shown)) > 0)


@pytest.mark.parametrize("other", [("other", None), ("default", SECRET)])
def test_namespaces_share_no_pieces(other: tuple[str, bytes | None]) -> None:
    host = Host()
    mine, others = registry_for(engine(host)), registry_for(engine(host, *other))
    identifier = mine.register([LONG])
    mine.note(identifier, ["A title that stands above the first of the pieces."])
    assert others.covering(LONG.text) is None
    assert others.covering("A title that stands above the first of the pieces.") is None
    assert others.like(Document.of(LONG.text.replace(" ", "  "))).text != LONG.text
    others.register([LONG], identifier)
    assert others.noted("A title that stands above the first of the pieces.") is None


@given(space=st.sampled_from(["  ", "\n", "\t", "\n\n"]))
def test_documents_that_are_alike_but_for_white_space(space: str) -> None:
    registry = DocumentRegistry(Namespace())
    registry.register([LONG, LONGER])
    for document in (LONG, LONGER):
        assert registry.like(Document.of(document.text.replace(" ", space))) is document
        assert registry.like(document) is document
    other = Document.of(LONG.text + " and more")
    assert registry.like(other) is other


def test_texts_are_not_in_what_is_shown(registry: DocumentRegistry) -> None:
    registry.register([LONG])
    assert "word1x" not in repr(registry.covering(pieces(LONG, 1, 2)))
    assert "word1x" not in repr(registry.covering(f"{LONG.text}\n\nword1x0 foreign"))
