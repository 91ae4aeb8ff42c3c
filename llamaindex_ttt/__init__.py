"""LlamaIndex integration: a local LLM that reads documents once and adapts to them.

>>> from llamaindex_ttt import TTTLLM
>>> llm = TTTLLM(model="Qwen/Qwen3-4B").for_documents(docs)
>>> llm.complete("What did the auditor object to?").text
"""

try:
    import llama_index.core  # noqa: F401
except ImportError:
    raise ImportError(
        "llamaindex_ttt needs llama-index-core: pip install 'context-ttt[llamaindex]'"
    ) from None

from llamaindex_ttt.collecting import collect_raw
from llamaindex_ttt.errors import PredictionError
from llamaindex_ttt.events import (
    AdaptationEndEvent,
    AdaptationProgressEvent,
    AdaptationStartEvent,
)
from llamaindex_ttt.llms import TTTLLM
from llamaindex_ttt.postprocessor import TTTDocumentPostprocessor
from llamaindex_ttt.synthesizer import TTTSynthesizer

__all__ = [
    "TTTLLM",
    "AdaptationEndEvent",
    "AdaptationProgressEvent",
    "AdaptationStartEvent",
    "PredictionError",
    "TTTDocumentPostprocessor",
    "TTTSynthesizer",
    "collect_raw",
]
