"""Rows of the larger sandbox model: branches, positions, parts, and batches by number."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from ttt_core.chat import SEAM
from ttt_core.examples import Question
from ttt_core.sandbox.larger.config import DataConfig, LargerConfig, sized
from ttt_core.sandbox.larger.feed import feeding
from ttt_core.sandbox.larger.lessons import Lesson, Lessons
from ttt_core.sandbox.larger.rows import RowSource
from ttt_core.sandbox.larger.tokenizer import train_tokenizer
from ttt_core.sandbox.rows import TRUNK, PaddedRows, Row
from ttt_core.sandbox.tasks import get_task
from ttt_core.sandbox.tokenizer import IM_END
from ttt_core.sandbox.words import adjectives, nouns, places

CONFIG: LargerConfig = sized("tiny")
DATA: DataConfig = CONFIG.data


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(CONFIG)


@cache
def source() -> RowSource:
    return RowSource(tokenizer(), DATA)


def laid_out(seed: int) -> tuple[Lesson, Row]:
    lesson = Lessons(DATA, Random(seed)).draw(1.0)
    return lesson, source().lay_out(lesson, Random(seed))


def text_of(row: Row, branch: int) -> str:
    own = [token for token, of in zip(row.ids, row.branches, strict=True) if of == branch]
    return str(tokenizer().decode(own))


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_a_row_says_what_the_chat_template_says(seed: int) -> None:
    lesson, row = laid_out(seed)
    for branch, (question, answer) in enumerate(
        zip(lesson.example.questions, lesson.answers, strict=True), TRUNK + 1
    ):
        said = text_of(row, TRUNK) + text_of(row, branch)
        messages = [
            {"role": "user", "content": f"{lesson.example.document}{SEAM}{question.text}"},
            {"role": "assistant", "content": answer},
        ]
        asked = str(tokenizer().apply_chat_template(messages, tokenize=False)).rstrip("\n")
        # One or two newlines between document and question, and sometimes a system turn.
        assert said.endswith(asked) or said.replace("\n", "").endswith(asked.replace("\n", ""))


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_only_answers_and_documents_are_trained(seed: int) -> None:
    lesson, row = laid_out(seed)
    full = [token for token, weight in zip(row.ids, row.weights, strict=True) if weight == 1.0]
    light = [t for t, w in zip(row.ids, row.weights, strict=True) if 0.0 < w < 1.0]
    assert tokenizer().decode(full) == "".join(answer + IM_END for answer in lesson.answers)
    assert tokenizer().decode(light) == lesson.example.document


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_positions_jump_between_lines_or_sentences_only(seed: int) -> None:
    _, row = laid_out(seed)
    trunk = [at for at, branch in enumerate(row.branches) if branch == TRUNK]
    for before, after in pairwise(trunk):
        step = row.positions[after] - row.positions[before]
        assert step >= 1
        if step > 1:
            assert str(tokenizer().decode([row.ids[before]])).endswith(("\n", ". "))
    assert max(row.positions) < DATA.max_position


def test_positions_reach_far() -> None:
    last = sorted(max(laid_out(seed)[1].positions) for seed in range(60))
    assert last[-1] > 16_000
    assert last[0] < 1_500


def test_branches_see_the_document_and_themselves_only() -> None:
    for part in source().batch(0):
        mask, branches = part.with_mask().mask[:, 0], part.branches
        for row in range(len(branches)):
            rows_seen, keys_seen = mask[row].nonzero(as_tuple=True)
            assert (keys_seen <= rows_seen).all()
            same = branches[row, keys_seen] == branches[row, rows_seen]
            assert (same | (branches[row, keys_seen] == TRUNK)).all()
        assert (branches.max(dim=1).values >= 1).all()


@pytest.mark.parametrize("seed", range(3))
def test_registry_rows_teach_what_the_registry_task_calls_right(seed: int) -> None:
    task, found = get_task("registry"), 0
    own = RowSource(tokenizer(), replace(DATA, seed=seed, batch_tokens=12_000))
    for row in own.rows(0):
        for branch in range(1, max(row.branches) + 1):
            asked, _, answer = text_of(row, branch).partition("assistant\n")
            if asked.startswith("Where is ") and IM_END in answer and "?<" in asked:
                key = asked.removeprefix("Where is ").partition("?")[0].removeprefix("the ")
                value = answer.partition(IM_END)[0].rpartition(": ")[2]
                reference = Question(id="", text="", references=(f"{key}: {value}",))
                assert task.score(answer.partition(IM_END)[0], reference) == 1.0
                assert f"{key}: {value}\n" in text_of(row, TRUNK)
                found += 1
    assert found


def same(left: list[PaddedRows], right: list[PaddedRows]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, b)
        for one, other in zip(left, right, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_a_batch_is_a_function_of_its_number_and_of_the_seed() -> None:
    again = RowSource(tokenizer(), DATA)
    other = RowSource(tokenizer(), replace(DATA, seed=1))
    assert same(source().batch(3), again.batch(3))
    assert not same(source().batch(3), again.batch(4))
    assert not same(source().batch(3), other.batch(3))


def test_batches_from_other_processes_are_the_same(tmp_path: Path) -> None:
    tokenizer().save_pretrained(tmp_path)
    with feeding(tmp_path, DATA, workers=1) as feed:
        assert all(same(feed(index), source().batch(index)) for index in (0, 1, 5))


def test_parts_hold_the_tokens_of_a_batch_and_are_bounded() -> None:
    data = replace(DATA, batch_tokens=6000, part_tokens=2000)
    own = RowSource(tokenizer(), data)
    parts = own.batch(10)
    assert sum(int((part.branches >= TRUNK).sum()) for part in parts) >= 6000
    assert len(parts) > 1
    for part in parts:
        rows, length = part.input_ids.shape
        assert rows == 1 or rows * length <= 2000


def test_documents_grow() -> None:
    def mean(index: int) -> float:
        rows = RowSource(tokenizer(), replace(DATA, batch_tokens=8000)).rows(index)
        return sum(len(row.ids) for row in rows) / len(rows)

    assert mean(0) < mean(DATA.growing_batches)


def test_words_are_tokens_and_names_are_spelled() -> None:
    words = [*adjectives(), *nouns(), *places()]
    assert all(len(tokenizer().encode(form)) == 1 for w in words for form in (w, f"{w} "))
    [*letters, space] = tokenizer().encode("QKRTB ")
    assert tokenizer().encode("QKRTB\n") == [*letters, *tokenizer().encode("\n")]
    assert len(letters) == 5
    assert tokenizer().decode([space]) == " "


def test_the_tokenizer_is_the_same_each_time_and_loses_nothing() -> None:
    again = train_tokenizer(CONFIG)
    assert again.get_vocab() == tokenizer().get_vocab()
    text = "def größe(x):\n\treturn 'Ω' * 17  # ...\n\n"
    assert tokenizer().decode(tokenizer().encode(text)) == text
