"""TTTDocumentPostprocessor: questions about retrieved pieces, answered from their documents.

It tells TTTLLM which pieces belong to which documents. When an engine then passes these pieces as
a prompt's context, the LLM knows them, and reads the documents instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle
from llama_index.core.settings import Settings
from llama_index.core.storage.docstore import BaseDocumentStore
from pydantic import Field, PrivateAttr

from llamaindex_ttt.llms import TTTLLM
from llamaindex_ttt.parents import (
    MOST_DOCUMENTS,
    ParentFinder,
    Parents,
    check_most,
    tell,
    ttt_llm,
)
from ttt_core.integration import run_in_thread
from ttt_core.progress import ProgressCallback, ignore_progress


class TTTDocumentPostprocessor(BaseNodePostprocessor):
    """Lets a TTTLLM answer about the whole documents that retrieved nodes were cut from.

    For query engines and chat engines alike: the nodes go on as they are, with their order and
    scores, and the engine prompts as it always does. What is told is good for the next prompt that
    shows these pieces: questions about different documents may run at once, and an engine without
    this postprocessor reads the pieces.

    Put it last in the list: pieces that another postprocessor rewrites later are not known again.
    Pieces whose document is not found, does not fit the window or is one too many stay in the
    prompt, beside the documents.

    One document is adapted to at the first question that leads to it. Several are read together,
    and every combination of them is another one to adapt to: that happens when it comes again.

    Example:
        >>> postprocessor = TTTDocumentPostprocessor(llm=llm, docstore=index.docstore)
        >>> engine = index.as_query_engine(llm=llm, node_postprocessors=[postprocessor])

    Args:
        llm: The engine's: a TTTLLM, or a structured LLM around one; None: that of the settings.
        documents: What was indexed, as LlamaIndex's documents. They are never serialised.
        docstore: The index's, to put documents together again that are not given. Of nodes that
            come from files it is asked for the list of all its sources, for each question: pages of
            one file are several. Where that is slow, pass the documents.
        max_documents: How many documents one question is about, at most.
        adapt_first: Adapt here, and not when the LLM is called, whose `timeout` is then for the
            answer alone; to combinations when they come first, too.

    Raises:
        ConfigError: Another LLM, or neither documents nor a docstore.
    """

    llm: TTTLLM
    documents: Sequence[BaseNode] | None = Field(default=None, exclude=True, repr=False)
    docstore: BaseDocumentStore | None = Field(default=None, exclude=True, repr=False)
    max_documents: int = MOST_DOCUMENTS
    adapt_first: bool = False

    _finder: ParentFinder = PrivateAttr()

    def __init__(
        self,
        llm: LLM | Mapping[str, Any] | None = None,
        documents: Sequence[BaseNode] | None = None,
        docstore: BaseDocumentStore | None = None,
        max_documents: int = MOST_DOCUMENTS,
        adapt_first: bool = False,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        finder = ParentFinder(documents, docstore)
        check_most(max_documents)
        if isinstance(llm, Mapping):  # From a serialised form.
            llm = TTTLLM.from_dict(dict(llm))
        fields: dict[str, Any] = {
            "llm": ttt_llm(Settings.llm if llm is None else llm),
            "documents": documents,
            "docstore": docstore,
            "max_documents": max_documents,
            "adapt_first": adapt_first,
            "callback_manager": callback_manager or CallbackManager(),
        }
        super().__init__(**fields)
        self._finder = finder

    @classmethod
    def class_name(cls) -> str:
        """Name in payloads and serialised forms."""
        return "TTTDocumentPostprocessor"

    def __getstate__(self) -> dict[str, Any]:
        """Pickle, unless the LLM is not to be: LlamaIndex would leave it out, and take another."""
        self.llm.__getstate__()
        return super().__getstate__()

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        self._tell(self._finder.find(nodes, self.llm, self.max_documents))
        return nodes

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        parents = await self._finder.afind(nodes, self.llm, self.max_documents)
        await run_in_thread(lambda check: self._tell(parents, check))
        return nodes

    def _tell(self, parents: Parents, on_progress: ProgressCallback = ignore_progress) -> None:
        tell(parents, self.llm, on_progress, adapt_first=self.adapt_first)
