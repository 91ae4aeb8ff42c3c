"""Questions about one document as rows to decode: tokens, what restricts them, what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ttt_core.chat import NO_PREFIX, Message, as_messages
from ttt_core.errors import ConfigError, PromptTooLongError
from ttt_core.generate import Request, Row
from ttt_core.output import OutputReader
from ttt_core.prefix import EMPTY_PREFIX, FrozenPrefix
from ttt_core.reasoning import ThinkingGuide
from ttt_core.tools import Tool, as_tools

if TYPE_CHECKING:
    from ttt_core.adapted import AdaptedDocument
    from ttt_core.chat import PromptPrefix
    from ttt_core.config import GenerationConfig
    from ttt_core.loaded import LoadedModel
    from ttt_core.reasoning import ThinkingTags, TokenGuide

_DEFAULT_ANSWER = 256


class Expected(NamedTuple):
    """What the answer may be: which tools it may call, and what its text is made of."""

    tools: tuple[Tool, ...]
    """Those that the prompt tells of."""
    schema: dict[str, Any] | Literal[True] | None
    """JSON schema of the text; True: any object; None: free text."""
    strict: bool
    """Whether a schema that cannot be enforced is an error."""


def expected(config: GenerationConfig) -> Expected:
    """Read what a request asks of the answer's form.

    Raises:
        ConfigError: Tools, a choice of them or a format that cannot be.
    """
    tools = as_tools(config.tools)
    schema, strict = _schema(config.response_format)
    names = [tool.name for tool in tools]
    if config.tool_choice == "none":
        return Expected((), schema, strict)
    if config.tool_choice != "auto" and not tools:
        raise ConfigError(f"tool_choice {config.tool_choice!r} goes with tools; pass some")
    if config.tool_choice not in ("auto", "required", *names):
        raise ConfigError(
            f"tool_choice is 'auto', 'none', 'required' or a tool's name, not "
            f"{config.tool_choice!r}; the tools are: {', '.join(names)}"
        )
    return Expected(tools, schema, strict)


def make_rows(
    loaded: LoadedModel,
    adapted: AdaptedDocument | None,
    prefix: FrozenPrefix | None,
    prompts: Sequence[str | Sequence[Message]],
    config: GenerationConfig,
    *,
    waited: float,
) -> list[Row]:
    """Prepare questions about what was read.

    Args:
        loaded: The model.
        adapted: What was read; None: nothing.
        prefix: Its keys and values.
        prompts: Questions or conversations.
        config: How to decode.
        waited: Seconds until the keys and values were there.

    Raises:
        PromptTooLongError: Document, question and answer do not fit the window.
        ConfigError: A question or a form of answer that cannot be.
    """
    form = expected(config)
    chat, tools = loaded.chat, form.tools
    prompt = adapted.prompt if adapted else NO_PREFIX
    request = Request(
        runtime=loaded.runtime,
        prefix=prefix or EMPTY_PREFIX,
        adapter=adapted.adapter if adapted else None,
        decode=chat.decoder(chat.tools.format.control_tokens) if config.tools else chat.decode,
        eos_token_ids=loaded.eos_token_ids,
    )
    suffixes = encode_prompts(loaded, prompt, prompts, config)
    limits = [_room(loaded, request, suffix, config) for suffix in suffixes]
    tags = chat.thinking_tags
    inside = chat.begins_thinking(enable_thinking=config.enable_thinking)
    guide = _guide(loaded, config, form, inside=inside, limit=max(limits))
    return [
        Row(
            request,
            suffix,
            config,
            limit,
            waited=waited,
            guide=guide.restart() if guide else None,
            reader=OutputReader(
                tags, thinking=inside, calls=chat.tools.format.reader() if tools else None
            ),
        )
        for suffix, limit in zip(suffixes, limits, strict=True)
    ]


def encode_prompts(
    loaded: LoadedModel,
    prompt: PromptPrefix,
    prompts: Sequence[str | Sequence[Message]],
    config: GenerationConfig,
) -> list[list[int]]:
    """Tokenise what follows the document in each of several conversations."""
    form = expected(config)
    make = partial(
        loaded.chat.suffix,
        prompt,
        tools=form.tools,
        schema=form.schema,
        enable_thinking=config.enable_thinking,
    )
    return [make(as_messages(one)) for one in prompts]


def _schema(
    response_format: dict[str, Any] | None,
) -> tuple[dict[str, Any] | Literal[True] | None, bool]:
    kind = (response_format or {"type": "text"}).get("type")
    if kind == "text":
        return None, True
    if kind == "json_object":
        return True, True
    about = (response_format or {}).get("json_schema")
    if kind != "json_schema" or not isinstance(about, dict) or "schema" not in about:
        raise ConfigError(
            "response_format is {'type': 'json_schema', 'json_schema': {'schema': {...}}}, "
            "{'type': 'json_object'} or {'type': 'text'}"
        )
    return dict(about["schema"]), about.get("strict") is not False


def _room(
    loaded: LoadedModel, request: Request, suffix: Sequence[int], config: GenerationConfig
) -> int:
    """How many answer tokens to allow."""
    window = loaded.runtime.architecture.window
    room = window - len(request.prefix) - len(suffix)
    wanted = config.max_new_tokens
    if room < (wanted or 1):
        raise PromptTooLongError(
            prefix=len(request.prefix),
            suffix=len(suffix),
            max_new_tokens=wanted or 1,
            window=window,
        )
    return wanted or min(_DEFAULT_ANSWER, room)


def _guide(
    loaded: LoadedModel,
    config: GenerationConfig,
    form: Expected,
    *,
    inside: bool,
    limit: int,
) -> TokenGuide | None:
    """Make what restricts the answers; None: they are free."""
    inner = _grammar_guide(loaded, config, form)
    tags = loaded.chat.thinking_tags
    if config.enable_thinking and tags is None:
        raise ConfigError("enable_thinking: this model's chat template knows no thinking")
    if tags is None or not (config.enable_thinking or inside):
        return inner
    budget = config.thinking_budget
    if budget is None:
        budget = limit if inner is None else limit // 2
    encode = partial(loaded.tokenizer.encode, add_special_tokens=False)
    return ThinkingGuide(
        begin=() if inside else encode(tags.begin),
        end=encode(tags.end),
        ended=partial(_holds, loaded, tags),
        budget=budget,
        inner=inner,
    )


def _holds(loaded: LoadedModel, tags: ThinkingTags, ids: Sequence[int]) -> bool:
    return tags.end in loaded.chat.decoder({tags.end})(ids)


def _parallel(config: GenerationConfig) -> bool:
    chosen = config.parallel_tool_calls
    return config.tool_choice == "auto" if chosen is None else chosen


def _grammar_guide(
    loaded: LoadedModel, config: GenerationConfig, form: Expected
) -> TokenGuide | None:
    if not config.tools and form.schema is None:
        return None
    from ttt_core.tools.grammar import compose

    vocabulary = loaded.vocabulary
    grammar = compose(
        tools=form.tools or as_tools(config.tools),
        tool_choice=config.tool_choice,
        parallel=_parallel(config),
        response_schema=form.schema,
        format=loaded.chat.tools.format,
        literal=vocabulary.literal,
        strict=form.strict,
    )
    return None if grammar is None else vocabulary.guide(grammar)
