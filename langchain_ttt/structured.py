"""Structured output: which schema is enforced, and what reads the answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from operator import itemgetter
from typing import Any, Literal, cast

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.base import OutputParserLike
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import Generation
from langchain_core.runnables import Runnable, RunnableBranch, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from ttt_core import ConfigError

Method = Literal["json_schema", "json_mode", "function_calling"]
Schema = dict[str, Any] | type


def response_format(schema: Schema | None, *, strict: bool | None) -> dict[str, Any]:
    """Write a schema in the shape of OpenAI's `response_format`; None stands for any object."""
    if schema is None:
        return {"type": "json_object"}
    plain = json_schema(schema)
    about = {"name": plain.get("title", "answer"), "schema": plain}
    if strict is not None:
        about["strict"] = strict
    return {"type": "json_schema", "json_schema": about}


def json_schema(schema: Schema) -> dict[str, Any]:
    """Write a schema as JSON schema.

    LangChain's own conversion takes references apart, and so loses what refers to itself; and it
    takes objects with a title alone.
    """
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    if isinstance(schema, dict) and not {"name", "function", "input_schema"} & schema.keys():
        return schema
    try:
        if isinstance(schema, type) and issubclass(schema, Enum):
            raise TypeError
        return convert_to_json_schema(schema)
    except (TypeError, ValueError):
        raise ConfigError(
            "a schema is a Pydantic class, a TypedDict class, a JSON schema or an OpenAI function; "
            "wrap other types in a model with one field"
        ) from None


def check_object(schema: Schema) -> None:
    """Refuse what cannot be a tool's arguments.

    Raises:
        ConfigError: Its values are no objects.
    """
    plain = json_schema(schema)
    if plain.get("type", "object") != "object" or "enum" in plain:
        raise ConfigError(
            "method 'function_calling' takes schemas of objects; use method='json_schema'"
        )


def as_tool(tool: Any, *, strict: bool | None = None) -> dict[str, Any]:
    """Write a tool in OpenAI's shape."""
    converted = convert_to_openai_tool(tool, strict=strict)
    shape = tool.tool_call_schema if isinstance(tool, BaseTool) else tool
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        parameters = shape.model_json_schema()
        if "$defs" in parameters:  # As in `json_schema`.
            function = {**converted["function"], "parameters": parameters}
            return {**converted, "function": function}
    return converted


def tool_name(schema: Schema) -> str:
    """Return the name under which a schema is offered as a tool."""
    return str(convert_to_openai_tool(schema)["function"]["name"])


def tools_parser(schema: Schema) -> OutputParserLike[Any]:
    """Read the call of the one tool that is a schema."""
    if _is_pydantic(schema):
        return PydanticToolsParser(tools=[cast("type[BaseModel]", schema)], first_tool_only=True)
    return JsonOutputKeyToolsParser(key_name=tool_name(schema), first_tool_only=True)


def text_parser(schema: Schema | None) -> OutputParserLike[Any]:
    """Read the text of an answer."""
    if _is_pydantic(schema):
        return _WholePydantic(pydantic_object=cast("type[BaseModel]", schema))
    return _WholeJson()


class _WholeJson(JsonOutputParser):
    """LangChain's parser mends what was cut off: right for a stream, wrong for an answer."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        _check_whole(result, partial=partial)
        return super().parse_result(result, partial=partial)


class _WholePydantic(PydanticOutputParser[Any]):
    """Likewise."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        _check_whole(result, partial=partial)
        return super().parse_result(result, partial=partial)


def _check_whole(result: list[Generation], *, partial: bool) -> None:
    if partial:
        return
    try:
        json.loads(result[0].text)
    except ValueError:
        raise OutputParserException(
            "the answer is no whole JSON value: it was cut off by a stop string, a time limit or "
            "max_tokens, see finish_reason",
            llm_output=result[0].text,
        ) from None


def unless_called(parser: OutputParserLike[Any]) -> Runnable[BaseMessage, Any]:
    """Leave answers alone that call tools instead: they are there in the raw message."""
    return RunnableBranch((_calls, _nothing), parser)


def parsed(
    llm: Runnable[LanguageModelInput, AIMessage],
    parser: Runnable[BaseMessage, Any],
    *,
    include_raw: bool,
) -> Runnable[LanguageModelInput, Any]:
    """Chain a model and a parser, with the raw message beside the result if asked for."""
    if not include_raw:
        return llm | parser
    raw: Runnable[Any, Any] = RunnableMap(raw=RunnablePassthrough())
    right = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    wrong = RunnablePassthrough.assign(parsed=lambda _: None)
    # The model comes first: options of the call go to the first step of a chain alone.
    return llm | raw | right.with_fallbacks([wrong], exception_key="parsing_error")


def check_method(method: str, schema: Schema | None, tools: Sequence[Any] | None) -> None:
    """Refuse what cannot be.

    Raises:
        ConfigError: An unknown method, no schema where one is needed, or tools beside the schema's
            own tool.
    """
    if method not in ("json_schema", "json_mode", "function_calling"):
        raise ConfigError(
            f"method is 'json_schema', 'json_mode' or 'function_calling', not {method!r}"
        )
    if schema is None and method != "json_mode":
        raise ConfigError(f"method {method!r} needs a schema; only 'json_mode' does without")
    if tools and method == "function_calling":
        raise ConfigError("tools beside structured output go with method='json_schema'")


def _is_pydantic(schema: Any) -> bool:
    return isinstance(schema, type) and is_basemodel_subclass(schema)


def _calls(message: BaseMessage) -> bool:
    return bool(getattr(message, "tool_calls", None))


def _nothing(message: BaseMessage) -> None:
    return None
