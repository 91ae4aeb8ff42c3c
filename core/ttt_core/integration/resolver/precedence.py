"""Whose documents are read: the call's, the messages', the instance's, or what is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import get_args

from ttt_core.chat import Message
from ttt_core.document import Document
from ttt_core.errors import ConfigError
from ttt_core.integration.prompt import Prompt, is_system
from ttt_core.integration.registry import DocumentRegistry
from ttt_core.integration.resolver import reasons
from ttt_core.integration.resolver.automatic import head, known_text
from ttt_core.integration.resolver.marked import marked
from ttt_core.integration.resolver.passages import beside, first_passage
from ttt_core.integration.resolver.resolved import Resolved
from ttt_core.integration.resolver.search import Mode, Search
from ttt_core.integration.resolver.templates import told_behind, without_key


def resolve(
    messages: Sequence[Message],
    *,
    call: tuple[Document, ...] | None,
    own: tuple[Document, ...],
    mode: Mode,
    min_tokens: int,
    count_tokens: Callable[[str], int],
    registry: DocumentRegistry,
) -> Resolved:
    """Find the documents of a request. The first of these that has some wins:

    1. the call;
    2. the messages: attachments, which go to the head, and marked texts, as
       https://platform.claude.com/docs/en/build-with-claude/prompt-caching has them. Text that
       stands before a marked one in the user's turn is read along, but only when all of it comes
       again;
    3. the instance;
    4. a passage. If it is made of documents that the user named, these are read, and it stays in
       the prompt if it only holds pieces of them: a prompt may ask about the pieces. Documents that
       were noted as its sources stand for it in any case. Another passage of enough tokens is read
       the first time, and adapted to when it comes again. Where documents of 1 to 3 are read,
       passages that hold all of them are left out;
    5. with `auto`, the prompt: a text that the registry knows, wherever it stands, or else the
       head, a system message or what stands before the last paragraph of the first user turn. It
       is read the first time, and adapted to when it comes again.

    What may not fit the window has a `fallback`. The registry remembers what was seen: call this
    once for every request.

    Args:
        messages: Contents are text, or lists of parts; other keys of messages stay, but `TEMPLATE`.
        call: Documents of the call; empty: it is to be answered without any. None: it says nothing.
        own: The instance's.
        mode: `marked`: 1 to 4; `auto`: all; `off`: 1 and 3, contents are text.
        min_tokens: Marked texts, passages and heads of fewer tokens are left where they are.
        count_tokens: The number of tokens of a text.
        registry: Of the engine and namespace that will answer.

    Raises:
        ConfigError: No such mode, or a content that is neither text nor a list of parts.
    """
    if mode not in get_args(Mode):
        raise ConfigError(f"expected 'marked', 'auto' or 'off', found {mode!r}")
    search = Search(
        prompt=Prompt(messages),
        own=own,
        mode=mode,
        min_tokens=min_tokens,
        count_tokens=count_tokens,
        registry=registry,
    )
    found = _from_prompt(search) if call is None else _from_call(search, call)
    return _finished(found or Resolved(messages=search.prompt.left()), search.reasons)


def as_text(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return a conversation whose documents stand in it as text: nothing is read ahead of it."""
    return tuple(without_key(message) for message in Prompt(messages).left())


def _from_call(search: Search, documents: tuple[Document, ...]) -> Resolved | None:
    """Take the call's documents; none: it is to be answered without any."""
    search.reasons += [reasons.CALL_NAMES_OTHERS] * search.prompt.has_marks
    search.reasons += [reasons.INSTEAD_OF_OWN] * (search.own not in ((), documents))
    return beside(search, documents, "call") if documents else None


def _from_prompt(search: Search) -> Resolved | None:
    """Look for documents where the call names none; the instance's win over what is only found."""
    if search.mode == "off":
        return _from_instance(search)
    found = marked(search) or _from_instance(search) or first_passage(search)
    if found is None and search.mode == "auto":
        return known_text(search) or head(search)
    return found


def _from_instance(search: Search) -> Resolved | None:
    return beside(search, search.own, "instance") if search.own else None


def _finished(found: Resolved, why: Sequence[str]) -> Resolved:
    """Tell templates behind documents, and why all of it."""
    opening = list(takewhile(is_system, found.messages))
    turns = found.messages[len(opening) :]
    opening = told_behind(opening) if found.documents else opening
    return replace(
        found,
        messages=tuple(without_key(message) for message in (*opening, *turns)),
        reasons=tuple(dict.fromkeys([*why, *found.reasons])),
        opening=len(opening),
        fallback=found.fallback and _finished(found.fallback, [*why, *found.reasons]),
    )
