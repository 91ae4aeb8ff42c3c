"""Chains as LangChain's users write them, with ChatTTT in the place of another chat model."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.chains import RetrievalQA, create_retrieval_chain
from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_ttt import ChatTTT
from tests.scripted import ScriptedModel, scripted_tokenizer
from ttt_core import AdaptationConfig, DocumentError, TTTEngine

OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(9))
FOXES = "\n".join(f"the fox number {number} eats {number * 3 % 10} eggs" for number in range(9))
RECIPE = AdaptationConfig(steps=2, gate=False, early_stopping=False, held_out=2, clozes_per_step=2)
MIN_TOKENS = 64
"""Every document here has more tokens; single facts, instructions and questions have fewer."""

pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.deprecation.LangChainDeprecationWarning",  # RetrievalQA is old.
    "ignore::langchain_core._api.deprecation.LangChainPendingDeprecationWarning",
)


def report(prompt: str) -> str:
    """Say what stands in the prompt, how often, and what was asked last."""
    counts = {name: prompt.count(f"the {name} number 3 ") for name in ("owl", "fox")}
    found = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    question = prompt.rpartition("<|im_end|>")[0].rstrip().splitlines()[-1]
    return f"[{found}] {question.rpartition('Question: ')[2]}"


@pytest.fixture
def llm(tmp_path: Path) -> Iterator[ChatTTT]:
    tokenizer = scripted_tokenizer()
    model = ScriptedModel(report, tokenizer)
    with TTTEngine(model, tokenizer, adaptation=RECIPE, store=tmp_path / "store") as engine:
        yield ChatTTT(engine=engine, min_document_tokens=MIN_TOKENS)


@pytest.fixture
def auto(llm: ChatTTT) -> ChatTTT:
    return llm.model_copy(update={"documents_from": "auto"})


class Answers(BaseCallbackHandler):
    """The models' answers inside a chain."""

    def __init__(self) -> None:
        self.messages: list[AIMessage] = []

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.messages.append(response.generations[0][0].message)

    @property
    def done(self) -> list[tuple[str, str | None]]:
        """What was done with the documents, and where they came from."""
        all_done = [message.response_metadata["ttt"] for message in self.messages]
        return [(one["decision"], one["documents_from"]) for one in all_done]

    @property
    def config(self) -> Any:
        return {"callbacks": [self]}


def done(message: AIMessage) -> tuple[str, str | None]:
    about = message.response_metadata["ttt"]
    return about["decision"], about["documents_from"]


# Stuffed documents

STUFFED = {
    "context in the system message": ChatPromptTemplate.from_messages(
        [("system", "Answer from the context.\n\n{context}"), ("human", "{input}")]
    ),
    "context before the question": ChatPromptTemplate.from_template(
        "Answer from the context.\n\n{context}\n\nQuestion: {input}"
    ),
}


@pytest.mark.parametrize("prompt", STUFFED.values(), ids=STUFFED)
def test_a_document_that_is_stuffed_again_is_adapted_to(
    auto: ChatTTT, prompt: ChatPromptTemplate
) -> None:
    chain = create_stuff_documents_chain(auto, prompt)
    answers = Answers()
    for question in ("Where?", "Who?", "When?"):
        said = chain.invoke({"input": question, "context": [Document(OWLS)]}, answers.config)
        assert said == f"[1 owl] {question}"
    assert answers.done == [("read", "auto"), ("adapted", "auto"), ("adapted", "auto")]
    chain.invoke({"input": "Where?", "context": [Document(FOXES)]}, answers.config)
    assert answers.done[-1] == ("read", "auto")


@pytest.mark.parametrize("prompt", STUFFED.values(), ids=STUFFED)
def test_by_default_stuffed_text_is_only_text(llm: ChatTTT, prompt: ChatPromptTemplate) -> None:
    chain = create_stuff_documents_chain(llm, prompt)
    answers = Answers()
    for question in ("Where?", "Who?"):
        chain.invoke({"input": question, "context": [Document(OWLS)]}, answers.config)
    assert answers.done == [("no_document", None)] * 2


def test_a_named_document_is_found_in_what_is_stuffed(auto: ChatTTT) -> None:
    auto.adapt(OWLS)
    prompt = STUFFED["context before the question"]
    chain = create_stuff_documents_chain(auto, prompt)
    answers = Answers()
    said = chain.invoke({"input": "Where?", "context": [Document(OWLS)]}, answers.config)
    assert (said, answers.done) == ("[1 owl] Where?", [("adapted", "auto")])


# Retrieval

FACTS = [
    Document(f"{line}. {'It is well known to all who walk there. ' * 2}", metadata={"id": number})
    for number, line in enumerate([*OWLS.splitlines(), *FOXES.splitlines()])
]


@pytest.fixture
def retriever() -> Any:
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=16))
    store.add_documents(FACTS)
    return store.as_retriever(search_kwargs={"k": 2})


def different_questions(retriever: Any) -> list[str]:
    """Questions for which other facts are found, or in another order."""
    found: dict[tuple[str, ...], str] = {}
    for number in range(20):
        question = f"What of {number}?"
        texts = tuple(document.page_content for document in retriever.invoke(question))
        found.setdefault(texts, question)
    assert len(found) >= 5
    return list(found.values())[:5]


def make_qa(llm: ChatTTT, retriever: Any) -> Callable[[str, Any], str]:
    chain = RetrievalQA.from_chain_type(llm, retriever=retriever)
    return lambda question, config: chain.invoke({"query": question}, config)["result"]


def make_retrieval(llm: ChatTTT, retriever: Any) -> Callable[[str, Any], str]:
    prompt = STUFFED["context in the system message"]
    chain = create_retrieval_chain(retriever, create_stuff_documents_chain(llm, prompt))
    return lambda question, config: str(chain.invoke({"input": question}, config)["answer"])


def make_lcel(llm: ChatTTT, retriever: Any) -> Callable[[str, Any], str]:
    def join(documents: list[Document]) -> str:
        return "\n\n".join(document.page_content for document in documents)

    given = {"context": retriever | join, "input": RunnablePassthrough()}
    chain = given | STUFFED["context before the question"] | llm | StrOutputParser()
    return lambda question, config: str(chain.invoke(question, config))


CHAINS = [make_qa, make_retrieval, make_lcel]


@pytest.mark.parametrize("make", CHAINS)
def test_what_is_retrieved_anew_is_never_adapted_to(
    auto: ChatTTT, retriever: Any, make: Callable[..., Any]
) -> None:
    ask, answers = make(auto, retriever), Answers()
    for question in different_questions(retriever):
        assert ask(question, answers.config).endswith(question)
    assert answers.done == [("read", "auto")] * 5
    ask(different_questions(retriever)[0], answers.config)
    assert answers.done[-1] == ("adapted", "auto")


@pytest.mark.parametrize("make", CHAINS)
def test_retrieval_beside_a_document(
    llm: ChatTTT, retriever: Any, make: Callable[..., Any]
) -> None:
    """What was retrieved stands behind the document that the model is about."""
    ask, answers = make(llm.with_documents("the owl number 3 is old. " * 9), retriever), Answers()
    for question in different_questions(retriever)[:2]:
        assert ask(question, answers.config).startswith("[9 owl")
    assert {source for _, source in answers.done} == {"instance"}


# Documents that are named


def test_prompt_model_parser(llm: ChatTTT) -> None:
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{question}")])
    chain = prompt | llm.with_documents(OWLS) | StrOutputParser()
    assert chain.invoke({"question": "Where?"}) == "[1 owl] Where?"
    assert "".join(chain.stream({"question": "Where?"})) == "[1 owl] Where?"
    questions = [{"question": question} for question in ("Who?", "When?")]
    assert chain.batch(questions) == ["[1 owl] Who?", "[1 owl] When?"]


def cached(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}


def plain(text: str) -> dict[str, Any]:
    return {"type": "text-plain", "mime_type": "text/plain", "text": text}


def claude(text: str) -> dict[str, Any]:
    source = {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "document", "source": source, "title": "Report"}


def question(text: str = "Where?") -> dict[str, Any]:
    return {"type": "text", "text": text}


@pytest.mark.parametrize(
    "messages",
    [
        [SystemMessage([question("Be brief."), cached(OWLS)]), HumanMessage("Where?")],
        [HumanMessage([cached(OWLS), question()])],
        [HumanMessage([plain(OWLS), question()])],
        [HumanMessage([claude(OWLS), question()])],
        [HumanMessage([question("Hello."), plain(OWLS)]), AIMessage("Hi."), HumanMessage("Where?")],
    ],
    ids=["cached system", "cached", "text-plain", "document", "earlier"],
)
def test_messages_for_claude_bring_documents(llm: ChatTTT, messages: Any) -> None:
    answer = llm.invoke(messages)
    assert (answer.text, done(answer)) == ("[1 owl] Where?", ("adapted", "content"))
    again = llm.invoke(messages)
    assert again.response_metadata["ttt"]["source"] == "memory"
    template = ChatPromptTemplate.from_messages(messages)
    assert (template | llm).invoke({}).text == "[1 owl] Where?"


def test_a_template_with_a_marked_document(llm: ChatTTT) -> None:
    """As LangChain's guide to prompt caching writes it."""
    prompt = ChatPromptTemplate.from_messages(
        [("system", [cached("{book}")]), ("human", "{question}")]
    )
    answers = [
        (prompt | llm).invoke({"book": OWLS, "question": question})
        for question in ("Where?", "Who?")
    ]
    assert [answer.text for answer in answers] == ["[1 owl] Where?", "[1 owl] Who?"]
    assert [done(answer) for answer in answers] == [("adapted", "content")] * 2
    assert answers[1].response_metadata["ttt"]["source"] == "memory"


def test_short_marks_stay_in_the_text(llm: ChatTTT) -> None:
    answer = llm.invoke(
        [HumanMessage([cached("the owl number 3 is old"), question("Question: ?")])]
    )
    assert done(answer) == ("no_document", None)
    assert answer.text == "[1 owl] ?"


def test_a_handle_names_a_document(llm: ChatTTT) -> None:
    handle = llm.adapt(OWLS)
    field = llm.configurable_fields(documents=ConfigurableField(id="documents"))
    chosen: Any = {"configurable": {"documents": OWLS}}
    asked = [
        llm.invoke("Where?", adapter=handle.id),
        llm.invoke("Where?", adapter=handle),
        llm.bind(adapter=handle.id).invoke("Where?"),
        (ChatPromptTemplate.from_template("{x}") | llm.bind(adapter=handle.id)).invoke(
            {"x": "Where?"}
        ),
        llm.bind(adapter=handle.id).with_config(tags=["a"]).invoke("Where?"),
        llm.with_documents(FOXES).invoke("Where?", adapter=handle.id),
        field.invoke("Where?", chosen),
        field.with_config(chosen).invoke("Where?"),
    ]
    assert [answer.text for answer in asked] == ["[1 owl] Where?"] * len(asked)
    ids = {answer.response_metadata["ttt"]["document_id"] for answer in asked}
    assert ids == {handle.id}
    sources = [answer.response_metadata["ttt"]["documents_from"] for answer in asked]
    assert sources == ["call"] * 6 + ["instance"] * 2


def test_a_handle_that_is_not_known_is_an_error(llm: ChatTTT) -> None:
    with pytest.raises(DocumentError, match="adapt"):
        llm.invoke("Where?", adapter="0123456789abcdef")


# The class is swapped, and nothing else

ANCHORS = {
    "ChatOpenAI": (
        "from langchain_openai import ChatOpenAI as Chat",
        "from langchain_ttt import ChatTTT as Chat",
        "llm = Chat(model=MODEL, temperature=0, max_tokens=6, timeout=60, max_retries=2, "
        "seed=1, top_p=0.9, stop=None, n=1, logprobs=False, api_key='sk-1', streaming=False)",
    ),
    "ChatOllama": (
        "from langchain_ollama import ChatOllama as Chat",
        "from langchain_ttt import ChatTTT as Chat",
        "llm = Chat(model=MODEL, temperature=0, seed=1, top_k=40, top_p=0.9, stop=['###'])",
    ),
    "ChatAnthropic": (
        "from langchain_anthropic import ChatAnthropic as Chat",
        "from langchain_ttt import ChatTTT as Chat",
        "llm = Chat(model=MODEL, temperature=0, max_tokens=6, timeout=None, max_retries=2)",
    ),
    "ChatMistralAI": (
        "from langchain_mistralai import ChatMistralAI as Chat",
        "from langchain_ttt import ChatTTT as Chat",
        "llm = Chat(model=MODEL, temperature=0, max_tokens=6, top_p=1.0, max_retries=2)",
    ),
    "init_chat_model": (
        "from langchain.chat_models import init_chat_model as Chat",
        "from langchain_ttt import ChatTTT as Chat",
        "llm = Chat(model=MODEL, temperature=0, max_tokens=6)",
    ),
    "ChatHuggingFace": (
        "from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline; "
        "llm = ChatHuggingFace(llm=HuggingFacePipeline.from_model_id(MODEL, 'text-generation'))",
        "from langchain_ttt import ChatTTT; llm = ChatTTT(model=MODEL, max_tokens=6)",
        "",
    ),
}

PROGRAMS = {
    "lcel": """
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
{import_line}
{construct}
prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{{question}}")])
chain = prompt | llm | StrOutputParser()
result = chain.invoke({{"question": "Where?"}})
streamed = "".join(chain.stream({{"question": "Where?"}}))
batched = chain.batch([{{"question": "Where?"}}])[0]
""",
    "stuffed": """
from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
{import_line}
{construct}
prompt = ChatPromptTemplate.from_messages([("system", "{{context}}"), ("human", "{{input}}")])
chain = create_stuff_documents_chain(llm, prompt)
given = {{"input": "Where?", "context": [Document(OWLS)]}}
result = chain.invoke(given)
streamed = "".join(chain.stream(given))
batched = chain.batch([given])[0]
""",
    "retry and fallback": """
from langchain_core.output_parsers import StrOutputParser
{import_line}
{construct}
chain = llm.with_retry().with_fallbacks([llm.bind(stop=["!"])]) | StrOutputParser()
result = chain.invoke([("system", "Be brief."), ("human", "Where?")])
streamed = "".join(chain.stream([("system", "Be brief."), ("human", "Where?")]))
batched = chain.batch([[("system", "Be brief."), ("human", "Where?")]])[0]
""",
    "agent": """
from langchain.agents import create_agent
{import_line}
{construct}
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b
agent = create_agent(llm, tools=[add], system_prompt="Be brief.")
given = {{"messages": [("human", "Where?")]}}
result = agent.invoke(given, {{"recursion_limit": 4}})["messages"][-1].text
streamed = [*agent.stream(given, stream_mode="values")][-1]["messages"][-1].text
batched = agent.batch([given])[0]["messages"][-1].text
""",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.conftest import CHATML, build_model, build_tokenizer

    path = tmp_path_factory.mktemp("models") / "tiny"
    build_model("qwen3", max_position_embeddings=2048).save_pretrained(path)
    build_tokenizer(CHATML).save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_one_line_is_changed_and_the_program_runs(folder: str, anchor: str, program: str) -> None:
    theirs, ours, construct = ANCHORS[anchor]
    before, after = (
        PROGRAMS[program].format(import_line=line, construct=construct) for line in (theirs, ours)
    )
    changed = [
        line
        for line in difflib.ndiff(before.splitlines(), after.splitlines())
        if line.startswith("+ ")
    ]
    assert changed == [f"+ {ours}"]
    names: dict[str, Any] = {"MODEL": folder, "OWLS": OWLS}
    exec(compile(after, f"{program}.py", "exec"), names)
    assert names["result"] == names["streamed"] == names["batched"] != ""
