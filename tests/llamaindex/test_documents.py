"""What LlamaIndex split, read in pages or labelled is one document with one identity."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from llama_index.core.node_parser import (
    HierarchicalNodeParser,
    SentenceSplitter,
    TextSplitter,
    TokenTextSplitter,
)
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    MediaResource,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)

import ttt_core
from llamaindex_ttt.documents import DocumentLike, to_documents
from ttt_core import ConfigError, DocumentError

PATH = {"file_path": "/home/me/owls.txt"}
OTHER = {"file_path": "/home/me/foxes.txt"}

WORDS = st.text(st.sampled_from("abcdefgäß漢字🦉"), min_size=1, max_size=9)
BREAKS = st.sampled_from([" ", " ", " ", "  ", "\n", "\n\n", "\n\n\n", "\n    ", ". ", ".\n", "\t"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Words and white space of all kinds; numbered, as no two places of a real text are alike."""
    parts = draw(st.lists(st.tuples(WORDS, BREAKS), min_size=1, max_size=300))
    return "".join(f"{word}{number}{gap}" for number, (word, gap) in enumerate(parts))


SPLITTERS = st.builds(
    lambda kind, size, overlap: kind(
        chunk_size=size, chunk_overlap=int(size * overlap), tokenizer=str.split
    ),
    st.sampled_from([SentenceSplitter, TokenTextSplitter]),
    st.integers(5, 120),
    st.floats(0, 0.6),
)


def squeeze(text: str) -> str:
    return "".join(text.split())


def read(documents: object) -> list[str]:
    return [document.text for document in to_documents(documents)]  # type: ignore[arg-type]


# Nodes


@settings(max_examples=80)
@given(texts(), SPLITTERS, st.randoms(use_true_random=False))
def test_nodes_are_put_together_to_what_was_split(
    text: str, splitter: TextSplitter, chance: random.Random
) -> None:
    nodes = splitter.get_nodes_from_documents([Document(text=text)])
    [whole] = read(nodes)
    assert squeeze(whole) == squeeze(text)
    chance.shuffle(nodes)
    assert read([*nodes, NodeWithScore(node=nodes[0], score=1.0)]) == [whole]


@settings(max_examples=40)
@given(texts(), SPLITTERS, st.data())
def test_some_nodes_of_a_source_keep_its_order(
    text: str, splitter: TextSplitter, data: st.DataObject
) -> None:
    nodes = splitter.get_nodes_from_documents([Document(text=text)])
    some = data.draw(st.lists(st.sampled_from(nodes), min_size=1, unique_by=lambda n: n.node_id))
    [part] = read(some)
    words = text.split()
    places = [words.index(word) for word in part.split() if word in set(words)]
    assert places == sorted(set(places))


@pytest.mark.parametrize("splitter", [SentenceSplitter, TokenTextSplitter])
def test_white_space_of_prose_and_code_comes_back(
    splitter: type[SentenceSplitter | TokenTextSplitter],
) -> None:
    prose = "\n\n".join(f"Owl {n} lives in tree {n * 7}. It sleeps by day." for n in range(60))
    code = "\n\n\n".join(f"def owl_{n}():\n    x = {n}\n    return x" for n in range(60))
    for text in (prose, code):
        document = Document(text=text)
        nodes = splitter(chunk_size=50, chunk_overlap=20).get_nodes_from_documents([document])
        assert len(nodes) > 10
        assert read(nodes) == [text]


def test_a_node_inside_a_longer_one_adds_nothing() -> None:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="owls")}
    nodes = [
        TextNode(text=text, start_char_idx=start, end_char_idx=start + len(text),
                 relationships=source)
        for start, text in ((12, "hunt."), (4, "owls"), (0, "The owls all"))
    ]  # fmt: skip
    assert read(nodes) == ["The owls allhunt."]


def test_nodes_far_apart_stand_in_paragraphs_of_their_own() -> None:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="owls")}
    first = TextNode(text="One.", start_char_idx=0, end_char_idx=4, relationships=source)
    last = TextNode(text="Nine.", start_char_idx=900, end_char_idx=905, relationships=source)
    assert read([last, first]) == ["One.\n\nNine."]


@pytest.mark.parametrize(
    "places",
    [
        [(None, None), (0, 4)],  # One is not known.
        [(0, 4), (2, 6)],  # They share two characters, which differ.
        [(0, 9), (9, 13)],  # The first one has another length.
    ],
)
def test_places_that_cannot_be_leave_nodes_in_the_order_given(
    places: list[tuple[int | None, int | None]],
) -> None:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="owls")}
    nodes = [
        TextNode(text=text, start_char_idx=start, end_char_idx=end, relationships=source)
        for text, (start, end) in zip(["owls", "hunt"], places, strict=True)
    ]
    assert read(nodes) == ["owls\n\nhunt"]
    assert read(nodes[::-1]) == ["hunt\n\nowls"]


def test_a_node_inside_another_one_is_read_once() -> None:
    text = " ".join(f"Owl {number} lives in tree {number * 7}." for number in range(200))
    document = Document(text=text)
    parser = HierarchicalNodeParser.from_defaults(chunk_sizes=[512, 128], chunk_overlap=20)
    nodes = parser.get_nodes_from_documents([document])
    assert read(nodes) == read([document, *nodes]) == read([*nodes, document]) == [text]


def test_nodes_of_several_sources_make_a_document_each() -> None:
    documents = [Document(text=f"The {name} eats.\n\nIt sleeps.") for name in ("owl", "fox")]
    nodes = SentenceSplitter(chunk_size=5, chunk_overlap=0).get_nodes_from_documents(documents)
    assert len(nodes) > 2
    mixed: list[DocumentLike] = [
        nodes[-1],
        "a text",
        *nodes,
        ttt_core.Document.of("ours", title="t"),
    ]
    assert [squeeze(text) for text in read(mixed)] == [
        squeeze(text) for text in (documents[1].text, "a text", documents[0].text, "ours")
    ]
    assert to_documents(mixed)[-1].title == "t"


# Pages


@settings(max_examples=60)
@given(st.lists(texts().filter(str.strip), min_size=1, max_size=6), st.data())
def test_pages_make_what_was_cut_at_blank_lines(pages: list[str], data: st.DataObject) -> None:
    pages = [ttt_core.Document.of(page).text for page in pages]
    whole = ttt_core.Document.of("\n\n".join(pages))
    empty = data.draw(st.sampled_from(["", " \n", "\ufeff"]))
    for line_end in ("\n", "\r\n"):
        documents = [
            Document(text=page.replace("\n", line_end) + line_end, metadata={**PATH, "page": n})
            for n, page in enumerate([empty, *pages, empty])
        ]
        assert to_documents(documents) == (whole,)


@settings(max_examples=30)
@given(st.lists(texts().filter(str.strip), min_size=1, max_size=4), SPLITTERS)
def test_nodes_of_pages_make_the_file(pages: list[str], splitter: TextSplitter) -> None:
    metadata = {"file_path": "f"}  # Short: splitters make room for it.
    documents = [Document(text=page, metadata=metadata) for page in pages]
    try:
        nodes = splitter.get_nodes_from_documents(documents)
    except ValueError:  # No room for metadata.
        assume(False)
    [file] = read(nodes)
    assert squeeze(file) == squeeze("".join(pages))


def test_files_are_told_apart_and_stand_where_they_first_appear() -> None:
    pages = [
        Document(text="fox 1", metadata=OTHER),
        Document(text="owl 1", metadata=PATH),
        Document(text="no file"),
        Document(text="fox 2", metadata=OTHER),
        Document(text="no file either"),
        Document(text="owl 2", metadata=PATH),
    ]
    assert read(pages) == ["fox 1\n\nfox 2", "owl 1\n\nowl 2", "no file", "no file either"]


def test_the_file_of_a_node_is_known_by_its_source() -> None:
    splitter = SentenceSplitter(include_metadata=False)
    pages = [Document(text=f"page {number}", metadata=PATH) for number in range(3)]
    assert read(splitter.get_nodes_from_documents(pages)) == ["page 0\n\npage 1\n\npage 2"]


# Identity


@given(texts().filter(str.strip))
def test_identity_is_the_text(text: str) -> None:
    identity = ttt_core.Document.of(text).hash
    same: Sequence[BaseNode | NodeWithScore] = [
        Document(text=text),
        Document(text=text, id_="1", metadata={**PATH, "last_modified_date": "2026-01-01"}),
        Document(text=text.replace("\n", "\r\n")),
        TextNode(text=text, metadata=OTHER),
        NodeWithScore(node=TextNode(text=text), score=0.1),
    ]
    assert {to_documents(one)[0].hash for one in same} == {identity}
    assert {to_documents([one])[0].hash for one in same} == {identity}


def test_one_document_given_twice_is_read_once() -> None:
    owl, fox = Document(text="owl", id_="1"), Document(text="fox", id_="1")
    assert read([owl, owl]) == ["owl"]
    assert read([owl, fox]) == ["owl", "fox"]
    assert read(["owl", "owl"]) == ["owl", "owl"]


def test_nothing_given_is_changed() -> None:
    nodes = SentenceSplitter(chunk_size=5, chunk_overlap=2).get_nodes_from_documents(
        [Document(text="one two three four five six seven", metadata={})]
    )
    before = [node.to_dict() for node in nodes]
    to_documents(nodes[::-1])
    assert [node.to_dict() for node in nodes] == before


# Errors


@pytest.mark.parametrize("found", [1, None, b"owl", Path("owl"), {"text": "owl"}.items()])
def test_what_is_no_document_is_named(found: object) -> None:
    kind = "tuple" if isinstance(found, type({}.items())) else type(found).__name__
    with pytest.raises(ConfigError, match=f"found {kind}") as caught:
        read(found)
    assert "owl" not in str(caught.value)
    with pytest.raises(ConfigError, match="expected documents as str, Document or node"):
        read([Document(text="owl"), found])


@pytest.mark.parametrize(
    "documents",
    [
        "",
        [Document(text=" \n")],
        [Document(text="", metadata=PATH), Document(text=" ", metadata=PATH)],
        [Document(text=""), TextNode(text="")],
        [Document(text="owl"), ""],
    ],
)
def test_what_is_empty_is_refused(documents: object) -> None:
    with pytest.raises(DocumentError, match="empty"):
        read(documents)


@pytest.mark.parametrize(
    "node",
    [
        ImageNode(image_url="https://example.com/owl.png"),
        Document(image_resource=MediaResource(path=Path("/home/me/owl.png"))),
        Document(audio_resource=MediaResource(data=b"RIFF")),
    ],
)
def test_images_and_sounds_are_refused_unless_they_have_text(node: BaseNode) -> None:
    with pytest.raises(ConfigError, match=f"found {type(node).__name__} without any") as caught:
        read([node])
    assert "owl" not in str(caught.value)
    assert read(ImageNode(text="an owl", image_url="https://example.com/owl.png")) == ["an owl"]


def test_what_readers_make_of_empty_files_is_left_out() -> None:
    empty = Document(text=" \n", metadata={"file_path": "__init__.py"})
    assert to_documents([empty, Document(text="owl"), TextNode(text="")]) == to_documents("owl")
