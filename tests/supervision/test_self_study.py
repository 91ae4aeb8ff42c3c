"""The model's own questions and answers: which are any good, and how they are learnt."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.supervision.fakes import FakeBase, make_given
from ttt_core.packed import IGNORE
from ttt_core.supervision.cloze import ClozeSupervision
from ttt_core.supervision.self_study import MOST_QUESTIONS, PROMPT, SelfStudySupervision

PORTS = ["Oslo", "Rome", "Kyiv", "Lima", "Cairo", "Quito", "Perth", "Turku"]
LINES = [f"Captain {chr(65 + n)}{n} sails to {PORTS[n % 8]}." for n in range(40)]
HEAD = PROMPT.partition("{")[0]


def reply(prompt: str) -> str:
    """Ask where the passage's captain sails; answer with the port."""
    if prompt.startswith(HEAD):
        return f" Where does {prompt.rpartition('Captain ')[2].split()[0]} sail?\n"
    captain = prompt.split()[2]
    return next(f"To {line.split()[-1]}" for line in LINES if line.split()[1] == captain)


def study(
    tokenizer: PreTrainedTokenizerFast, **options: Any
) -> tuple[SelfStudySupervision, FakeBase]:
    base = FakeBase("\n".join(LINES), tokenizer, options.pop("reply", reply))
    given = make_given(base, base.document, supervision="self_study", **options)
    return SelfStudySupervision(given), base


def test_answers_are_learnt_behind_their_questions(tokenizer: PreTrainedTokenizerFast) -> None:
    supervision, base = study(tokenizer, clozes_per_step=5)
    assert (supervision.found, supervision.fallback) == (MOST_QUESTIONS, False)
    assert len(base.asked) == 2 * MOST_QUESTIONS
    questions = base.asked[MOST_QUESTIONS:]
    assert all(q.startswith("Where does") and q.endswith("sail?") for q in questions)
    expected = {tuple(base.chat_tail(q)): base.encode(reply(q)) for q in questions}
    seen = set()
    for batch in islice(supervision.batches(), 7):
        assert batch.segment_ids is not None
        assert int(batch.segment_ids.max()) == 4
        for segment in range(5):
            own = batch.segment_ids == segment
            tail, labels = batch.input_ids[own].tolist(), batch.labels[own].tolist()
            answer = [label for label in labels if label != IGNORE]
            asked = tuple(tail[: len(tail) - len(answer) + 1])
            assert answer == expected[asked]
            assert tail[len(asked) :] == answer[:-1]
            assert batch.position_ids[own].tolist() == list(
                range(len(base.document.input_ids), len(base.document.input_ids) + len(tail))
            )
            seen.add(asked)
    assert len(seen) == MOST_QUESTIONS  # 35 draws: each once before any comes again.


def test_passages_that_are_held_out_are_not_asked_about(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    document = FakeBase("\n".join(LINES), tokenizer).document
    supervision, base = study(tokenizer, held_out=document.passages[::2])
    assert supervision.found == 20
    captains = {prompt.rpartition("Captain ")[2].split()[0] for prompt in base.asked[:20]}
    assert captains == {line.split()[1] for line in LINES[1::2]}


def test_answers_that_tell_what_is_held_out_are_dropped(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Asked about one captain, the model answers about another one, who is held out."""
    document = FakeBase("\n".join(LINES), tokenizer).document

    def astray(prompt: str) -> str:
        if prompt.startswith(HEAD) or prompt.split()[2] > "M":
            return reply(prompt)
        return LINES[0]

    supervision, base = study(tokenizer, reply=astray, held_out=[document.passages[0]])
    asked = [prompt.split()[2] for prompt in base.asked if not prompt.startswith(HEAD)]
    assert supervision.found == sum(captain > "M" for captain in asked)
    assert 4 <= supervision.found < len(asked)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("", "To Oslo."),
        ("Where does {captain} sail?", ""),
        ("Where does {captain} sail?", "I cannot possibly tell you."),
        ("Captain {captain} sails to Oslo?", "{prompt}"),
        ("Where?", "To Oslo."),
    ],
    ids=["no-question", "no-answer", "not-the-document's", "repeats-the-question", "always-one"],
)
def test_clozes_stand_in_for_questions_that_are_no_good(
    question: str, answer: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    def say(prompt: str) -> str:
        if not prompt.startswith(HEAD):
            return answer.format(prompt=prompt)
        return question.format(captain=prompt.rpartition("Captain ")[2].split()[0])

    supervision, base = study(tokenizer, reply=say)
    assert (supervision.found, supervision.fallback) == (0, True)
    clozes = ClozeSupervision(make_given(base, base.document, supervision="self_study"))
    for ours, theirs in islice(zip(supervision.batches(), clozes.batches(), strict=False), 3):
        assert ours.input_ids.tolist() == theirs.input_ids.tolist()
        assert ours.labels.tolist() == theirs.labels.tolist()


def test_passages_without_words_are_no_secret(tokenizer: PreTrainedTokenizerFast) -> None:
    base = FakeBase("\n".join([*LINES, "|---|---|---|"]), tokenizer, reply)
    table = [p for p in base.document.passages
             if "|" in base.decode(base.document.input_ids[p.start : p.end])]  # fmt: skip
    given = make_given(base, base.document, held_out=table, supervision="self_study")
    assert len(table) == 1
    assert SelfStudySupervision(given).found > 4
