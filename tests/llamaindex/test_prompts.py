"""What of a prompt is a passage, where it stands, and what of it file readers wrote."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import (
    ChatPromptTemplate,
    PromptTemplate,
    RichPromptTemplate,
    SelectorPromptTemplate,
)

from llamaindex_ttt.messages import to_messages
from llamaindex_ttt.prompts import note, passages, without_headers, without_lists
from ttt_core.integration.prompt import TEMPLATE, Passage, Text

NAMES = ("context_str", "context_msg")
BOOK = "The amber falcon nests in {Oslo}, and the silver otter in Lima.\n\nNobody knows why."
WORDS = st.sampled_from(["owl", "file_path: /a", "file_name: b", "page_label: 3", "", " ", "x: y"])


def parts_of(prompt: Any, **arguments: Any) -> list[Any]:
    messages = note(prompt.format_messages(**arguments), passages(prompt, arguments, NAMES))
    return [part for turn in to_messages(messages) for part in turn["content"]]


@pytest.mark.parametrize(
    "prompt",
    [
        PromptTemplate("Read: {context_str} Now: {query_str}"),
        PromptTemplate("Read: {it} Now: {query_str}", template_var_mappings={"context_str": "it"}),
        RichPromptTemplate("Read: {{ context_str }} Now: {{ query_str }}"),
        SelectorPromptTemplate(PromptTemplate("Read: {context_str} Now: {query_str}")),
    ],
)  # fmt: skip
def test_a_passage_is_found_where_it_stands(prompt: Any) -> None:
    parts = parts_of(prompt, context_str=BOOK, query_str="Where?")
    assert parts == [Text("Read: "), Passage(BOOK, BOOK), Text(" Now: Where?")]


def test_a_prompt_that_was_filled_in_before_has_its_passage() -> None:
    prompt = PromptTemplate("{context_str}\n{query_str}").partial_format(context_str=BOOK)
    assert Passage(BOOK, BOOK) in parts_of(prompt, query_str="Where?")


def test_without_a_question_or_with_a_few_words_there_is_none() -> None:
    summary = PromptTemplate("Sum up: {context_str}")
    assert passages(summary, {"context_str": BOOK}, NAMES) == []
    question = PromptTemplate("{context_str}\n{query_str}")
    assert passages(question, {"context_str": "Where?", "query_str": "Where?"}, NAMES) == []
    assert passages(question, {"existing_answer": BOOK, "query_str": "Where?"}, NAMES) == []


def test_system_messages_of_templates_are_noted() -> None:
    prompt = ChatPromptTemplate.from_messages([("system", "Brief."), ("user", "{query_str}")])
    messages = to_messages(note(prompt.format_messages(query_str="Where?")))
    assert [message.get(TEMPLATE) for message in messages] == [True, None]
    assert to_messages([ChatMessage(role="system", content="Brief.")])[0].get(TEMPLATE) is None


def test_lists_are_joined_but_for_templates_that_go_through_them() -> None:
    given = {"context_str": ["one", "two"], "other": ["three"]}
    joined = {"context_str": "one\n\ntwo", "other": ["three"]}
    assert without_lists(PromptTemplate("{context_str}"), given, NAMES) == joined
    rich = RichPromptTemplate("{% for one in context_str %}[{{ one }}]{% endfor %}")
    assert without_lists(rich, given, NAMES) == given


def test_headers_of_files_are_left_out() -> None:
    first = "file_path: C:\\a\\b.txt\nfile_size: 3\n\nowl"
    second = "page_label: 2\nfile_path: /a/c.pdf\r\n\r\nfox"
    assert without_headers(f"{first}\n\n{second}") == "owl\n\nfox"


@pytest.mark.parametrize(
    "text",
    [
        "owl\nfile_path: /a\n\nfox",
        "file_name: 7.cfg\n\nfox",
        "file_path: /a\nowls: 3\n\nfox",
        "file_path:/a\n\nfox",
    ],
)
def test_what_is_no_header_stays(text: str) -> None:
    assert without_headers(text) == text


@given(st.lists(WORDS, max_size=12).map("\n".join))
def test_only_whole_paragraphs_of_header_lines_go(text: str) -> None:
    kept = without_headers(text).splitlines()
    lines = iter(text.splitlines())
    assert all(any(line == one for one in lines) for line in kept)  # A subsequence.
    gone = set(text.splitlines()) - set(kept)
    assert not {"owl", "x: y"} & gone
