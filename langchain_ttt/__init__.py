"""LangChain integration: swap the class in an existing chain.

>>> from langchain_ttt import ChatTTT
>>> llm = ChatTTT(model="Qwen/Qwen3-4B").with_documents(docs)
>>> llm.invoke("What did the auditor object to?").text
"""

try:
    import langchain_core  # noqa: F401
except ImportError:
    raise ImportError(
        "langchain_ttt needs langchain-core: pip install 'context-ttt[langchain]'"
    ) from None

from langchain_ttt.chat_models import ChatTTT
from langchain_ttt.errors import DocumentOverflowError, PromptOverflowError
from langchain_ttt.stores import AdapterByteStore

__all__ = ["AdapterByteStore", "ChatTTT", "DocumentOverflowError", "PromptOverflowError"]
