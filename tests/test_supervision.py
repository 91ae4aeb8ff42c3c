# ruff: noqa: RUF001  (full stops of many scripts)
"""On what is trained: passages, clozes, spans and recurrences; never what is held out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.supervision.fakes import NoBase, make_given
from ttt_core import Document
from ttt_core.chat import ChatFormat
from ttt_core.config import SupervisionName
from ttt_core.packed import IGNORE, PackedBatch
from ttt_core.supervision import (
    Cloze,
    Passage,
    TokenizedDocument,
    find_clozes,
    find_passages,
    get_supervision,
    pack_clozes,
)
from ttt_core.supervision.passages import LONGEST, SHORTEST
from ttt_core.supervision.recurrence import retrievable_positions

SUPERVISIONS: list[SupervisionName] = ["cloze", "recurrence", "random_span"]

TEXTS = {
    "english": """The ship left Oslo at dawn. Nobody saw it go! Was it late? Mr. Ames slept.
He said: "We sail." Then it was gone; only the gulls were left.""",
    "german": """Über Nacht kam der Schnee. Wer hätte das gedacht? Niemand; nicht einmal Jörg!
Am Morgen war er fort.""",
    "chinese": "船在黎明离开了港口。没有人看见它离开！它晚点了吗？大副说：「我们走。」它就不见了。",
    "japanese": "船は夜明けに港を出た。誰も見ていなかった！遅れたのか？「行こう。」と言った。",
    "arabic": "غادرت السفينة الميناء عند الفجر. لم يرها أحد! هل تأخرت؟ قال البحار إنه نائم.",
    "hindi": "जहाज भोर में निकल गया। किसी ने नहीं देखा! क्या देर हो गई? नाविक सो रहा था।",
    "python": """import os


def f(x: int) -> int:
    if x > 3:
        return x * 2
    return os.getpid()
""",
    "markdown": """| city | port |
|---|---|
| Oslo | north |
| Rome | south |
| Kyiv | river |
""",
    "giant": "".join(f"{i * i:x}" for i in range(300)),
}


def read(text: str, tokenizer: PreTrainedTokenizerFast) -> TokenizedDocument:
    chat = ChatFormat(tokenizer)
    return TokenizedDocument.of(chat.prefix(Document.of(text).text), chat, tokenizer)


def make_document(ids: Sequence[int], lengths: Sequence[int]) -> TokenizedDocument:
    """A prefix of two head tokens and the given tokens, cut into distinct passages."""
    prefix, passages, start = (98, 99, *ids), {}, 2
    for length in lengths:
        if start + length > len(prefix):
            break
        passages.setdefault(prefix[start : start + length], Passage(start, start + length))
        start += length
    return TokenizedDocument(prefix, 2, len(prefix), tuple(passages.values()), (96, 97))


DOCUMENTS = st.builds(
    make_document,
    st.lists(st.integers(0, 2), min_size=3, max_size=40),
    st.lists(st.integers(SHORTEST, 6), min_size=1, max_size=10),
)


@pytest.mark.parametrize("language", TEXTS)
def test_every_kind_of_text_yields_clozes(
    language: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    document = read(TEXTS[language], tokenizer)
    clozes = find_clozes(document, seed=0)
    assert len(clozes) >= 3
    assert all(cloze.start < cloze.cut < cloze.end for cloze in clozes)
    covered = sum(passage.end - passage.start for passage in document.passages)
    assert covered > 0.7 * (document.end - document.start)


@pytest.mark.parametrize("language", TEXTS)
def test_passages_are_disjoint_ordered_inside_and_of_quotable_length(
    language: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    document = read("\n".join([TEXTS[language]] * 2), tokenizer)
    passages = document.passages
    assert all(SHORTEST <= p.end - p.start <= LONGEST for p in passages)
    assert all(a.end <= b.start for a, b in pairwise(passages))
    assert document.start <= passages[0].start
    assert passages[-1].end <= document.end
    texts = [document.input_ids[p.start : p.end] for p in passages]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("tokens", ["characters", "words", "words-with-trailing-space"])
@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One two three. Four five! A b c?", ["One two three.", "Four five!", "A b c?"]),
        ("Version 1.5 is out. Get it.", ["Version 1.5 is out.", "Get it."]),
        ('He said "go now." Then he left.', ['He said "go now."', "Then he left."]),
        ("one long line\nand another one", ["one long line", "and another one"]),
        ("एक दो तीन। चार पाँच छह।", ["एक दो तीन।", "चार पाँच छह।"]),
        ("واحد اثنان ثلاثة؟ أربعة خمسة ستة.", ["واحد اثنان ثلاثة؟", "أربعة خمسة ستة."]),
    ],
    ids=["stops", "number", "quotation", "lines", "hindi", "arabic"],
)
def test_sentences_end_where_a_reader_would_say(
    text: str, sentences: list[str], tokens: str
) -> None:
    """However the tokenizer cuts; the bundled one gives a space to the word before it."""
    assert sentences_of(SPLITTERS[tokens](text)) == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("船离开了港口。没有人看见！", ["船离开了港口。", "没有人看见！"]),
        ("他说：「我们走。」然后走了。", ["他说：「我们走。」", "然后走了。"]),
        ("行こうと彼は言った。誰も見ず？", ["行こうと彼は言った。", "誰も見ず？"]),
    ],
    ids=["chinese", "chinese-quotation", "japanese"],
)
def test_wide_stops_need_no_space_behind_them(text: str, sentences: list[str]) -> None:
    assert sentences_of(list(text)) == sentences


def sentences_of(texts: list[str]) -> list[str]:
    return ["".join(texts[p.start : p.end]).strip() for p in find_passages(texts)]


def words(text: str) -> list[str]:
    """As GPT's: the space belongs to the word behind it; a stop is a token."""
    return re.findall(r"\n| ?[^\s.!?।؟\"]+| ?[.!?।؟\"]", text)


def words_with_trailing_space(text: str) -> list[str]:
    return re.findall(r"\n|[^\s.!?।؟\"]+ ?|[.!?।؟\"] ?", text)


SPLITTERS = {
    "characters": list,
    "words": words,
    "words-with-trailing-space": words_with_trailing_space,
}


def test_long_sentences_are_cut_into_pieces() -> None:
    passages = find_passages(["x"] * (2 * LONGEST + SHORTEST), offset=10)
    assert passages == [(10, 58), (58, 106), (106, 109)]
    assert find_passages(["x"] * (LONGEST + SHORTEST - 1)) == [(0, LONGEST)]


@given(st.lists(st.sampled_from(["a", " ", "\n", ".", "。", "」", " b", ". "]), max_size=120))
def test_passages_of_any_tokens(texts: list[str]) -> None:
    passages = find_passages(texts)
    assert all(SHORTEST <= p.end - p.start <= LONGEST for p in passages)
    assert all(a.end <= b.start for a, b in pairwise(passages))
    assert all(p.start >= 0 and p.end <= len(texts) for p in passages)
    assert not any("\n" in text for p in passages for text in texts[p.start : p.end - 1])


@given(DOCUMENTS)
def test_shortest_quote_begins_exactly_one_passage(document: TokenizedDocument) -> None:
    """Brute force: count the passages that each beginning begins."""
    ids = document.input_ids
    texts = [ids[p.start : p.end] for p in document.passages]

    def beginnings(quote: tuple[int, ...]) -> int:
        return sum(text[: len(quote)] == quote for text in texts)

    for passage, cut in document.shortest_quotes.items():
        unique = [c for c in range(passage.start + 1, passage.end)
                  if beginnings(ids[passage.start : c]) == 1]  # fmt: skip
        assert cut == (unique[0] if unique else passage.end)


@given(DOCUMENTS, st.integers(0, 5))
def test_quotes_are_at_most_half_of_a_passage_unless_they_must_be_longer(
    document: TokenizedDocument, seed: int
) -> None:
    shortest = document.shortest_quotes
    for start, cut, end in find_clozes(document, seed=seed):
        least = shortest[Passage(start, end)]
        assert least <= cut <= max(least, (start + end) // 2) < end


@given(DOCUMENTS, st.integers(0, 5))
def test_packed_clozes_continue_their_quotes(document: TokenizedDocument, seed: int) -> None:
    clozes = find_clozes(document, seed=seed)
    batch = pack_clozes(document, clozes)
    ids, n_start = document.input_ids, len(document.answer_start)
    assert batch.segment_ids is not None
    for index, (start, cut, end) in enumerate(clozes):
        tail = batch.segment_ids == index
        expected = [*document.answer_start, *ids[start:end]]
        assert batch.input_ids[tail].tolist() == expected[:-1]
        assert batch.position_ids[tail].tolist() == list(
            range(len(ids), len(ids) + len(expected) - 1)
        )
        labels = batch.labels[tail].tolist()
        quoted = n_start + cut - start - 1
        assert labels == [IGNORE] * quoted + expected[quoted + 1 :]
    assert len(batch.input_ids) == sum(n_start + c.end - c.start - 1 for c in clozes)


def test_packed_cloze_by_hand() -> None:
    document = TokenizedDocument((98, 5, 6, 7, 8), 1, 5, (Passage(1, 5),), (96, 97))
    batch = pack_clozes(document, [Cloze(1, 3, 5), Cloze(1, 2, 5)])
    assert batch.input_ids.tolist() == [96, 97, 5, 6, 7] * 2
    assert batch.labels.tolist() == [-100, -100, -100, 7, 8, -100, -100, 6, 7, 8]
    assert batch.position_ids.tolist() == [5, 6, 7, 8, 9] * 2
    assert batch.segment_ids is not None
    assert batch.segment_ids.tolist() == [0] * 5 + [1] * 5


LINES = "\n".join(
    f"{place} has {n * n % 97} ships" for n, place in enumerate(["Oslo", "Rome"] * 12)
)


def batches(
    name: SupervisionName,
    document: TokenizedDocument,
    held_out: Sequence[Passage] = (),
    **options: Any,
) -> Iterator[PackedBatch]:
    about = make_given(NoBase(), document, held_out=held_out, supervision=name, **options)
    return get_supervision(name)(about).batches()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["recurrence", "random_span"])
def test_held_out_tokens_are_never_labels_in_place(
    name: SupervisionName, seed: int, tokenizer: PreTrainedTokenizerFast
) -> None:
    document = read(LINES, tokenizer)
    held_out = document.passages[::4]
    secret = {token for p in held_out for token in range(p.start, p.end)}
    seen = set()
    for batch in islice(batches(name, document, held_out, seed=seed, span_length=40), 200):
        learnt = batch.position_ids[batch.labels != IGNORE] + 1
        seen.update(learnt.tolist())
        ids = torch.tensor(document.input_ids)
        assert torch.equal(ids[learnt], batch.labels[batch.labels != IGNORE])
        assert torch.equal(ids[batch.position_ids], batch.input_ids)
        assert batch.segment_ids is None
    assert len(seen) > 100
    assert not seen & secret


@pytest.mark.parametrize("seed", range(3))
def test_held_out_passages_are_never_quoted(seed: int, tokenizer: PreTrainedTokenizerFast) -> None:
    document = read(LINES, tokenizer)
    held_out = document.passages[::4]
    secret = {document.input_ids[p.start : p.end - 1] for p in held_out}
    seen = set()
    for batch in islice(batches("cloze", document, held_out, seed=seed, clozes_per_step=5), 60):
        seen.update(quoted_texts(batch, len(document.answer_start)))
    assert len(seen) == len(document.passages) - len(held_out)
    assert not seen & secret


def quoted_texts(batch: PackedBatch, n_start: int) -> list[tuple[int, ...]]:
    assert batch.segment_ids is not None
    segments = range(int(batch.segment_ids.max()) + 1)
    return [tuple(batch.input_ids[batch.segment_ids == s].tolist()[n_start:]) for s in segments]


def test_every_passage_comes_once_before_any_comes_again(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    document = read(LINES, tokenizer)
    n_passages = len(document.passages)
    drawn = [
        text
        for batch in islice(batches("cloze", document, clozes_per_step=5), 20)
        for text in quoted_texts(batch, len(document.answer_start))
    ]
    assert len(drawn) == 100
    for start in range(0, 100 - n_passages, n_passages):
        assert len(set(drawn[start : start + n_passages])) == n_passages


@pytest.mark.parametrize("name", SUPERVISIONS)
def test_batches_depend_on_the_seed_alone(
    name: SupervisionName, tokenizer: PreTrainedTokenizerFast
) -> None:
    document = read(LINES, tokenizer)

    def first(seed: int) -> list[list[int]]:
        some = islice(batches(name, document, seed=seed, span_length=20, clozes_per_step=4), 5)
        return [[*b.input_ids.tolist(), *b.labels.tolist()] for b in some]

    assert first(1) == first(1)
    assert first(1) != first(2)


@given(st.lists(st.integers(0, 2), max_size=24))
def test_retrievable_positions_by_brute_force(ids: list[int]) -> None:
    """i counts if the longest context ending at i that occurred before was followed by ids[i+1]."""
    expected = []
    for i in range(len(ids) - 1):
        for length in range(i, 0, -1):
            context = ids[i + 1 - length : i + 1]
            earlier = [j for j in range(length - 1, i) if ids[j + 1 - length : j + 1] == context]
            if earlier:
                if any(ids[j + 1] == ids[i + 1] for j in earlier):
                    expected.append(i)
                break
    assert retrievable_positions(ids) == expected


def test_recurrence_trains_only_what_could_be_retrieved(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    document = read("red fox ran. red fox ran. blue", tokenizer)
    batch = next(batches("recurrence", document, span_length=1000))
    learnt = tokenizer.decode(batch.labels[batch.labels != IGNORE])
    assert "d fox ran." in learnt
    assert "blue" not in learnt
    assert batch.position_ids.tolist() == sorted(set(batch.position_ids.tolist()))


def test_random_spans_are_contiguous_and_reach_both_ends() -> None:
    document = make_document([7] * 12, [])
    starts = [0] * len(document.input_ids)
    for batch in islice(batches("random_span", document, span_length=5), 2000):
        positions = batch.position_ids.tolist()
        assert positions == list(range(positions[0], positions[0] + 5))
        starts[positions[0]] += 1
    possible = range(document.start, document.end - 5)  # The last label is the last token.
    assert [start for start, n in enumerate(starts) if n] == list(possible)
    mean = 2000 / len(possible)
    assert all(abs(starts[start] - mean) < 6 * mean**0.5 for start in possible)


def test_spans_longer_than_the_document_are_all_of_it() -> None:
    document = make_document(range(5), [])
    batch = next(batches("random_span", document, span_length=100))
    assert batch.input_ids.tolist() == [0, 1, 2, 3]
    assert batch.labels.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("name", SUPERVISIONS)
@pytest.mark.parametrize("ids", [[], [1]])
def test_too_short_documents_yield_nothing(name: SupervisionName, ids: list[int]) -> None:
    assert next(batches(name, make_document(ids, [3])), None) is None


@pytest.mark.parametrize("name", SUPERVISIONS)
def test_nothing_is_left_when_all_is_held_out(name: SupervisionName) -> None:
    document = make_document([1, 2, 3, 1, 2, 4], [3, 3])
    everything = [Passage(2, 8)] if name != "cloze" else document.passages
    assert next(batches(name, document, everything), None) is None
