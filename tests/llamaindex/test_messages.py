"""What LlamaIndex's messages say reaches the core: texts, documents, marks, passages and calls."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    CitableBlock,
    CitationBlock,
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.llms import ChatMessage, MessageRole, TextBlock

from llamaindex_ttt.messages import to_messages
from ttt_core import ConfigError, Document, DocumentError
from ttt_core.integration.prompt import Attachment, Marked, Part, Passage, Text, text_of

POINT = CachePoint(cache_control=CacheControl(type="ephemeral"))
OWLS = "The owl lives in tree 7."
TITLED = Document.of(OWLS, title="Owls")


def text(content: str) -> TextBlock:
    return TextBlock(text=content)


def parts(*blocks: ContentBlock, role: str = "user", **about: Any) -> list[Part]:
    [turn] = to_messages([ChatMessage(role=role, blocks=list(blocks), additional_kwargs=about)])
    content = turn["content"]
    assert isinstance(content, list)
    return content


def owls(**changed: Any) -> DocumentBlock:
    return DocumentBlock(**{"data": OWLS.encode(), "title": "Owls", **changed})


# Roles and texts


@pytest.mark.parametrize("role", list(MessageRole))
def test_every_role_becomes_one_that_templates_know(role: MessageRole) -> None:
    [turn] = to_messages([ChatMessage(role=role, content="hi")])
    known = {"developer": "system", "chatbot": "assistant", "model": "assistant",
             "function": "tool"}  # fmt: skip
    assert turn["role"] == known.get(role.value, role.value)
    assert turn["content"] == ("hi" if turn["role"] == "tool" else [Text("hi")])
    assert "template" not in turn


def test_messages_of_another_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"roles system, .*found 'critic'"):
        to_messages([ChatMessage.model_construct(role="critic", blocks=[text("owl")])])
    with pytest.raises(ConfigError, match="as ChatMessage, found str"):
        to_messages("owl")  # type: ignore[arg-type]


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5), st.sampled_from(["user", "model"]))
def test_texts_are_joined_as_llamaindex_does(texts: list[str], role: str) -> None:
    message = ChatMessage(role=role, blocks=[text(one) for one in texts])
    [turn] = to_messages([message])
    assert turn["content"] == [Text(message.content or "")]


def test_what_says_nothing_is_left_out() -> None:
    thought = ThinkingBlock(content="Hm.")
    assert parts(thought, text(""), text("a"), thought, text("b"), role="assistant") == [
        Text("a\nb")
    ]
    nothing = [
        ChatMessage(role="user", content=""),
        ChatMessage(role="assistant"),
        ChatMessage(role="assistant", blocks=[thought]),
        ChatMessage(role="user", blocks=[POINT]),
    ]
    assert to_messages(nothing) == []


@pytest.mark.parametrize("role", ["user", "tool", "assistant"])
@pytest.mark.parametrize(
    "block",
    [
        ImageBlock(url="https://example.com/owl.png"),
        AudioBlock(url="https://example.com/owl.wav"),
        VideoBlock(url="https://example.com/owl.mp4"),
        CitableBlock(title="t", source="s", content=[ImageBlock(url="https://example.com/owl")]),
        CitationBlock(
            title="t",
            source="s",
            cited_content=ImageBlock(url="https://example.com/owl"),
            additional_location_info={},
        ),
    ],
)
def test_what_is_no_text_is_refused(block: ContentBlock, role: str) -> None:
    message = "TTTLLM takes text and text documents, found a (Image|Audio|Video)Block"
    with pytest.raises(ConfigError, match=message) as caught:
        parts(text("owl"), block, role=role)
    assert "owl" not in str(caught.value)


def test_nothing_given_is_changed() -> None:
    about = {"ttt_passages": [[0, 0, 1]], "ttt_template": True}
    blocks = [text("ab"), POINT, owls(), owls(data=BytesIO(b"fox")), text("c")]
    call = ToolCallBlock(tool_name="f", tool_kwargs={"x": [1]})
    messages = [
        ChatMessage(role="system", blocks=blocks, additional_kwargs=about),
        ChatMessage(role="assistant", blocks=[call]),
    ]
    before = [message.model_dump() for message in messages]
    first = to_messages(messages)
    assert [message.model_dump() for message in messages] == before
    first[1]["tool_calls"][0]["function"]["arguments"]["y"] = 2
    assert call.tool_kwargs == {"x": [1]}
    assert to_messages(messages)[0] == first[0]


# Documents


@pytest.mark.parametrize(
    "block",
    [
        owls(),
        owls(data=base64.b64encode(OWLS.encode())),
        owls(data=BytesIO(OWLS.encode())),
        owls(data=b"\xef\xbb\xbf" + OWLS.encode()),
        owls(data=OWLS.encode("utf-16")),
        owls(document_mimetype="text/markdown"),
        DocumentBlock.model_validate_json(owls().model_dump_json()),
        CitableBlock(title="Owls", source="/home/me/owls.txt", content=[text(OWLS)]),
        CitableBlock(title="Owls", source="s", content=[owls(title="Other")]),
    ],
)
def test_documents_are_attached_with_their_titles(block: ContentBlock) -> None:
    assert parts(text("a"), block, text("b")) == [Text("a"), Attachment(TITLED), Text("b")]


def test_a_title_that_nobody_gave_is_none() -> None:
    [part] = parts(DocumentBlock(data=OWLS.encode()))
    assert part == Attachment(Document.of(OWLS))


def test_a_citable_text_in_pieces_is_one_document() -> None:
    pieces: list[Any] = [text("One."), owls(data=b"Two.\n"), text("Three.")]
    [part] = parts(CitableBlock(title="Owls", source="s", content=pieces))
    assert part == Attachment(Document.of("One.\n\nTwo.\n\nThree.", title="Owls"))


def test_only_bytes_are_read_never_paths_and_urls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "owls.txt"
    file.write_text(OWLS)
    opened: list[Path] = []

    def read_bytes(path: Path) -> bytes:
        opened.append(path)
        return b"x"

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    inline = "data:text/plain;base64," + base64.b64encode(OWLS.encode()).decode()
    for where in ({"path": file}, {"url": file.as_uri()}, {"url": inline}, {}):
        for role in ("user", "tool"):
            with pytest.raises(ConfigError, match=r"DocumentBlock\(data=") as caught:
                parts(DocumentBlock(**where), role=role)
            assert "owl" not in str(caught.value)
    assert not opened
    assert parts(owls(path=file)) == [Attachment(TITLED)]  # Its data counts.


def test_documents_that_are_no_text_are_refused() -> None:
    with pytest.raises(ConfigError, match="found 'application/pdf'"):
        parts(owls(data=b"%PDF-1.7 \x00"))
    with pytest.raises(ConfigError, match="found 'image/png'"):
        parts(owls(document_mimetype="image/png"))
    for data in (b"\x00\x01", b"\xff\xfa\xfb"):
        with pytest.raises(DocumentError, match="a document in a message is"):
            parts(owls(data=data))
    for nothing in (b"", b" \n", BytesIO(b"")):
        with pytest.raises(DocumentError, match="empty"):
            parts(owls(data=nothing))


def test_a_citation_is_the_text_it_cites() -> None:
    cited = CitationBlock(
        title="t", source="s", cited_content=text("b"), additional_location_info={}
    )
    assert parts(text("a"), cited, text("c"), role="assistant") == [Text("a\nb\nc")]


# Cache points


def test_text_before_a_cache_point_is_marked() -> None:
    assert parts(text("a"), text("b"), POINT, text("c")) == [Marked("a\nb"), Text("\nc")]
    assert parts(text("a"), POINT, text("b"), POINT, text("c"), role="system") == [
        Marked("a"), Text("\n"), Marked("b"), Text("\nc"),
    ]  # fmt: skip
    assert parts(text("a"), POINT) == [Marked("a")]


def test_a_cache_point_behind_nothing_marks_nothing() -> None:
    assert parts(POINT, text("a")) == [Text("a")]
    assert parts(text("a"), POINT, POINT, text("b")) == [Marked("a"), Text("\nb")]
    assert parts(owls(), POINT, text("a")) == [Attachment(TITLED), Text("a")]


def test_documents_part_marked_texts() -> None:
    found = parts(text("a"), text("b"), owls(), text("c"), POINT, text("d"))
    assert found == [Marked("a\nb"), Attachment(TITLED), Marked("c"), Text("\nd")]


def test_only_who_asks_marks_texts() -> None:
    assert parts(text("a"), POINT, text("b"), role="assistant") == [Text("a\nb")]
    assert (
        to_messages([ChatMessage(role="tool", blocks=[text("a"), POINT, text("b")])])[0]["content"]
        == "a\nb"
    )


BLOCKS = st.lists(st.one_of(st.text(max_size=3), st.just(POINT), st.just(owls())), max_size=8)
SPANS = st.lists(st.tuples(st.integers(-1, 8), st.integers(-1, 4), st.integers(-1, 4)), max_size=6)


@given(BLOCKS, SPANS)
def test_marks_and_passages_change_no_text(
    given_blocks: list[Any], spans: list[tuple[int, int, int]]
) -> None:
    blocks = [text(one) if isinstance(one, str) else one for one in given_blocks]
    message = ChatMessage(blocks=blocks, additional_kwargs={"ttt_passages": spans})
    runs: list[list[str]] = [[]]
    for block in blocks:
        if isinstance(block, DocumentBlock):
            runs.append([])
        elif isinstance(block, TextBlock) and block.text:
            runs[-1].append(block.text)
    found = [part for turn in to_messages([message]) for part in turn["content"]]
    alone = [None if isinstance(part, Attachment) else text_of({"content": part}) for part in found]
    said = "".join("\0" if part is None else part for part in alone)
    assert said == "\0".join("\n".join(run) for run in runs)
    assert all(part is None or part for part in alone)
    kinds = [type(part) for part in found]
    assert all(pair != (Text, Text) for pair in pairwise(kinds))


# Passages and templates


def test_passages_are_told_apart() -> None:
    found = parts(text("About"), text("owls and foxes."), ttt_passages=[[1, 9, 14], [1, 0, 4]])
    assert [(type(part), text_of({"content": part})) for part in found] == [
        (Text, "About\n"), (Passage, "owls"), (Text, " and "), (Passage, "foxes"), (Text, "."),
    ]  # fmt: skip
    [whole] = parts(text("owls"), ttt_passages=[[0, 0, 4]])
    assert isinstance(whole, Passage)


def test_what_readers_note_of_files_is_no_part_of_a_passage() -> None:
    shown = f"file_path: /home/me/owls.txt\n\n{OWLS}"
    [part] = parts(text(shown), ttt_passages=[[0, 0, len(shown)]])
    assert isinstance(part, Passage)
    assert (part.text, part.content) == (shown, OWLS)


@pytest.mark.parametrize(
    "spans",
    [
        [[0, 0, 99]], [[0, -1, 2]], [[0, 2, 2]], [[0, 3, 1]], [[7, 0, 1]], [[1, 0, 1]], [[0, 1]],
        [["0", 0, 1]], [None], "012", 5, {"0": 1}, [[0, None, None]],
    ],
)  # fmt: skip
def test_passages_that_do_not_fit_are_text(spans: Any) -> None:
    assert parts(text("owls"), owls(), ttt_passages=spans) == [Text("owls"), Attachment(TITLED)]


def test_of_passages_that_overlap_the_first_counts() -> None:
    found = parts(text("owls"), ttt_passages=[[0, 0, 2], [0, 1, 3]])
    assert [text_of({"content": part}) for part in found] == ["ow", "ls"]
    assert [type(part) for part in found] == [Passage, Text]


def test_a_mark_counts_more_than_a_passage() -> None:
    assert parts(text("owls"), POINT, text("?"), ttt_passages=[[0, 0, 2]]) == [
        Marked("owls"), Text("\n?"),
    ]  # fmt: skip


def test_messages_of_templates_say_so() -> None:
    note = {"ttt_template": True}
    turns = to_messages([ChatMessage(role="system", content="Be brief.", additional_kwargs=note)])
    assert turns == [{"role": "system", "content": [Text("Be brief.")], "template": True}]


# Calls


def openai_call(**changed: Any) -> dict[str, Any]:
    return {"id": "1", "type": "function",
            "function": {"name": "add", "arguments": {"x": 1}, **changed}}  # fmt: skip


def as_object(call: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**{**call, "function": SimpleNamespace(**call["function"])})


BLOCK = ToolCallBlock(tool_call_id="1", tool_name="add", tool_kwargs={"x": 1})
KWARGS = '{"x": 1}'


@pytest.mark.parametrize(
    "message",
    [
        ChatMessage(role="assistant", blocks=[BLOCK]),
        ChatMessage(role="model", blocks=[BLOCK.model_copy(update={"tool_kwargs": KWARGS})]),
        *(
            ChatMessage(role="assistant", additional_kwargs={"tool_calls": [call]})
            for call in (
                openai_call(),
                openai_call(arguments=KWARGS),
                as_object(openai_call()),
                as_object(openai_call(arguments=KWARGS)),
            )
        ),
        ChatMessage(
            role="assistant", blocks=[BLOCK], additional_kwargs={"tool_calls": [openai_call()] * 2}
        ),
    ],
)
def test_calls_come_in_the_shape_of_templates(message: ChatMessage) -> None:
    assert to_messages([message]) == [
        {"role": "assistant", "content": [], "tool_calls": [openai_call()]}
    ]
    json.dumps(to_messages([message])[0]["tool_calls"])


@pytest.mark.parametrize("nothing", [{}, "", " ", "{}", None])
def test_calls_may_have_no_arguments(nothing: Any) -> None:
    message = ChatMessage(
        role="assistant",
        content="Well.",
        additional_kwargs={"tool_calls": [openai_call(arguments=nothing)]},
    )
    [turn] = to_messages([message])
    assert turn["tool_calls"] == [openai_call(arguments={})]
    assert turn["content"] == [Text("Well.")]


@pytest.mark.parametrize("given_kwargs", ['{"owl"', '["owl"]', '"owl"', "[" * 100_000, "7"])
def test_arguments_that_are_no_object_are_refused(given_kwargs: str) -> None:
    for message in (
        ChatMessage(
            role="assistant", blocks=[BLOCK.model_copy(update={"tool_kwargs": given_kwargs})]
        ),
        ChatMessage(
            role="assistant",
            additional_kwargs={"tool_calls": [openai_call(arguments=given_kwargs)]},
        ),
    ):
        with pytest.raises(ConfigError, match="a tool call's arguments are an object") as caught:
            to_messages([message])
        assert "owl" not in str(caught.value)


@pytest.mark.parametrize("call", [{}, {"function": {}}, {"name": ""}, "add", None])
def test_calls_without_a_name_are_refused(call: Any) -> None:
    message = ChatMessage(role="assistant", additional_kwargs={"tool_calls": [call]})
    with pytest.raises(ConfigError, match="has no name"):
        to_messages([message])


def test_calls_of_who_does_not_call_are_left_out() -> None:
    [turn] = to_messages([ChatMessage(role="user", blocks=[text("a"), BLOCK])])
    assert turn == {"role": "user", "content": [Text("a")]}


# Results


def result(*blocks: ContentBlock, **about: Any) -> ChatMessage:
    return ChatMessage(role="tool", blocks=list(blocks), additional_kwargs=about)


def test_results_name_the_call_and_the_tool() -> None:
    calls = ChatMessage(role="assistant", blocks=[BLOCK])
    turns = to_messages([
        result(text("early"), tool_call_id="1"),
        calls,
        result(text("a"), text("b"), tool_call_id="1"),
        result(text("c"), tool_call_id="1", name="other"),
        result(text("d"), tool_call_id="2"),
        result(),
    ])  # fmt: skip
    assert [
        (turn["tool_call_id"], turn["name"], turn["content"])
        for turn in turns
        if turn["role"] == "tool"
    ] == [
        ("1", "", "early"), ("1", "add", "a\nb"), ("1", "other", "c"), ("2", "", "d"),
        (None, "", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("about", [{"tool_call_id": "add"}, {"name": "add"}])
def test_calls_without_ids_are_known_by_their_tools(about: dict[str, Any]) -> None:
    call = {"function": {"name": "add", "arguments": {"x": 1}}}
    asked = ChatMessage(role="assistant", additional_kwargs={"tool_calls": [call]})
    [turn, answer] = to_messages([asked, result(text("2"), **about)])
    assert turn["tool_calls"][0]["id"] == answer["tool_call_id"] == answer["name"] == "add"


def test_documents_in_results_are_text() -> None:
    citable = CitableBlock(title="Foxes", source="s", content=[text("A fox.")])
    [turn] = to_messages([result(text("Found:"), DocumentBlock(data=OWLS.encode()), citable)])
    assert turn["content"] == f"Found:\n{OWLS}\nFoxes\n\nA fox."
