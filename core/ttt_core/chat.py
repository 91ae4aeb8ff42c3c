"""Messages to tokens: the part that is frozen (prefix) and the part that is computed (suffix).

Knows tokenizers and chat templates; knows no model. The document goes to the head of the first
user turn, so that system prompt and document are the same tokens whatever is asked:

    [system] [user: document, blank line | question] [assistant] ... [assistant start]
             └──────── prefix ────────┘ └──────────────── suffix ────────────────────┘
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ttt_core.errors import ConfigError, UnsupportedModelError
from ttt_core.literal import LiteralEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message: TypeAlias = Mapping[str, Any]
"""A chat message as transformers writes it: `{"role": "user", "content": "..."}`."""

SEAM = "\n\n"
"""Between document and question. Ends the prefix, so that no token merges across it."""

_SLOT = "\u27eaquestion\u27eb"

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

    def suffix(self, prefix: PromptPrefix, messages: Sequence[Message]) -> list[int]:
        """Tokenise what follows `prefix` in the conversation `messages`, assistant start included.

        Raises:
            ConfigError: The conversation is empty or carries another system prompt.
        """
        system, turns = split_system(messages)
        if prefix.input_ids and system is not None and system != prefix.system:
            raise ConfigError(
                "the conversation's system prompt differs from the one the document was read with; "
                "pass it as adapt(..., system=...)"
            )
        if not turns:
            raise ConfigError("no message to answer; expected at least one user message")
        system = prefix.system if prefix.input_ids else system
        own = [{**turn, "content": self._encoder.protect(str(turn["content"]))} for turn in turns]
        first = next((turn for turn in own if turn["role"] == "user"), {"content": _SLOT})
        blank = bool(prefix.input_ids) and not first["content"].strip()
        if blank:
            first["content"] = _SLOT  # A template that trims contents would trim the seam.
        text = self._render(own, self._encoder.protect(prefix.document), system)
        if not text.startswith(prefix.text):
            raise UnsupportedModelError(
                "the chat template changes the document's turn when the conversation goes on, so "
                "its keys and values cannot be reused; pass a tokenizer with a stable chat_template"
            )
        rest = text[len(prefix.text) :]
        return self._encode_behind(prefix.text, rest.removeprefix(_SLOT) if blank else rest)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn answer tokens into text, without special tokens."""
        text = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text if isinstance(text, str) else "".join(text)

    def _render(self, turns: Sequence[Message], document: str, system: str | None) -> str:
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
        return self._apply(_merge_same_roles(messages))

    def _apply(self, messages: Sequence[Message]) -> str:
        rendered = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=PLAIN_TEMPLATE if self._plain else None,
            tokenize=False,
            add_generation_prompt=True,
            **self._kwargs,
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
        if merged and merged[-1]["role"] == message["role"] and message["role"] != "tool":
            merged[-1] = {**message, "content": f"{merged[-1]['content']}\n\n{message['content']}"}
        else:
            merged.append(message)
    return merged
