"""Swap one class in LlamaIndex: a chat engine over a document that was read once.

python cookbook/03_llamaindex_chat.py
"""

from llama_index.core import Document
from llama_index.core.chat_engine import SimpleChatEngine

from llamaindex_ttt import TTTLLM
from ttt_core.sandbox import make_registry

registry = make_registry(256, seed=1, questions=3)

llm = TTTLLM(max_tokens=32).for_documents([Document(text=registry.text)])  # was: Ollama(...)
chat = SimpleChatEngine.from_defaults(llm=llm)

for question in registry.questions:
    print(f"{question.text} {chat.chat(question.text)}")
    chat.reset()
