"""Objects of a class, read out of answers that were held to its schema, whole or growing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictInProgressEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.llms.llm import dispatcher
from llama_index.core.program.utils import FlexibleModel, create_flexible_model
from llama_index.core.prompts import BasePromptTemplate
from pydantic import AliasChoices, BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError, from_json

from llamaindex_ttt.unfinished import unfinished_object
from ttt_core import ConfigError

Model = TypeVar("Model", bound=BaseModel)

_OF_TOOLS = ("tool_choice", "tool_required", "allow_parallel_tool_calls", "parallel_tool_calls")
"""Options for programs that call tools: they mean nothing here, and are dropped."""


@dataclass(frozen=True)
class Said(Generic[Model]):
    """A response and the object that was read from it; `is_new`: it differs from the last one."""

    response: ChatResponse
    value: Model
    is_new: bool = True

    def as_chat(self) -> ChatResponse:
        return self.response.model_copy(update={"raw": self.value})


class ObjectReader(Generic[Model]):
    """Reads the responses of one prediction, and tells LlamaIndex's dispatcher about it."""

    def __init__(
        self, output_cls: type[Model], prompt: BasePromptTemplate, prompt_args: dict[str, Any]
    ) -> None:
        dispatcher.event(
            LLMStructuredPredictStartEvent(
                output_cls=output_cls, template=prompt, template_args=prompt_args
            )
        )
        self._schema = _schema(output_cls)
        self._output_cls = output_cls
        self._names = _names(output_cls)
        self._flexible = _flexible(output_cls)
        self._fields: dict[str, Any] = {}
        self._part = self._flexible()

    def options(self, llm_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
        """Options of `chat` that enforce the schema."""
        given = {k: v for k, v in (llm_kwargs or {}).items() if k not in _OF_TOOLS}
        for name in ("response_format", "tools"):
            if given.get(name):
                raise ConfigError(
                    f"structured prediction takes no {name}: the form of its answers is that of "
                    f"the output class; use chat"
                )
        # Not strict: what a grammar cannot hold is for Pydantic, which turns lists into sets.
        about = {"name": self._output_cls.__name__, "schema": self._schema, "strict": False}
        return {**given, "response_format": {"type": "json_schema", "json_schema": about}}

    def part(self, response: ChatResponse) -> Said[FlexibleModel]:
        """Read what was said so far."""
        fields = unfinished_object(response.message.content or "")
        is_new = bool(fields) and fields != self._fields
        if is_new:
            self._fields = fields
            named = {self._names.get(key, key): value for key, value in fields.items()}
            self._part = self._flexible.model_validate(named)
            dispatcher.event(LLMStructuredPredictInProgressEvent(output=self._part))
        return Said(response, self._part, is_new)

    def whole(self, response: ChatResponse, *, streamed: bool = False) -> Said[Model]:
        """Read a whole answer.

        Args:
            response: The last one.
            streamed: Its text was passed on already.
        """
        value = _whole(self._output_cls, response)
        if streamed:
            response = response.model_copy(update={"delta": ""})
            dispatcher.event(LLMStructuredPredictInProgressEvent(output=value))
        dispatcher.event(LLMStructuredPredictEndEvent(output=value))
        return Said(response, value)


def _schema(output_cls: type[BaseModel]) -> dict[str, Any]:
    if not (isinstance(output_cls, type) and issubclass(output_cls, BaseModel)):
        raise ConfigError(
            "output_cls is a class made with Pydantic 2; wrap other types in a model with one field"
        )
    schema = output_cls.model_json_schema()
    # One that refers to itself stands among the definitions.
    name = schema.get("$ref", "").rpartition("/")[2]
    root = schema["$defs"][name] if name else schema
    if root.get("properties") and not root.get("required"):
        root["required"] = list(root["properties"])
    return schema


def _flexible(output_cls: type[BaseModel]) -> type[FlexibleModel]:
    """LlamaIndex's class for objects that are not whole; what is no object has no parts to show."""
    return FlexibleModel if issubclass(output_cls, RootModel) else create_flexible_model(output_cls)


def _names(output_cls: type[BaseModel]) -> dict[str, str]:
    """The names of fields that JSON calls otherwise."""
    fields = output_cls.model_fields.items()
    return {alias: name for name, field in fields for alias in _aliases(field)}


def _aliases(field: FieldInfo) -> Iterator[str]:
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return (choice for choice in choices if isinstance(choice, str))


def _whole(output_cls: type[Model], response: ChatResponse) -> Model:
    text = response.message.content or ""
    try:
        from_json(text)
    except ValueError:
        finish_reason = response.raw.get("finish_reason") if isinstance(response.raw, dict) else "?"
        raise ConfigError(
            f"the answer is no whole JSON value (finish_reason {finish_reason!r}): it was cut off "
            f"by a stop string, a time limit or max_tokens; allow more, or drop the stop string"
        ) from None
    try:
        return output_cls.model_validate_json(text)
    except ValidationError as error:
        refused = _without_values(error)
    raise refused


def _without_values(error: ValidationError) -> ValidationError:
    """The same error, but for its message: an answer may quote the document, and errors are logged.

    `errors()` has the values still.
    """
    details = [
        InitErrorDetails(
            type=PydanticCustomError(one["type"], one["msg"]),
            loc=one["loc"],
            input=one["input"],
        )
        for one in error.errors(include_url=False)
    ]
    return ValidationError.from_exception_data(
        error.title, details, input_type="json", hide_input=True
    )
