"""Structured output: which schema is enforced, and what reads the answer."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.base import OutputParserLike
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableBranch, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from ttt_core import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel

Method = Literal["json_schema", "json_mode", "function_calling"]
Schema = dict[str, Any] | type


def response_format(schema: Schema | None, *, strict: bool | None) -> dict[str, Any]:
    """Write a schema in the shape of OpenAI's `response_format`; None stands for any object."""
    if schema is None:
        return {"type": "json_object"}
    plain = convert_to_json_schema(schema)
    about = {"name": plain.get("title", "answer"), "schema": plain}
    if strict is not None:
        about["strict"] = strict
    return {"type": "json_schema", "json_schema": about}


def tool_choice_of(given: Any) -> str | None:
    """Translate all that LangChain's users pass as `tool_choice`; None: the tools' own default."""
    if isinstance(given, dict):
        return str((given.get("function") or given)["name"])
    if given in ("any", True):
        return "required"
    return None if given is False else given


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
        return PydanticOutputParser(pydantic_object=cast("type[BaseModel]", schema))
    return JsonOutputParser()


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
    right = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    wrong = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=llm) | right.with_fallbacks([wrong], exception_key="parsing_error")


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
