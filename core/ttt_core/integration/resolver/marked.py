"""What messages bring as documents: attachments, and texts that their author marked."""

from __future__ import annotations

from collections.abc import Sequence

from ttt_core.document import Document
from ttt_core.integration.prompt import (
    Attachment,
    Marked,
    Part,
    Passage,
    Place,
    Text,
    text_of_part,
)
from ttt_core.integration.resolver import reasons
from ttt_core.integration.resolver.passages import beside
from ttt_core.integration.resolver.resolved import Resolved
from ttt_core.integration.resolver.search import ASKING, Head, Search, is_readable


def marked(search: Search) -> Resolved | None:
    """Take what the messages bring as documents."""
    prompt = search.prompt
    taken: dict[Place, Document] = {}
    behind: list[Place] = []
    has_text = False
    for place, part in prompt.parts():
        in_turn = prompt.opening <= place[0] < prompt.rest
        document = _document(search, place, part)
        if document is None:
            has_text = has_text or (in_turn and bool(text_of_part(part).strip()))
        elif isinstance(part, Marked) and in_turn and has_text:
            behind.append(place)
        else:
            taken[place] = document
    if not taken:
        return _marked_head(search, behind)
    search.reasons += [reasons.BEHIND_TEXT] * bool(behind)
    search.reasons += [reasons.INSTEAD_OF_OWN] * bool(search.own)
    return beside(search, tuple(dict.fromkeys(taken.values())), "content", taken)


def _document(search: Search, place: Place, part: Part) -> Document | None:
    """Make a document of a part, if it was brought as one and may be one where it stands."""
    if isinstance(part, Text | Passage):
        return None
    obstacle = _obstacle(search, place, part)
    if obstacle is not None:
        search.reasons.append(obstacle)
        return None
    return part.document if isinstance(part, Attachment) else Document.of(part.text)


def _obstacle(search: Search, place: Place, part: Marked | Attachment) -> str | None:
    """Say why a part can be no document where it stands; None: it can."""
    if search.prompt.role(place[0]) not in ASKING:
        return reasons.IN_ANSWERS
    if not search.prompt.has_head:
        return reasons.NO_HEAD
    if isinstance(part, Attachment):
        return None
    if place[0] >= search.prompt.rest:
        return reasons.LATER
    if not is_readable(part.text):
        return reasons.UNREADABLE
    return None if search.is_long(part.text) else reasons.short_mark(search.min_tokens)


def _marked_head(search: Search, ends: Sequence[Place]) -> Resolved | None:
    """Take the text up to the last mark that was there before, in the same place."""
    if not ends:
        return None
    heads = [head for head in (_head_to(search, end) for end in ends) if is_readable(head.text)]
    # About an instance's documents what is read must not depend on what was seen before.
    if search.own or not heads:
        search.reasons.append(reasons.BEHIND_TEXT)
        return None
    known = search.seen(heads)
    if not known:
        search.waits = True
        search.reasons.append(reasons.FIRST_MARKED)
        return None
    head = known[-1]
    return Resolved(
        (Document.of(head.text),),
        head.messages,
        "content",
        adapt=True,
        reasons=(reasons.AGAIN_MARKED,),
    )


def _head_to(search: Search, end: Place) -> Head:
    head, tail = search.prompt.cut_at(end)
    return search.user_head(search.texts(), head, tail)
