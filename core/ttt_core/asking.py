"""Questions about one document as rows to decode: tokens, what restricts them, what reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ttt_core.chat import NO_PREFIX, Message, as_messages
from ttt_core.config import DEFAULT_ANSWER_TOKENS
from ttt_core.errors import ConfigError, PromptTooLongError
from ttt_core.generate import Request, Row
from ttt_core.output import OutputReader
from ttt_core.prefix import EMPTY_PREFIX, FrozenPrefix
from ttt_core.reasoning import ThinkingGuide
from ttt_core.tools import CallReader, Tool, as_tools

if TYPE_CHECKING:
    from ttt_core.adapted import AdaptedDocument
    from ttt_core.chat import ChatFormat, PromptPrefix
    from ttt_core.config import GenerationConfig
    from ttt_core.constrained import Guide
    from ttt_core.loaded import LoadedModel
    from ttt_core.reasoning import ThinkingTags, TokenGuide


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
    if form.schema is not None or config.tool_choice not in ("auto", "none"):
        config = config.model_copy(update={"stop": ()})  # The form says where the answer ends.
    chat = loaded.chat
    prompt = adapted.prompt if adapted else NO_PREFIX
    request = Request(
        runtime=loaded.runtime,
        prefix=prefix or EMPTY_PREFIX,
        adapter=adapted.adapter if adapted else None,
        decode=chat.decoder({*(chat.thinking_tags or ()), *_tags(chat, config)}),
        eos_token_ids=loaded.eos_token_ids,
    )
    suffixes = _encode(loaded, prompt, prompts, config, form)
    limits = [_room(loaded, request, suffix, config) for suffix in suffixes]
    tags = chat.thinking_tags
    inside = chat.begins_thinking(enable_thinking=config.enable_thinking)
    grammar = _grammar_guide(loaded, config, form)
    return [
        Row(
            request,
            suffix,
            config,
            limit,
            waited=waited,
            thinks=inside or config.enable_thinking,
            guide=_guide(loaded, config, grammar, inside=inside, limit=limit),
            reader=OutputReader(tags, thinking=inside, calls=_call_reader(chat, form)),
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
    return _encode(loaded, prompt, prompts, config, expected(config))


def _encode(
    loaded: LoadedModel,
    prompt: PromptPrefix,
    prompts: Sequence[str | Sequence[Message]],
    config: GenerationConfig,
    form: Expected,
) -> list[list[int]]:
    make = partial(
        loaded.chat.suffix,
        prompt,
        tools=form.tools,
        tool_choice=config.tool_choice,
        parallel=_parallel(loaded.chat, config),
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
    schema = about.get("schema") if isinstance(about, dict) else None
    if kind != "json_schema" or not isinstance(about, dict) or not isinstance(schema, dict):
        raise ConfigError(
            "response_format is {'type': 'json_schema', 'json_schema': {'schema': {...}}}, "
            "{'type': 'json_object'} or {'type': 'text'}"
        )
    return schema, about.get("strict") is not False


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
    return wanted or min(DEFAULT_ANSWER_TOKENS, room)


def _call_reader(chat: ChatFormat, form: Expected) -> CallReader | None:
    if not form.tools:
        return None
    names = {tool.name for tool in form.tools}
    return chat.tools.format.reader(names=names, json=form.schema is not None)


def _tags(chat: ChatFormat, config: GenerationConfig) -> frozenset[str]:
    return chat.tools.format.control_tokens if config.tools else frozenset()


def _guide(
    loaded: LoadedModel,
    config: GenerationConfig,
    grammar: Guide | None,
    *,
    inside: bool,
    limit: int,
) -> TokenGuide | None:
    """Make what restricts one answer of at most `limit` tokens; None: it is free."""
    inner = grammar.restart() if grammar else None
    tags = loaded.chat.thinking_tags
    if config.enable_thinking and tags is None:
        raise ConfigError("enable_thinking: this model's chat template knows no thinking")
    if tags is None or not (config.enable_thinking or inside):
        return inner
    encode = partial(loaded.tokenizer.encode, add_special_tokens=False)
    begin, end = () if inside else tuple(encode(tags.begin)), tuple(encode(tags.end))
    return ThinkingGuide(
        begin=begin,
        end=end,
        ended=partial(_holds, loaded.chat.decoder({tags.end}), tags),
        budget=_thinking_budget(config, inner, limit, tags=len(begin) + len(end)),
        eos_token_ids=loaded.eos_token_ids,
        inner=inner,
    )


def _thinking_budget(
    config: GenerationConfig, inner: Guide | None, limit: int, *, tags: int
) -> int:
    """How many tokens to think, such that what is to follow has room."""
    if inner is None:
        return limit if config.thinking_budget is None else config.thinking_budget
    room = limit - tags - inner.shortest
    if room < 0:
        raise ConfigError(
            f"max_tokens is {limit:,}, but thinking tags and the shortest value of the schema that "
            f"was found take {limit - room:,} tokens; raise max_tokens"
        )
    return min(limit // 2 if config.thinking_budget is None else config.thinking_budget, room)


def _holds(decode: Callable[[Sequence[int]], str], tags: ThinkingTags, ids: Sequence[int]) -> bool:
    return tags.end in decode(ids)


def _parallel(chat: ChatFormat, config: GenerationConfig) -> bool:
    """Whether several calls may be made; where the template could not show them, none can."""
    chosen = config.parallel_tool_calls
    wanted = config.tool_choice == "auto" if chosen is None else chosen
    return wanted and chat.tools.takes_several


def _grammar_guide(loaded: LoadedModel, config: GenerationConfig, form: Expected) -> Guide | None:
    if not config.tools and form.schema is None:
        return None
    from ttt_core.tools.grammar import compose

    vocabulary = loaded.vocabulary
    grammar = compose(
        tools=form.tools or as_tools(config.tools),
        tool_choice=config.tool_choice,
        parallel=_parallel(loaded.chat, config),
        response_schema=form.schema,
        format=loaded.chat.tools.format,
        literal=vocabulary.literal,
        strict=form.strict,
    )
    return None if grammar is None else vocabulary.guide(grammar)
