"""Why a text was read as a document or was not, in plain sentences for the caller."""

from __future__ import annotations

# Of the call and the instance

CALL_NAMES_OTHERS = "documents in the messages were left in the text: the call names its own"
INSTEAD_OF_OWN = "the instance's documents were not read: the call or its messages bring their own"

# Of marked texts and attachments

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


def short_mark(min_tokens: int) -> str:
    """Of a marked text."""
    return f"a marked text of fewer than {min_tokens:,} tokens was left in the text"


# Of passages

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
AGAIN_PASSAGE = "the passage was seen before, so that it is worth adapting to"
PIECES_LEFT_OUT = "pieces of the documents were left out of the prompt: both together do not fit"
DOES_NOT_FIT = "the documents were not read: together with the prompt they do not fit the window"


def short_passage(min_tokens: int) -> str:
    """Of a passage."""
    return f"a passage of fewer than {min_tokens:,} tokens was left in the text"


# Of what nobody named

KNOWN = "a document that is known was found in the prompt, and is read from where it was"
FIRST_HEAD = (
    "the head of the prompt was seen for the first time: it was read, so that its keys and values "
    "can be used again, but not adapted to, since the next question may bring another"
)
AGAIN_HEAD = "the head of the prompt was seen before, so that it is worth adapting to"


def short_head(min_tokens: int) -> str:
    """Of a prompt that nothing was found in."""
    return f"neither a system message nor what stands before the question has {min_tokens:,} tokens"
