"""Stories, an index that finds pieces of them, and a model that says which ones it was shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from zlib import crc32

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import BaseNode, Document, NodeWithScore, QueryBundle, TextNode
from pydantic import Field

from ttt_core import AdaptationConfig

ANIMALS = ("owl", "fox", "elk")
RECIPE = AdaptationConfig(steps=2, gate=False, early_stopping=False, held_out=2, clozes_per_step=2)
"""Always adapts."""

_SENTENCE = re.compile(r"The (\w+) number (\d+) lives in tree \d+\.")


def story(animal: str, sentences: int = 24) -> str:
    """A text that is split into several nodes."""
    told = (f"The {animal} number {n} lives in tree {n * 7 % 31}." for n in range(sentences))
    return "\n".join(told)


def say(prompt: str) -> str:
    """Say how many different sentences of each story stand in the prompt."""
    found = dict.fromkeys(_SENTENCE.findall(prompt))
    counts = {animal: sum(name == animal for name, _ in found) for animal in ANIMALS}
    return ", ".join(f"{n} of {animal}" for animal, n in counts.items() if n) or "nothing"


class WordEmbedding(BaseEmbedding):
    """Texts about one animal are alike; the other words tell them apart a little."""

    def _get_text_embedding(self, text: str) -> list[float]:
        words = re.findall(r"\w+", text.lower())
        vector = [float(words.count(animal)) for animal in ANIMALS] + [0.0] * 32
        for word in words:
            vector[len(ANIMALS) + crc32(word.encode()) % 32] += 0.01
        return vector

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def split(documents: Sequence[Document]) -> list[BaseNode]:
    """Split documents, with overlaps."""
    splitter = SentenceSplitter(chunk_size=80, chunk_overlap=20)
    return splitter.get_nodes_from_documents(documents)


def index_of(documents: Sequence[Document]) -> VectorStoreIndex:
    """Index the pieces of documents."""
    return VectorStoreIndex(split(documents), embed_model=WordEmbedding())


class Fixed(BaseRetriever):
    """Always finds the same nodes."""

    def __init__(self, nodes: Sequence[BaseNode]) -> None:
        super().__init__()
        self.nodes = scored(nodes)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self.nodes


def scored(nodes: Sequence[BaseNode]) -> list[NodeWithScore]:
    """Nodes as a retriever returns them, the best first."""
    return [NodeWithScore(node=node, score=1 - 0.1 * n) for n, node in enumerate(nodes)]


def orphan(text: str) -> TextNode:
    """A node of which nobody knows where it comes from."""
    return TextNode(text=text)


class Calls(BaseEventHandler):
    """What TTTLLMs were asked: for each answer what it says of the documents."""

    done: list[dict[str, Any]] = Field(default_factory=list)
    """`raw["ttt"]` of every call so far, in order."""

    @classmethod
    def class_name(cls) -> str:
        return "Calls"

    def handle(self, event: BaseEvent, **_: Any) -> None:
        if isinstance(event, LLMChatEndEvent) and event.response and event.response.raw:
            self.done.append(event.response.raw["ttt"])


@contextmanager
def noted_calls() -> Iterator[Calls]:
    """Note all calls. Engines exchange an LLM's callback manager, but not the dispatcher."""
    calls, dispatcher = Calls(), get_dispatcher()
    dispatcher.add_event_handler(calls)
    try:
        yield calls
    finally:
        dispatcher.event_handlers.remove(calls)
