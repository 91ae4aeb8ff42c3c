"""Which text of a prompt is a document, to be read ahead and adapted to.

The order of what the model reads stays: a document is read first, behind the system messages, so
that text becomes one where it stands first anyway, or where somebody says that it is a document.
Text that comes once is never trained on; what is not taken stays in the prompt, and is not lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Literal, cast, get_args

from ttt_core.chat import SEAM, Message
from ttt_core.document import Document
from ttt_core.errors import ConfigError, DocumentError
from ttt_core.integration.excerpts import compare
from ttt_core.integration.prompt import (
    ABOVE,
    TEMPLATE,
    Attachment,
    Marked,
    Passage,
    Place,
    Prompt,
    Text,
    is_system,
    text_of_part,
)
from ttt_core.integration.registry import DocumentRegistry, Found

Mode = Literal["marked", "auto", "off"]
DocumentsFrom = Literal["call", "content", "instance", "passage", "auto"]

IN_ANSWERS = "a document in an assistant or tool message was left in the text"
UNREADABLE = "a marked text that cannot be read as a document was left in the text"
LATER = (
    "a marked text behind the first user turn was left in the text: what stands before it would "
    "have to be read along, and is not the same for another question"
)
BEHIND_TEXT = "a marked text that stands behind other text was left in the text"
FIRST_MARKED = (
    "the text before the marked document is part of what would be read; it was seen for the first "
    "time, so keys and values could not be reused"
)
AGAIN_MARKED = "the text up to the marked document's end was seen before: it was read as one"
NO_HEAD = (
    "the conversation does not begin with a user's turn, so that nothing can be read ahead of it"
)
CALL_NAMES_OTHERS = "documents in the messages were left in the text: the call names its own"
INSTEAD_OF_OWN = "the instance's documents were not read: the call or its messages bring their own"
KNOWN = "a document that is known was found in the prompt, and is read from where it was"
FIRST_HEAD = (
    "the head of the prompt was seen for the first time: it was read, so that its keys and values "
    "can be used again, but not adapted to, since the next question may bring another"
)
KNOWN_PASSAGE = "the passage holds documents that are known; these are read instead of it"
KNOWN_PIECES = "the passage is made of pieces of documents that are known; these are read, too"
FIRST_GROUP = (
    "these documents were brought together for the first time: they were read, but not adapted to, "
    "since the next question may bring others"
)
OWN_PIECES = "the passage is made of pieces of the documents that are read; it stays in the prompt"
OWN_PASSAGE = "the passage holds the documents that are read, so that it was left out of the text"
FIRST_PASSAGE = (
    "the passage was seen for the first time: it was read, so that its keys and values can be used "
    "again, but not adapted to, since the next question may bring another"
)
PIECES_LEFT_OUT = "pieces of the documents were left out of the prompt: both together do not fit"
DOES_NOT_FIT = "the documents were not read: together with the prompt they do not fit the window"
AGAIN_PASSAGE = "the passage was seen before, so that it is worth adapting to"
AGAIN_HEAD = "the head of the prompt was seen before, so that it is worth adapting to"


@dataclass(frozen=True)
class Resolved:
    """What to read, and the conversation that is left.

    Attributes:
        documents: To be read together, ahead of the conversation; often none.
        messages: All contents are text. Messages that only held documents are gone.
        source: Who said that these are the documents; `auto`: nobody did.
        adapt: Whether to adapt to them. If not, their keys and values are worth keeping anyway.
        reasons: For the caller, in plain sentences; nothing of the texts.
        opening: How many of the first messages are instructions.
        fallback: What to do instead where this does not fit the window; None: nothing.
    """

    documents: tuple[Document, ...] = field(default=(), repr=False)
    messages: tuple[Message, ...] = field(default=(), repr=False)
    source: DocumentsFrom | None = None
    adapt: bool = False
    reasons: tuple[str, ...] = ()
    opening: int = 0
    fallback: Resolved | None = None


_LONG_TOKEN = 16
"""Characters: hardly a text has longer tokens on average."""

_LONGEST_CUE = 40

NOTHING = Resolved()
"""No documents, and no messages either."""


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
    prompt = Prompt(messages)
    search = _Search(prompt, own, mode, min_tokens, count_tokens, registry)
    if call is not None:
        found: Resolved | None = search.called(call)
    else:
        found = search.marked() if mode != "off" else None
        found = found or search.own()
        if found is None and mode != "off":
            found = search.passage()
        if found is None and mode == "auto":
            found = search.known() or search.head()
    found = found or Resolved(messages=prompt.left())
    return _finished(found, search.reasons)


def _finished(found: Resolved, reasons: Sequence[str]) -> Resolved:
    """Tell templates behind documents, and why all of it."""
    opening = list(takewhile(is_system, found.messages))
    turns = found.messages[len(opening) :]
    opening = _told_behind(opening) if found.documents else opening
    return replace(
        found,
        messages=tuple(_without_key(message) for message in (*opening, *turns)),
        reasons=tuple(dict.fromkeys([*reasons, *found.reasons])),
        opening=len(opening),
        fallback=found.fallback and _finished(found.fallback, [*reasons, *found.reasons]),
    )


def _told_behind(opening: Sequence[Message]) -> list[Message]:
    """Make the system messages of templates a message of the user."""
    told = [str(message["content"]) for message in opening if _is_template(message)]
    kept = [message for message in opening if not _is_template(message)]
    return [*kept, {"role": "user", "content": SEAM.join(told)}] if told else kept


def _without_key(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != TEMPLATE}


def _is_template(message: Message) -> bool:
    return is_system(message) and bool(message.get(TEMPLATE))


@dataclass(frozen=True, repr=False)
class _Head:
    """What could be read ahead, and the conversation behind it."""

    text: str
    before: str
    messages: tuple[Message, ...]


class _Search:
    """One request's search for documents in its messages. Collects `reasons`."""

    def __init__(
        self,
        prompt: Prompt,
        own: tuple[Document, ...],
        mode: Mode,
        min_tokens: int,
        count_tokens: Callable[[str], int],
        registry: DocumentRegistry,
    ) -> None:
        self.reasons: list[str] = []
        self._prompt = prompt
        self._own = own
        self._mode = mode
        self._min_tokens = min_tokens
        self._count_tokens = count_tokens
        self._registry = registry
        self._waits = False

    def called(self, documents: tuple[Document, ...]) -> Resolved:
        """Take the call's documents; none: it is to be answered without any."""
        self.reasons += [CALL_NAMES_OTHERS] * self._prompt.has_marks
        self.reasons += [INSTEAD_OF_OWN] * (self._own not in ((), documents))
        if not documents:
            return Resolved(messages=self._prompt.left())
        return self._about(documents, "call")

    def own(self) -> Resolved | None:
        """Take the instance's documents."""
        if not self._own:
            return None
        return self._about(self._own, "instance")

    def passage(self) -> Resolved | None:
        """Take the first passage that stands for documents, or is one."""
        passages = self._passages()
        if passages and not self._prompt.has_head:
            self.reasons.append(NO_HEAD)
            return None
        for place, passage in passages.items():
            found = self._known_passage(place, passage) or self._long_passage(place, passage)
            if found is not None:
                return self._or_in_context(found)
        return None

    def marked(self) -> Resolved | None:
        """Take what the messages bring as documents."""
        taken: dict[Place, Document] = {}
        behind: list[Place] = []
        has_text = False
        for place, part in self._prompt.parts():
            in_turn = self._prompt.opening <= place[0] < self._prompt.rest
            plain = isinstance(part, Text | Passage)
            document = None if plain else self._document(place, cast("Marked | Attachment", part))
            if document is None:
                has_text = has_text or (in_turn and bool(text_of_part(part).strip()))
            elif isinstance(part, Marked) and in_turn and has_text:
                behind.append(place)
            else:
                taken[place] = document
        if not taken:
            return self._marked_head(behind)
        self.reasons += [BEHIND_TEXT] * bool(behind) + [INSTEAD_OF_OWN] * bool(self._own)
        documents = tuple(dict.fromkeys(taken.values()))
        return self._about(documents, "content", taken)

    def known(self) -> Resolved | None:
        """Find documents that were named before."""
        if not self._prompt.has_head:
            return None
        messages = self._prompt.left()
        best: tuple[int, str, Found] | None = None
        for number, message in enumerate(messages):
            text = _normal(message["content"]) if message["role"] in _ASKING else ""
            found = self._registry.find(text) if text else None
            if found and (best is None or found.length > best[2].length):
                best = number, text, found
        if best is None:
            return None
        number, text, found = best
        texts = self._texts()
        texts[number] = _without(text, found)
        left = self._prompt.with_texts(texts, {number})
        return Resolved(found.documents, left, "auto", adapt=True, reasons=(KNOWN,))

    def head(self) -> Resolved | None:
        """Take the longest head that was seen before, or else the longest."""
        if self._waits:
            return None
        if not self._prompt.has_head:
            self.reasons.append(NO_HEAD)
            return None
        heads = [one for one in self._heads() if _readable(one.text) and self._is_long(one.text)]
        if not heads:
            self.reasons.append(
                f"neither a system message nor what stands before the question has "
                f"{self._min_tokens:,} tokens"
            )
            return None
        known = self._seen(heads)
        best = max(known or heads, key=lambda one: len(one.text))
        return Resolved(
            (Document.of(best.text),),
            best.messages,
            "auto",
            adapt=bool(known),
            reasons=(AGAIN_HEAD if known else FIRST_HEAD,),
        )

    def _passages(self) -> dict[Place, Passage]:
        return {
            place: part
            for place, part in self._prompt.parts()
            if isinstance(part, Passage) and self._prompt.role(place[0]) in _ASKING
        }

    def _about(
        self,
        documents: tuple[Document, ...],
        source: DocumentsFrom,
        taken: Collection[Place] = (),
    ) -> Resolved:
        """Read documents; passages that hold all of them, or were noted, are left out."""
        out: dict[Place, str] = {}
        pieces: dict[Place, str] = {}
        for place, passage in self._passages().items() if self._mode != "off" else ():
            noted = self._registry.noted(passage.content)
            excerpt = compare(passage.content, documents)
            if excerpt.is_whole:
                out[place] = _above(excerpt.rest)
            elif noted is not None and set(noted.documents) <= set(documents):
                out[place] = _above(noted.rest)
            elif excerpt.is_pieces:
                pieces[place] = _above(excerpt.rest)
        reasons = [OWN_PASSAGE] * bool(out) + [OWN_PIECES] * bool(pieces)
        left = self._prompt.left(taken, out)
        found = Resolved(documents, left, source, adapt=True, reasons=tuple(reasons))
        return self._or_without(found, {**out, **pieces}, taken) if pieces else found

    def _or_without(
        self, found: Resolved, instead: Mapping[Place, str], taken: Collection[Place] = ()
    ) -> Resolved:
        """If it does not fit, leave pieces out of the prompt that the documents hold."""
        less = self._prompt.left(taken, instead)
        fallback = replace(found, messages=less, reasons=(PIECES_LEFT_OUT,))
        return replace(found, fallback=fallback)

    def _or_in_context(self, found: Resolved) -> Resolved:
        """If it does not fit, answer in-context, as if nobody had found documents."""
        if found.fallback is not None:
            return replace(found, fallback=self._or_in_context(found.fallback))
        plain = Resolved(messages=self._prompt.left(), reasons=(DOES_NOT_FIT,))
        return replace(found, fallback=plain)

    def _known_passage(self, place: Place, passage: Passage) -> Resolved | None:
        known = self._registry.covering(passage.content)
        if known is None:
            return self._passage_around(place, passage)
        reasons = [KNOWN_PASSAGE if known.stands_for else KNOWN_PIECES]
        reasons += [] if known.adapt else [FIRST_GROUP]
        instead = {place: _above(known.rest)}
        left = self._prompt.left((), instead if known.stands_for else {})
        found = Resolved(known.documents, left, "passage", known.adapt, tuple(reasons))
        return found if known.stands_for else self._or_without(found, instead)

    def _passage_around(self, place: Place, passage: Passage) -> Resolved | None:
        """Find documents with other text around them in a passage."""
        normal = _normal(passage.content)
        found = self._registry.find(normal) if normal else None
        if found is None:
            return None
        left = self._prompt.left((), {place: _above(_without(normal, found))})
        return Resolved(found.documents, left, "passage", adapt=True, reasons=(KNOWN_PASSAGE,))

    def _long_passage(self, place: Place, passage: Passage) -> Resolved | None:
        if not (_readable(passage.content) and self._is_long(passage.content)):
            self.reasons.append(
                f"a passage of fewer than {self._min_tokens:,} tokens was left in the text"
            )
            return None
        left = self._prompt.left((), {place: ABOVE})
        before = SEAM.join(
            str(message["content"])
            for message in takewhile(is_system, left)
            if not _is_template(message)
        )
        known = bool(self._seen([_Head(passage.content, before, left)]))
        return Resolved(
            (Document.of(passage.content),),
            left,
            "passage",
            adapt=known,
            reasons=(AGAIN_PASSAGE if known else FIRST_PASSAGE,),
        )

    def _document(self, place: Place, part: Marked | Attachment) -> Document | None:
        """Make a document of a part, if it may be one where it stands."""
        document: Document | str
        if self._prompt.role(place[0]) not in _ASKING:
            document = IN_ANSWERS
        elif not self._prompt.has_head:
            document = NO_HEAD
        elif isinstance(part, Attachment):
            document = part.document
        elif place[0] >= self._prompt.rest:
            document = LATER
        elif not _readable(part.text):
            document = UNREADABLE
        elif not self._is_long(part.text):
            document = (
                f"a marked text of fewer than {self._min_tokens:,} tokens was left in the text"
            )
        else:
            document = Document.of(part.text)
        if isinstance(document, Document):
            return document
        self.reasons.append(document)
        return None

    def _marked_head(self, ends: Sequence[Place]) -> Resolved | None:
        """Take the text up to the last mark that was there before, in the same place."""
        if not ends:
            return None
        if self._own:  # What is read must not depend on what was seen before.
            self.reasons.append(BEHIND_TEXT)
            return None
        known = self._seen(map(self._head_to, ends))
        if not known:
            self._waits = True
            self.reasons.append(FIRST_MARKED)
            return None
        head = known[-1]
        return Resolved(
            (Document.of(head.text),),
            head.messages,
            "content",
            adapt=True,
            reasons=(AGAIN_MARKED,),
        )

    def _head_to(self, end: Place) -> _Head:
        texts = self._texts()
        head, tail = self._prompt.cut_at(end)
        return self._user_head(texts, head, tail)

    def _heads(self) -> list[_Head]:
        """What stands first in the prompt, as the system's and as the user's part of it."""
        texts, opening = self._texts(), self._prompt.opening
        first = next((n for n in range(opening) if self._is_long(texts[n])), opening)
        heads = []
        if first < opening:
            cut = ["" if first <= n < opening else text for n, text in enumerate(texts)]
            left = self._prompt.with_texts(cut, range(first, opening))
            system, before = SEAM.join(texts[first:opening]), SEAM.join(texts[:first])
            heads.append(_Head(system, before, left))
        for head, tail in _split_question(texts[opening : self._prompt.rest]):
            heads.append(self._user_head(texts, head, tail))
        return heads

    def _user_head(self, texts: Sequence[str], head: str, tail: str) -> _Head:
        system = SEAM.join(texts[: self._prompt.opening])
        return _Head(head, system, self._prompt.behind_head(texts, tail))

    def _texts(self) -> list[str]:
        return [str(message["content"]) for message in self._prompt.left()]

    def _is_long(self, text: str) -> bool:
        """Whether a text has enough tokens; of a very long one, only its beginning is counted."""
        start = text[: self._min_tokens * _LONG_TOKEN]
        enough = len(start) < len(text) and self._count_tokens(start) > self._min_tokens
        return enough or self._count_tokens(text) >= self._min_tokens

    def _seen(self, heads: Iterable[_Head]) -> list[_Head]:
        """Which heads were seen before, each behind the same text: keys and values depend on it."""
        # By what is noted of them: one that is found twice is not seen twice.
        sights = {f"{head.before}\0{_normal(head.text)}": head for head in heads}
        continued = self._prompt.continued
        return [
            head
            for sight, head in sights.items()
            if self._registry.seen(sight, continued=continued)
        ]


_ASKING = ("system", "user")
"""Roles of who brings documents; what tools return is new with every question."""


def _above(rest: str) -> str:
    """What stands for a passage that is read ahead: a hint, and what of it is not read ahead."""
    return f"{ABOVE}{SEAM}{rest}" if rest.strip() else ABOVE


def _normal(text: str) -> str:
    """Normalise text as documents are; empty, if it cannot be one."""
    try:
        return Document.of(text).text
    except DocumentError:
        return ""


def _readable(text: str) -> bool:
    return bool(_normal(text))


def _split_question(texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Split the first user turn, given as its messages, into what is before the question and it.

    The question is the last message, or what stands behind the last blank line.
    """
    if len(texts) > 1:
        yield SEAM.join(texts[:-1]), texts[-1]
    lines = _normal(SEAM.join(texts)).split("\n")
    blank = [number for number, line in enumerate(lines) if number and not line.strip()]
    if len(blank) > 1 and _is_cue(lines[blank[-1] + 1 :]):
        del blank[-1]
    if blank:
        yield "\n".join(lines[: blank[-1]]), "\n".join(lines[blank[-1] + 1 :])


def _is_cue(lines: Sequence[str]) -> bool:
    """Whether a prompt's last paragraph only asks to begin, as `Answer:` does."""
    return len(lines) == 1 and len(lines[0]) <= _LONGEST_CUE and lines[0].endswith(":")


def _without(text: str, found: Found) -> str:
    """Cut documents out of a text; what stood between and around them stays."""
    ends = [0, *(end for _, end in found.spans)]
    starts = [*(start for start, _ in found.spans), len(text)]
    pieces = (text[end:start].strip() for end, start in zip(ends, starts, strict=True))
    return SEAM.join(piece for piece in pieces if piece)
