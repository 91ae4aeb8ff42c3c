"""TTTSynthesizer: one answer from whole documents, not one for every few retrieved pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.instrumentation.events.synthesis import (
    GetResponseEndEvent,
    GetResponseStartEvent,
)
from llama_index.core.llms import LLM
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.prompts.base import BasePromptTemplate
from llama_index.core.response_synthesizers import CompactAndRefine
from llama_index.core.response_synthesizers.refine import dispatcher
from llama_index.core.schema import BaseNode, NodeWithScore, QueryType
from llama_index.core.settings import Settings
from llama_index.core.storage.docstore import BaseDocumentStore
from llama_index.core.types import RESPONSE_TEXT_TYPE
from pydantic import BaseModel

from llamaindex_ttt.parents import (
    MOST_DOCUMENTS,
    ParentFinder,
    check_most,
    tell,
    ttt_llm,
)
from ttt_core.chat import SEAM
from ttt_core.integration import run_in_thread

_NODES = "ttt_nodes"
"""Name under which `get_response` receives the nodes, which LlamaIndex keeps from it."""


class TTTSynthesizer(CompactAndRefine):
    """Answers once from the documents that retrieved nodes were cut from, however many nodes.

    The prompt is the `text_qa_template`, with "(the document above)" as its context, and with those
    pieces whose document is not found, does not fit the window or is one too many. Where there is
    no document at all, it does what `CompactAndRefine` does with the pieces; so it does with a
    `prev_response`, with `structured_answer_filtering`, or `multimodal`.

    Example:
        >>> synthesizer = TTTSynthesizer(llm=llm, docstore=index.docstore)
        >>> engine = RetrieverQueryEngine.from_args(retriever, response_synthesizer=synthesizer)

    Args:
        llm: A TTTLLM, or a structured LLM around one; None: that of the settings.
        documents: What was indexed, as LlamaIndex's documents.
        docstore: The index's, to put documents together again that are not given.
        max_documents: How many documents one question is about, at most.
        streaming: Answer piece by piece; objects come whole, as one response.
        output_cls: Answer with an object of this class.
        options: Those of `CompactAndRefine`.

    Raises:
        ConfigError: Another LLM, or neither documents nor a docstore.
    """

    def __init__(
        self,
        llm: LLM | None = None,
        documents: Sequence[BaseNode] | None = None,
        docstore: BaseDocumentStore | None = None,
        max_documents: int = MOST_DOCUMENTS,
        *,
        streaming: bool = False,
        output_cls: type[BaseModel] | None = None,
        **options: Any,
    ) -> None:
        self._finder = ParentFinder(documents, docstore)
        check_most(max_documents)
        self._max_documents = max_documents
        llm = llm or Settings.llm
        ttt_llm(llm)
        # LlamaIndex can stream text alone: of objects it would give parts, or nothing.
        streaming = streaming and output_cls is None and not isinstance(llm, StructuredLLM)
        super().__init__(llm=llm, streaming=streaming, output_cls=output_cls, **options)

    def synthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """Answer a question about retrieved nodes."""
        response_kwargs |= self._told(nodes)
        return super().synthesize(query, nodes, additional_source_nodes, **response_kwargs)

    async def asynthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """Answer beside the event loop."""
        response_kwargs |= self._told(nodes)
        return await super().asynthesize(query, nodes, additional_source_nodes, **response_kwargs)

    def get_response(
        self,
        query_str: str,
        text_chunks: Sequence[str],
        prev_response: RESPONSE_TEXT_TYPE | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TEXT_TYPE:
        """Answer from the documents, or else from the chunks."""
        nodes = response_kwargs.pop(_NODES, ())
        if not self._structured_answer_filtering and prev_response is None:
            parents = self._finder.find(nodes, ttt_llm(self._llm), self._max_documents)
            if parents.documents:
                tell(parents, ttt_llm(self._llm))
                dispatcher.event(_start(query_str, text_chunks))
                answer = self._answer(query_str, text_chunks, response_kwargs)
                dispatcher.event(GetResponseEndEvent())
                return answer
        return super().get_response(query_str, text_chunks, prev_response, **response_kwargs)

    async def aget_response(
        self,
        query_str: str,
        text_chunks: Sequence[str],
        prev_response: RESPONSE_TEXT_TYPE | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TEXT_TYPE:
        """Answer from the documents, or else from the chunks, beside the event loop."""
        nodes = response_kwargs.pop(_NODES, ())
        if not self._structured_answer_filtering and prev_response is None:
            parents = await self._finder.afind(nodes, ttt_llm(self._llm), self._max_documents)
            if parents.documents:
                # In a thread: the documents are hashed there.
                await run_in_thread(lambda _: tell(parents, ttt_llm(self._llm)))
                dispatcher.event(_start(query_str, text_chunks))
                answer = await self._aanswer(query_str, text_chunks, response_kwargs)
                dispatcher.event(GetResponseEndEvent())
                return answer
        return await super().aget_response(query_str, text_chunks, prev_response, **response_kwargs)

    def _told(self, nodes: list[NodeWithScore]) -> dict[str, Any]:
        # Newer ones of LlamaIndex take messages with images here, which are none of ours.
        return {} if getattr(self, "_multimodal", False) else {_NODES: nodes}

    def _prompt(self, query_str: str) -> BasePromptTemplate:
        return self._text_qa_template.partial_format(query_str=query_str)

    def _answer(
        self, query_str: str, text_chunks: Sequence[str], options: dict[str, Any]
    ) -> RESPONSE_TEXT_TYPE:
        prompt = self._prompt(query_str)
        arguments = {"context_str": SEAM.join(text_chunks), **options}
        if self._output_cls is not None:
            answer = self._llm.structured_predict(self._output_cls, prompt, **arguments)
            return cast("BaseModel", answer)
        if self._streaming:
            return self._llm.stream(prompt, **arguments)
        return self._llm.predict(prompt, **arguments)

    async def _aanswer(
        self, query_str: str, text_chunks: Sequence[str], options: dict[str, Any]
    ) -> RESPONSE_TEXT_TYPE:
        prompt = self._prompt(query_str)
        arguments = {"context_str": SEAM.join(text_chunks), **options}
        if self._output_cls is not None:
            answer = await self._llm.astructured_predict(self._output_cls, prompt, **arguments)
            return cast("BaseModel", answer)
        if self._streaming:
            return await self._llm.astream(prompt, **arguments)
        return await self._llm.apredict(prompt, **arguments)


def _start(query_str: str, text_chunks: Sequence[str]) -> GetResponseStartEvent:
    return GetResponseStartEvent(query_str=query_str, text_chunks=list(text_chunks))
