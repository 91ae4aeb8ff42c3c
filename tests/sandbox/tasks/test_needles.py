"""Needles of all tasks are found in the tokens that a model reads, each where the task put it."""

from __future__ import annotations

import pytest

from tests.conftest import CHATML, build_tokenizer
from ttt_core.chat import ChatFormat
from ttt_core.diagnostics.needle import NeedleFinder
from ttt_core.sandbox.tasks import get_task, task_names
from ttt_core.supervision import TokenizedDocument


@pytest.mark.parametrize("name", task_names())
def test_diagnostics_find_each_needle_once(name: str) -> None:
    task, tokenizer = get_task(name), build_tokenizer(CHATML)
    chat = ChatFormat(tokenizer)
    for example in task.examples(task.lengths[0], split="score", seed=3, count=2):
        document = TokenizedDocument.of(chat.prefix(example.document), chat, tokenizer)
        finder = NeedleFinder(document, chat.decode)
        for question in example.questions[:4]:
            for text in question.needles:
                [place] = finder.find(text).places
                found = chat.decode(document.input_ids[place.start : place.end])
                assert "".join(text.split()) in "".join(found.split())
