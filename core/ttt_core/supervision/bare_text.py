"""A tokenised document as text without white space, in which quotes are found by their letters."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence

from ttt_core.supervision.passages import Passage, TokenizedDocument

_UNFINISHED = "\ufffd"  # What decoders write for a character of which bytes are missing.
_LONGEST_CHARACTER = 8  # tokens


class BareText:
    """A document's characters, white space left out, and the tokens that make each of them.

    Args:
        document: The document.
        decode: Tokens to text.

    Attributes:
        text: The characters.
    """

    def __init__(self, document: TokenizedDocument, decode: Callable[[Sequence[int]], str]) -> None:
        texts: list[str] = []
        self._tokens: list[Passage] = []
        for span, text in whole_characters(document, decode):
            texts.append(bare(text))
            self._tokens += [span] * len(texts[-1])
        self.text = "".join(texts)

    def tokens(self, start: int, end: int) -> Passage:
        """Return the tokens that make the characters [start, end); at least one character."""
        return Passage(self._tokens[start].start, self._tokens[end - 1].end)

    def whole(self, span: Passage) -> Passage:
        """Widen tokens to those of whole characters: a passage may end within one."""
        first = bisect_right(self._tokens, span.start, key=lambda tokens: tokens.end)
        last = bisect_left(self._tokens, span.end, key=lambda tokens: tokens.start)
        if first == last:  # White space only.
            return span
        start, end = self._tokens[first].start, self._tokens[last - 1].end
        return Passage(min(span.start, start), max(span.end, end))


def bare(text: str) -> str:
    """Return a text without its white space."""
    return "".join(text.split())


def whole_characters(
    document: TokenizedDocument, decode: Callable[[Sequence[int]], str]
) -> Iterator[tuple[Passage, str]]:
    """Yield the fewest neighbouring tokens that make whole characters, and their text."""
    ids, start = document.input_ids, document.start
    single: dict[int, str] = {}
    for end in range(start + 1, document.end + 1):
        if end - start == 1:
            text = single.get(ids[start])
            if text is None:
                text = single[ids[start]] = decode([ids[start]])
        else:
            text = decode(ids[start:end])
        unfinished = text.endswith(_UNFINISHED) and end - start < _LONGEST_CHARACTER
        if not unfinished or end == document.end:
            yield Passage(start, end), text
            start = end
