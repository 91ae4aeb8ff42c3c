"""Structured output: values of any schema, by any method, valid by construction."""

from __future__ import annotations

import asyncio
import enum
import json
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import jsonschema  # type: ignore[import-untyped]
import pydantic.v1
import pytest
from langchain_core.exceptions import ModelInvalidRequestError, OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel, Field, create_model
from typing_extensions import TypedDict

from langchain_ttt import ChatTTT
from langchain_ttt.structured import text_parser
from tests.conftest import build_model
from tests.scripted import Script, ScriptedModel, scripted_tokenizer
from ttt_core import TTTEngine

METHODS: tuple[Any, ...] = ("json_schema", "function_calling", "json_mode")


class Joke(BaseModel):
    """A joke."""

    setup: str = Field(description="How it begins.", max_length=12)
    rating: int = Field(ge=0, le=9)


class OldJoke(pydantic.v1.BaseModel):
    """A joke."""

    setup: str = pydantic.v1.Field(max_length=12)
    rating: int = pydantic.v1.Field(ge=0, le=9)


class TypedJoke(TypedDict):
    """A joke."""

    setup: str
    rating: int


JOKE: dict[str, Any] = {
    "title": "Joke",
    "description": "A joke.",
    "type": "object",
    "properties": {
        "setup": {"type": "string", "maxLength": 12},
        "rating": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["setup", "rating"],
}
FUNCTION = {"name": "Joke", "description": "A joke.", "parameters": {
    key: JOKE[key] for key in ("type", "properties", "required")}}  # fmt: skip
SCHEMAS: dict[str, Any] = {
    "pydantic": Joke,
    "pydantic v1": OldJoke,
    "TypedDict": TypedJoke,
    "JSON schema": JOKE,
    "function": FUNCTION,
}


class Color(enum.Enum):
    RED = "red"
    GREEN = "gr\u00fcn"


class Inner(BaseModel):
    kind: Literal["a", "b", 3]
    share: float = Field(ge=0, le=1)


class Outer(BaseModel):
    """Much of what schemas can say."""

    inner: Inner
    many: list[Inner] = Field(min_length=1, max_length=2)
    color: Color
    maybe: Inner | None = None
    either: int | bool | None
    tags: dict[str, bool] = Field(max_length=2)
    pair: tuple[int, bool]
    when: date


class Node(BaseModel):
    """A tree."""

    name: str = Field(max_length=4)
    children: list[Node] = Field(default=[], max_length=2)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TTTEngine]:
    model = build_model("qwen3", max_position_embeddings=4096)
    store = tmp_path_factory.mktemp("structured")
    with TTTEngine(model, scripted_tokenizer(tools=True), store=store) as engine:
        yield engine


@pytest.fixture
def llm(engine: TTTEngine) -> ChatTTT:
    """Random weights: all sense in the answers comes from the grammar."""
    return ChatTTT(engine=engine, max_tokens=150, temperature=1.0, seed=0)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[Script], ChatTTT]]:
    engines = []

    def make(script: Script) -> ChatTTT:
        tokenizer = scripted_tokenizer(tools=True)
        engine = TTTEngine(ScriptedModel(script, tokenizer), tokenizer, store=tmp_path / "store")
        engines.append(engine)
        return ChatTTT(engine=engine, max_tokens=150)

    yield make
    for engine in engines:
        engine.close()


def check(value: Any, kind: str) -> None:
    if kind.startswith("pydantic"):
        assert isinstance(value, SCHEMAS[kind])
        value = vars(value)
    assert value.keys() == {"setup", "rating"}
    assert isinstance(value["setup"], str)
    assert isinstance(value["rating"], int)


@pytest.mark.parametrize("strict", [None, True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", list(SCHEMAS))
def test_every_method_with_every_schema(llm: ChatTTT, kind: str, method: Any, strict: Any) -> None:
    schema = SCHEMAS[kind]
    check(llm.with_structured_output(schema, method=method, strict=strict).invoke("Go!"), kind)
    both = llm.with_structured_output(schema, method=method, strict=strict, include_raw=True)
    found = both.invoke("Go!")
    assert found.keys() == {"raw", "parsed", "parsing_error"}
    assert isinstance(found["raw"], AIMessage)
    assert found["parsing_error"] is None
    check(found["parsed"], kind)
    assert bool(found["raw"].tool_calls) == (method == "function_calling")
    if method != "function_calling":
        jsonschema.validate(json.loads(found["raw"].text), JOKE if kind == "JSON schema" else {})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", list(SCHEMAS))
def test_streams_end_with_the_value(llm: ChatTTT, kind: str, method: Any) -> None:
    chain = llm.with_structured_output(SCHEMAS[kind], method=method)
    pieces = list(chain.stream("Go!"))
    assert pieces[-1] == chain.invoke("Go!")
    check(pieces[-1], kind)
    if kind == "JSON schema":
        assert len(pieces) > 2, "objects come as they grow"
        assert pieces[0] != pieces[-1]


def test_async(llm: ChatTTT) -> None:
    async def ask(method: Any) -> tuple[Any, Any]:
        chain = llm.with_structured_output(Joke, method=method)
        streamed = [piece async for piece in chain.astream("Go!")]
        return await chain.ainvoke("Go!"), streamed[-1]

    for method in METHODS:
        whole, last = asyncio.run(ask(method))
        assert isinstance(whole, Joke)
        assert whole == last


@pytest.mark.parametrize("method", METHODS)
def test_random_models_answer_in_form_whatever_the_seed(llm: ChatTTT, method: Any) -> None:
    chain = llm.with_structured_output(Outer, method=method)
    for seed in range(3):
        value = chain.invoke("Go!", seed=seed, max_tokens=300)
        assert isinstance(value, Outer)


@pytest.mark.parametrize("method", METHODS)
def test_recursive_models(llm: ChatTTT, method: Any) -> None:
    chain = llm.with_structured_output(Node, method=method)
    for seed in range(5):
        assert isinstance(chain.invoke("Go!", seed=seed, max_tokens=300), Node)


@pytest.mark.parametrize(
    "kind",
    [bytes, list[int], dict[str, int], str | None, Any, float, None],
)  # fmt: skip
def test_types_that_pydantic_reads(llm: ChatTTT, kind: Any) -> None:
    model = create_model("One", value=(kind, ...))
    chain = llm.with_structured_output(model)
    for seed in range(4):
        assert isinstance(chain.invoke("Go!", seed=seed, max_tokens=100), model)


@pytest.mark.parametrize("said", ["2026-01-02T03:04:60Z", "2026-01-02T03:04:05Z"])
def test_times_are_such_that_python_knows(make: Callable[[Script], ChatTTT], said: str) -> None:
    model = create_model("Once", when=(datetime, ...))
    llm = make(lambda prompt: json.dumps({"when": said}))
    assert isinstance(llm.with_structured_output(model).invoke("Go!"), model)


def test_a_list_at_the_root(llm: ChatTTT) -> None:
    schema = {"title": "Numbers", "description": "Some.", "type": "array",
              "items": {"type": "integer"}, "maxItems": 3}  # fmt: skip
    for seed in range(4):
        jsonschema.validate(llm.with_structured_output(schema).invoke("Go!", seed=seed), schema)


def test_a_schema_without_a_title(llm: ChatTTT) -> None:
    schema = {key: JOKE[key] for key in ("type", "properties", "required")}
    check(llm.with_structured_output(schema).invoke("Go!"), "JSON schema")


def test_any_object(llm: ChatTTT) -> None:
    chain = llm.with_structured_output(None, method="json_mode")
    for seed in range(4):
        assert isinstance(chain.invoke("Go!", seed=seed), dict)


def test_definitions_and_references(llm: ChatTTT) -> None:
    schema = {
        "title": "Zoo", "description": "A zoo.", "type": "object",
        "$defs": {"animal": {"type": "object", "properties": {
            "legs": {"enum": [2, 4]}}, "required": ["legs"]}},
        "properties": {"first": {"$ref": "#/$defs/animal"},
                       "rest": {"type": "array", "items": {"$ref": "#/$defs/animal"},
                                "maxItems": 2}},
        "required": ["first", "rest"],
    }  # fmt: skip
    for method in METHODS:
        value = llm.with_structured_output(schema, method=method).invoke("Go!")
        jsonschema.validate(value, schema)


def test_what_a_capable_model_says_is_read(make: Callable[[Script], ChatTTT]) -> None:
    text = json.dumps({"setup": '\u68df "{}"', "rating": 7}, ensure_ascii=False)
    llm = make(lambda prompt: text)
    assert llm.with_structured_output(Joke).invoke("Go!") == Joke(setup='\u68df "{}"', rating=7)


def test_the_model_is_told_the_schema(make: Callable[[Script], ChatTTT]) -> None:
    prompts: list[str] = []

    def script(prompt: str) -> str:
        prompts.append(prompt)
        return '{"setup":"a","rating":7}'

    llm = make(script)
    llm.with_structured_output(Joke).invoke("Go!")
    assert "How it begins." in prompts[-1]
    llm.with_documents("the owl lives in the old tree").with_structured_output(Joke).invoke("Go!")
    assert prompts[-1].index("old tree") < prompts[-1].index("How it begins.")


# What cannot be


UNIQUE = {
    "title": "Unique", "description": "Different numbers.", "type": "object",
    "properties": {"x": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}},
    "required": ["x"],
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_keywords_that_cannot_be_enforced_are_named(llm: ChatTTT, method: Any) -> None:
    with pytest.raises(ModelInvalidRequestError, match="uniqueItems"):
        llm.with_structured_output(UNIQUE, method=method, strict=True).invoke("Go!")
    if method != "function_calling":  # Tools are strict only if they say so.
        with pytest.raises(ModelInvalidRequestError, match="uniqueItems"):
            llm.with_structured_output(UNIQUE, method=method).invoke("Go!")


@pytest.mark.parametrize("method", METHODS)
def test_or_left_out_if_not_strict(llm: ChatTTT, method: Any) -> None:
    value = llm.with_structured_output(UNIQUE, method=method, strict=False).invoke("Go!")
    assert all(isinstance(each, int) for each in value["x"])


@pytest.mark.parametrize("method", METHODS)
def test_a_schema_too_big_for_max_tokens(llm: ChatTTT, method: Any) -> None:
    with pytest.raises(ModelInvalidRequestError, match="max_tokens is 9"):
        llm.with_structured_output(Outer, method=method).invoke("Go!", max_tokens=9)


def test_arguments_that_cannot_be(llm: ChatTTT) -> None:
    with pytest.raises(ModelInvalidRequestError, match="json_mode"):
        llm.with_structured_output(Joke, method="xml")  # type: ignore[arg-type]
    with pytest.raises(ModelInvalidRequestError, match="needs a schema"):
        llm.with_structured_output(None)
    with pytest.raises(ModelInvalidRequestError, match="method='json_schema'"):
        llm.with_structured_output(Joke, method="function_calling", tools=[Joke])


def test_errors_of_the_request_are_no_parsing_errors(llm: ChatTTT) -> None:
    chain = llm.with_structured_output(UNIQUE, include_raw=True, strict=True)
    with pytest.raises(ModelInvalidRequestError):
        chain.invoke("Go!")


def test_stop_strings_do_not_cut_values(llm: ChatTTT) -> None:
    chain = llm.with_structured_output(Joke, include_raw=True, stop=['"rating"'])
    found = chain.invoke("Go!")
    assert isinstance(found["parsed"], Joke)
    assert '"rating"' in found["raw"].text


@pytest.mark.parametrize("schema", [Joke, Joke.model_json_schema(), None])
def test_half_a_value_is_no_value(schema: Any) -> None:
    parser: Any = text_parser(schema)
    whole = '{"setup": "a", "rating": 7}'
    assert parser.invoke(AIMessage(whole)) is not None
    for end in range(1, len(whole)):
        with pytest.raises(OutputParserException):
            parser.invoke(AIMessage(whole[:end]))


# Together with other things


def look_up(word: str) -> str:
    """Find a word."""
    return word


def test_tools_beside_a_schema(make: Callable[[Script], ChatTTT]) -> None:
    call = '<tool_call>\n{"name": "look_up", "arguments": {"word": "owl"}}\n</tool_call>'
    replies = iter([call, '{"setup":"a","rating":7}'] * 2)
    llm = make(lambda prompt: next(replies))
    chain = llm.with_structured_output(Joke, tools=[look_up], include_raw=True)
    called, answered = chain.invoke("First?"), chain.invoke("Second?")
    assert [each["name"] for each in called["raw"].tool_calls] == ["look_up"]
    assert (called["parsed"], called["parsing_error"]) == (None, None)
    assert answered["parsed"] == Joke(setup="a", rating=7)
    bare = llm.with_structured_output(Joke, tools=[look_up])
    assert bare.invoke("Third?") is None
    assert bare.invoke("Fourth?") == Joke(setup="a", rating=7)


def test_random_models_call_or_answer(llm: ChatTTT) -> None:
    for seed in range(5):
        chain = llm.with_structured_output(Joke, tools=[look_up], include_raw=True, seed=seed)
        found = chain.invoke("Go!")
        assert bool(found["raw"].tool_calls) != isinstance(found["parsed"], Joke)


def test_documents_prompts_and_batches(llm: ChatTTT) -> None:
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{q}")])
    chain = prompt | llm.with_documents("the owl lives in the old tree").with_structured_output(
        Joke, include_raw=True
    )
    questions = [{"q": "Where?"}, {"q": "Who is it that lives there?"}]
    single = [chain.invoke(question)["parsed"] for question in questions]
    assert [each["parsed"] for each in chain.batch(questions)] == single
    metadata = chain.invoke(questions[0])["raw"].response_metadata["ttt"]
    assert metadata["documents_from"] == "instance"


def test_response_format_of_the_call(llm: ChatTTT) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "joke", "schema": JOKE, "strict": True}}
    jsonschema.validate(json.loads(llm.invoke("Go!", response_format=form).text), JOKE)
    assert isinstance(json.loads(llm.invoke("Go!", response_format={"type": "json_object"}).text),
                      dict)  # fmt: skip
    with pytest.raises(ModelInvalidRequestError):
        llm.invoke("Go!", response_format=Joke)


def test_what_is_traced(llm: ChatTTT) -> None:
    from langchain_core.callbacks import BaseCallbackHandler

    class Seen(BaseCallbackHandler):
        options: dict[str, Any]

        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            self.options = kwargs["options"]

    for method in METHODS:
        seen = Seen()
        llm.with_structured_output(Joke, method=method).invoke("Go!", config={"callbacks": [seen]})
        traced = seen.options["ls_structured_output_format"]
        assert traced["kwargs"]["method"] == method
        assert traced["schema"]["title"] == "Joke"


@pytest.mark.parametrize("include_raw", [False, True])
def test_options_of_the_call_reach_the_model(
    make: Callable[[Script], ChatTTT], include_raw: bool
) -> None:
    llm = make(lambda prompt: '{"setup":"owl","rating":7}' if "old tree" in prompt else
               '{"setup":"none","rating":0}')  # fmt: skip
    chain = llm.with_structured_output(Joke, include_raw=include_raw)
    found: Any = chain.invoke("Go!", documents="the owl lives in the old tree")
    assert (found["parsed"] if include_raw else found) == Joke(setup="owl", rating=7)
