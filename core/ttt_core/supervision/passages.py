"""Sentences and lines of a tokenised document. Knows tokens and their texts; knows no language.

A passage ends at a line break or behind a full stop of any script; what is longer than a quote
would be is cut into pieces, so that text without line breaks or known stops has passages too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ttt_core.lazy import lazy_property

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ttt_core.chat import ChatFormat, PromptPrefix

LONGEST = 48
"""Tokens; longer sentences are cut into pieces of at most this length."""

SHORTEST = 3
"""Tokens; less cannot be both quoted and continued."""

_STOPS = (".", "!", "?", ";", "…", "؟", "۔", "।", "॥", "։", "።", "။", "។")
_WIDE_STOPS = ("。", "！", "？", "；", "．", "｡")  # No space follows these.
_CLOSERS = "\"'”’»)]}）」』】"


class Passage(NamedTuple):
    """Tokens [start, end) of the prefix: one sentence or line."""

    start: int
    end: int


@dataclass(frozen=True)
class TokenizedDocument:
    """What supervision sees of a document.

    Attributes:
        input_ids: The whole prefix, shape (n_tokens,).
        start: First token of the document in it.
        end: One behind its last token.
        passages: Its sentences and lines, each text once.
        answer_start: The tokens between the document and an answer when nothing is asked.
    """

    input_ids: tuple[int, ...] = field(repr=False)
    start: int
    end: int
    passages: tuple[Passage, ...]
    answer_start: tuple[int, ...]

    @classmethod
    def of(
        cls, prefix: PromptPrefix, chat: ChatFormat, tokenizer: PreTrainedTokenizerBase
    ) -> TokenizedDocument:
        """Find the passages of a prompt prefix."""
        end = len(prefix.input_ids)
        suffix = chat.suffix(prefix, [{"role": "user", "content": ""}])
        texts = token_texts(prefix.input_ids[prefix.document_start :], tokenizer)
        found = find_passages(texts, offset=prefix.document_start)
        distinct = {prefix.input_ids[p.start : p.end]: p for p in reversed(found)}
        return cls(
            input_ids=prefix.input_ids,
            start=prefix.document_start,
            end=end,
            passages=tuple(sorted(distinct.values())),
            answer_start=tuple(suffix),
        )

    @lazy_property
    def shortest_quotes(self) -> dict[Passage, int]:
        """For each passage, the first cut whose quote begins no other passage.

        A quote that begins several passages has no one right continuation. A passage that is
        itself the beginning of another has no such cut; its value is then its end.
        """
        ids = self.input_ids
        ordered = sorted(self.passages, key=lambda p: ids[p.start : p.end])
        shared = [0] * (len(ordered) + 1)  # between each passage and the one before it
        for index in range(1, len(ordered)):
            before, after = ordered[index - 1], ordered[index]
            shared[index] = _common_prefix(
                ids[before.start : before.end], ids[after.start : after.end]
            )
        return {
            p: min(p.start + max(shared[index], shared[index + 1]) + 1, p.end)
            for index, p in enumerate(ordered)
        }


def token_texts(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the text of each token; bytes of a split character come out as U+FFFD."""
    distinct = {token: str(tokenizer.decode([token])) for token in set(ids)}
    return [distinct[token] for token in ids]


def find_passages(texts: Sequence[str], *, offset: int = 0) -> list[Passage]:
    """Split tokens, given as texts, into passages without blank tokens around them."""
    passages = []
    for start, end in _sentences(texts):
        while start < end and not texts[start].strip():
            start += 1
        while start < end and not texts[end - 1].strip():
            end -= 1
        for piece in range(start, end, LONGEST):
            stop = min(piece + LONGEST, end)
            if stop - piece >= SHORTEST:
                passages.append(Passage(piece + offset, stop + offset))
    return passages


def _sentences(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    start, stopped, wide = 0, False, False
    for index, text in enumerate(texts):
        following = texts[index + 1] if index + 1 < len(texts) else "\n"
        if bare := text.strip().rstrip(_CLOSERS):  # Closing quotes alone change nothing.
            wide = bare.endswith(_WIDE_STOPS)
            stopped = wide or bare.endswith(_STOPS)
        # Some tokenizers put the space before a word, others behind it.
        spaced = text[-1:].isspace() or following[:1].isspace()
        closes = not spaced and following.startswith(tuple(_CLOSERS))
        if "\n" in text or (stopped and not closes and (wide or spaced)):
            yield start, index + 1
            start, stopped = index + 1, False
    if start < len(texts):
        yield start, len(texts)


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    length = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        length += 1
    return length
