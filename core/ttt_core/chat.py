"""Messages to tokens: the part that is frozen (prefix) and the part that is computed (suffix).

Knows tokenizers and chat templates; knows no model. The document goes to the head of the first
user turn, so that system prompt and document are the same tokens whatever is asked:

    [system] [user: document, blank line | question] [assistant] ... [assistant start]
             └──────── prefix ────────┘ └──────────────── suffix ────────────────────┘
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from ttt_core.document import without_surrogates
from ttt_core.errors import ConfigError, UnsupportedModelError
from ttt_core.lazy import lazy_property
from ttt_core.literal import LiteralEncoder
from ttt_core.reasoning import ThinkingTags, find_tags
from ttt_core.toolchat import ToolChat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ttt_core.tools import Tool

Message: TypeAlias = Mapping[str, Any]
"""A chat message as transformers writes it: `{"role": "user", "content": "..."}`."""

SEAM = "\n\n"
"""Between document and question. Ends the prefix, so that no token merges across it."""

_SLOT = "\u27eaquestion\u27eb"

_FORM = "Answer with JSON that fits this schema, and nothing else:\n{schema}"

PLAIN_TEMPLATE = (
    "{{ bos_token if add_bos }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ m['content'] }}\n\n"
    "{% elif m['role'] == 'user' %}Question: {{ m['content'] }}\n"
    "{% else %}Answer: {{ m['content'] }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)
"""For models that come without a chat template."""


@dataclass(frozen=True)
class PromptPrefix:
    """What every question about one document has in common.

    Attributes:
        document: The document's text as it stands in the prompt.
        system: The system prompt, if any.
        text: The rendered prefix, control tokens in the document marked (see `literal.py`).
        input_ids: Its tokens.
        document_start: Index of the first token that belongs to the document.
    """

    document: str = field(repr=False)
    system: str | None = field(repr=False)
    text: str = field(repr=False)
    input_ids: tuple[int, ...] = field(repr=False)
    document_start: int


NO_PREFIX = PromptPrefix(document="", system=None, text="", input_ids=(), document_start=0)
"""The prefix of a conversation without a document."""


_THEN = datetime(2025, 1, 1)


class ChatFormat:
    """One tokenizer's chat template, used the way the model was trained to see it."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._encoder = LiteralEncoder(tokenizer)
        self._kwargs: dict[str, Any] = {
            # Retrieval gains nothing from thinking tokens; templates without the switch ignore it.
            "enable_thinking": False,
            # Llama 3 prints today's date: a document would have another prefix tomorrow.
            "date_string": "01 Jan 2025",
            **(template_kwargs or {}),
        }
        self._plain = not tokenizer.chat_template
        if self._plain:
            self._kwargs["add_bos"] = self._starts_with_bos()
        self._folds_system = not self._keeps_system_first()

    @lazy_property
    def tools(self) -> ToolChat:
        """How conversations with tools are written."""
        from ttt_core.tools.detect import tool_format

        return ToolChat(self._apply, tool_format(self.template, self._tokenizer.get_vocab()))

    @lazy_property
    def thinking_tags(self) -> ThinkingTags | None:
        """How the model marks its thinking; None: its template knows of none."""
        return find_tags(self.template)

    def begins_thinking(self, *, enable_thinking: bool) -> bool:
        """Whether the prompt itself ends with the begin tag, so that answers start behind it."""
        if self.thinking_tags is None:
            return False
        prompt = self._apply([{"role": "user", "content": "a"}], enable_thinking=enable_thinking)
        return prompt.rstrip().endswith(self.thinking_tags.begin)

    @lazy_property
    def _thinks_behind(self) -> bool:
        """Whether the switch leaves what stands before the first question as it is."""
        asked = [{"role": "user", "content": _SLOT}]
        heads = (self._apply(asked, enable_thinking=on).partition(_SLOT)[0] for on in (False, True))
        return len(set(heads)) == 1

    @property
    def template(self) -> str:
        """The template's source."""
        return PLAIN_TEMPLATE if self._plain else str(self._tokenizer.chat_template)

    @property
    def identity(self) -> str:
        """The template and its variables, as part of an adapter's identity."""
        return json.dumps([self.template, self._kwargs], sort_keys=True, default=str)

    def prefix(self, document: str, *, system: str | None = None) -> PromptPrefix:
        """Render and tokenise system prompt and document."""
        protected = self._encoder.protect(document)
        rendered = self._render([{"role": "user", "content": _SLOT}], protected, system)
        text, found, _ = rendered.rpartition(_SLOT)
        if not found:
            raise UnsupportedModelError(
                "the chat template drops or rewrites the user's message; pass a tokenizer whose "
                "chat_template renders message contents as they are"
            )
        head, found, _ = text.rpartition(protected.strip() + SEAM)
        return PromptPrefix(
            document=document,
            system=system,
            text=text,
            input_ids=tuple(self._encoder.encode(text)),
            document_start=len(self._encoder.encode(head)) if found else 0,
        )

    def encode_literal(self, text: str) -> list[int]:
        """Tokenise what a model or a person wrote: what looks like a control token is none."""
        return self._encoder.encode(self._encoder.protect(text))

    def suffix(
        self,
        prefix: PromptPrefix,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str = "auto",
        parallel: bool = True,
        schema: Mapping[str, Any] | bool | None = None,
        enable_thinking: bool = False,
    ) -> list[int]:
        """Tokenise what follows `prefix` in the conversation `messages`, assistant start included.

        Args:
            prefix: System prompt and document.
            messages: The conversation.
            tools: What the model may call. Behind a document they are told with the first
                question, since nearly all templates put them first: every other choice of tools
                would make another document of it. Without one, the template tells them.
            tool_choice: What is told of them; see `GenerationConfig`.
            parallel: Likewise.
            schema: JSON schema of the answer, told in the same place; True: any object.
            enable_thinking: The template's own switch.

        Raises:
            ConfigError: The conversation is empty or carries another system prompt, or the
                template refuses it.
        """
        system, turns = split_system(messages)
        if prefix.input_ids and system is not None and system != prefix.system:
            raise ConfigError(
                "the conversation's system prompt differs from the one the document was read with; "
                "pass it as adapt(..., system=...)"
            )
        if not turns:
            raise ConfigError("no message to answer; expected a user message with text")
        system = prefix.system if prefix.input_ids else system
        own: list[dict[str, Any]] = [self._protect(turn) for turn in self.tools.turns(turns)]
        if own[0]["role"] != "user" and (prefix.input_ids or tools or schema):
            own.insert(0, {"role": "user", "content": ""})  # Documents and tools are told here.
        first = next((turn for turn in own if turn["role"] == "user"), {"content": _SLOT})
        variables: dict[str, Any] = {"enable_thinking": True} if enable_thinking else {}
        if tools and self.tools.lists_tools and not prefix.document:
            variables["tools"] = self._protect([tool.as_openai() for tool in tools])
        elif tools:
            told = self.tools.format.instructions(tools, parallel=parallel, choice=tool_choice)
            self._tell(first, told)
        if isinstance(schema, Mapping):  # Who asks for any object says in the prompt what is in it.
            self._tell(first, _FORM.format(schema=json.dumps(schema, ensure_ascii=False)))
        return self._behind(prefix, own, first, system, variables)

    def _behind(
        self,
        prefix: PromptPrefix,
        turns: Sequence[Message],
        first: dict[str, Any],
        system: str | None,
        variables: Mapping[str, Any],
    ) -> list[int]:
        """Render the conversation and tokenise what stands behind the prefix in it.

        Args:
            prefix: System prompt and document.
            turns: Marked; `first` is the one that the document goes to.
            first: Of the user.
            system: System prompt.
            variables: Of the template.
        """
        blank = bool(prefix.input_ids) and not first["content"].strip()
        if blank:
            first["content"] = _SLOT  # A template that trims contents would trim the seam.
        text = self._render(turns, self._encoder.protect(prefix.document), system, **variables)
        if not text.startswith(prefix.text):
            raise self._changed(thinking="enable_thinking" in variables)
        rest = text[len(prefix.text) :]
        return self._encode_behind(prefix.text, rest.removeprefix(_SLOT) if blank else rest)

    def _changed(self, *, thinking: bool) -> ConfigError | UnsupportedModelError:
        """Say why the conversation does not begin with its document's prefix."""
        if thinking and not self._thinks_behind:
            return ConfigError(
                "this model's chat template writes the thinking switch before the document, "
                "which was read without it; make the engine with "
                "template_kwargs={'enable_thinking': True}"
            )
        return UnsupportedModelError(
            "the chat template changes the document's turn when the conversation goes on, so "
            "its keys and values cannot be reused; pass a tokenizer with a stable chat_template"
        )

    def _tell(self, turn: dict[str, Any], instructions: str) -> None:
        turn["content"] = f"{self._encoder.protect(instructions)}{SEAM}{turn['content']}"

    def decode(self, ids: Sequence[int]) -> str:
        """Turn answer tokens into text, without special tokens."""
        return self._decode(ids, skip_special_tokens=True)

    def decoder(self, visible: Collection[str]) -> Callable[[Sequence[int]], str]:
        """Return a `decode` that shows some special tokens: a call may begin with one."""
        shown = {self._special_ids[text] for text in visible if text in self._special_ids}
        if not shown:
            return self.decode
        hidden = set(self._special_ids.values()) - shown
        return lambda ids: self._decode(
            [token for token in ids if token not in hidden], skip_special_tokens=False
        )

    @lazy_property
    def _special_ids(self) -> dict[str, int]:
        """By their texts, the tokens that are not shown; whole vocabularies take long to list."""
        added = self._tokenizer.added_tokens_decoder.items()
        own = {content.content: token for token, content in added if content.special}
        named = zip(
            self._tokenizer.all_special_tokens, self._tokenizer.all_special_ids, strict=True
        )
        return {**own, **dict(named)}

    def _decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        text = self._tokenizer.decode(
            list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text if isinstance(text, str) else "".join(text)

    def _protect(self, value: Any) -> Any:
        """Mark control tokens in all texts of a message."""
        if isinstance(value, str):
            return self._encoder.protect(without_surrogates(value))
        if isinstance(value, Mapping):
            return {self._protect(name): self._protect(each) for name, each in value.items()}
        return [self._protect(each) for each in value] if isinstance(value, list) else value

    def _render(
        self, turns: Sequence[Message], document: str, system: str | None, **variables: Any
    ) -> str:
        messages = [dict(turn) for turn in turns]
        first_user = next((m for m in messages if m["role"] == "user"), None)
        if document:
            if first_user is None:
                first_user = {"role": "user", "content": ""}
                messages.insert(0, first_user)
            first_user["content"] = f"{document}{SEAM}{first_user['content']}"
        if system is not None and self._folds_system and first_user is not None:
            first_user["content"] = f"{self._encoder.protect(system)}{SEAM}{first_user['content']}"
        elif system is not None:
            messages.insert(0, {"role": "system", "content": self._encoder.protect(system)})
        return self._rendered(_merge_same_roles(messages), variables)

    def _rendered(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
        from jinja2 import TemplateError

        try:
            return self._apply(messages, **variables)
        except TemplateError as error:
            roles = ", ".join(str(message["role"]) for message in messages)
            raise ConfigError(
                f"the model's chat template refuses a conversation of these turns: {roles} "
                f"({type(error).__name__})"
            ) from None

    def _apply(self, messages: Sequence[Message], **variables: Any) -> str:
        rendered = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=PLAIN_TEMPLATE if self._plain else None,
            tokenize=False,
            add_generation_prompt=True,
            strftime_now=_THEN.strftime,  # As `date_string`; SmolLM3 asks this way.
            **{**self._kwargs, **variables},
        )
        return str(rendered)

    def _keeps_system_first(self) -> bool:
        """Whether a system message is accepted and stays before the first user turn.

        Gemma refuses the role; some Mistral templates move it to the *last* user turn.
        """
        opening = [{"role": "system", "content": "\u27ea"}, {"role": "user", "content": _SLOT}]
        more = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
        try:
            head = self._apply(opening).rpartition(_SLOT)[0]
            return "\u27ea" in head and self._apply([*opening, *more]).startswith(head)
        except Exception:  # Templates refuse with exceptions of their own making.
            return False

    def _starts_with_bos(self) -> bool:
        bos = self._tokenizer.bos_token_id
        return bos is not None and self._tokenizer("a")["input_ids"][:1] == [bos]

    def _encode_behind(self, before: str, text: str) -> list[int]:
        # Tokenising the suffix alone may add a leading space or split its first word otherwise:
        # an anchor in front shows how it is tokenised in place.
        anchor = SEAM if before else ""
        anchor_ids, ids = self._encoder.encode(anchor), self._encoder.encode(anchor + text)
        if ids[: len(anchor_ids)] == anchor_ids:
            return ids[len(anchor_ids) :]
        return self._encoder.encode(text)


def split_system(messages: Sequence[Message]) -> tuple[str | None, list[Message]]:
    """Separate the leading system messages (joined) from the turns that follow."""
    system: list[str] = []
    turns = list(messages)
    while turns and turns[0]["role"] == "system":
        system.append(str(turns.pop(0)["content"]))
    return ("\n\n".join(system) if system else None), turns


def as_messages(prompt: str | Sequence[Message]) -> list[Message]:
    """Make a conversation of a question, or copy one.

    Raises:
        ConfigError: The question is empty, or no text.
    """
    if not isinstance(prompt, str | Sequence) or isinstance(prompt, bytes):
        raise ConfigError(f"a question is text or a list of messages, not {type(prompt).__name__}")
    if not isinstance(prompt, str):
        return list(prompt)
    if not prompt.strip():
        raise ConfigError("the question is empty; expected text")
    return [{"role": "user", "content": prompt}]


def _merge_same_roles(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join neighbours of one role: most templates insist that user and assistant alternate."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        together = bool(merged) and merged[-1]["role"] == message["role"] != "tool"
        if together and not (merged[-1].get("tool_calls") or message.get("tool_calls")):
            merged[-1] = {**message, "content": f"{merged[-1]['content']}\n\n{message['content']}"}
        else:
            merged.append(message)
    return merged
