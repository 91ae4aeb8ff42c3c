"""Swap one class in a LangChain chain: prompt | ChatTTT | parser, over a document read once.

python cookbook/02_langchain_chain.py
"""

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_ttt import ChatTTT
from ttt_core.sandbox import make_registry

registry = make_registry(256, seed=1, questions=3)
documents = [Document(page_content=registry.text, metadata={"source": "registry"})]

llm = ChatTTT(max_tokens=32).with_documents(documents)  # was: ChatOpenAI(...), ChatOllama(...)
chain = ChatPromptTemplate.from_messages([("human", "{question}")]) | llm | StrOutputParser()

for question in registry.questions:
    print(f"{question.text} {chain.invoke({'question': question.text})}")

for piece in chain.stream({"question": registry.questions[0].text}):
    print(piece, end="|", flush=True)
print()
