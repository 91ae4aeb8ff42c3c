"""The way to an end: tokens that complete a grammar from where it stands, and not many of them.

The way is walked on a copy of the matcher, so that what is found has been proved to work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

LONGEST = 4096
"""Tokens after which a way is taken for endless."""

_PATIENCE = 2
"""Uses of one byte after which another one is tried: what never ends must not go on for ever."""

_LOST = 2
"""Steps in free text after which phrases are tried: a quotation mark would have ended a string."""

_REACH = 16
"""Tokens of an old way that one new token may have made unnecessary."""

_ONE_BIT = frozenset(bytes([1 << bit]) for bit in range(8))
_CLOSERS = b'}]",:'
_LETTERS = b"nabcdefghijklmopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGITS = b"1203456789"  # Dates have no year, month or day 0.
_BETWEEN = b"-. _/@#;()+*=<>!?&%$~^|'"  # Before letters: what ends one part of a pattern.
_CLOSING = _CLOSERS + _DIGITS + _BETWEEN + _LETTERS
_TEXT = b'"-' + _LETTERS + _DIGITS


class Planner:
    """Finds ways to an end for all grammars over one vocabulary; holds no state of any answer."""

    def __init__(self, tokenizer: LLTokenizer, tokens: int, control: Sequence[int]) -> None:
        """Look through the vocabulary, once for all grammars.

        Args:
            tokenizer: The compiled tokenizer.
            tokens: Ids from this one on are not used.
            control: Added tokens, which are not spelled with bytes.
        """
        self._tokenizer = tokenizer
        self._eos = tokenizer.eos_tokens[0]
        self._control = [token for token in control if token not in tokenizer.eos_tokens]
        by_byte = _single_bytes(tokenizer, tokens, frozenset(control))
        self._closing = _ordered(by_byte, _CLOSING)
        self._text = _ordered(by_byte, _TEXT)
        self._letter, self._brace = by_byte.get(ord("x")), by_byte.get(ord("}"))
        self._closers = frozenset(by_byte[byte] for byte in _CLOSERS if byte in by_byte)

    def plan(
        self,
        matcher: LLMatcher,
        old: Sequence[int] = (),
        *,
        phrases: Sequence[str] = (),
        most: int = LONGEST,
    ) -> list[int]:
        """Return tokens that complete the grammar; empty if it is complete.

        Args:
            matcher: Where the grammar stands; stays as it is.
            old: A way from an earlier place. What still fits of it is used again.
            phrases: Texts that end free text in this grammar.
            most: Tokens.

        Raises:
            NoPlanError: None was found with at most `most` tokens.
        """
        way: list[int] = []
        walk = _Walk(phrases)
        while not matcher.is_accepting():
            rest = self.reuse(matcher, old, 2 if way else _REACH)
            if rest is not None:
                way += rest
                break
            step = self._step(matcher, walk)
            if not step or len(way) + len(step) > most:
                raise NoPlanError
            matcher = matcher if way else matcher.deep_copy()
            matcher.consume_tokens(step)
            way += step
        if len(way) > most:
            raise NoPlanError
        return way

    def in_text(self, mask: bytes) -> bool:
        """Whether this is free text.

        Where a letter may stand next to a brace, the brace is text and closes nothing.
        """
        return _allowed(mask, self._letter) and _allowed(mask, self._brace)

    def respelled(self, matcher: LLMatcher, mask: bytes) -> int | None:
        """Return the first token of forced text where llguidance allows one that it refuses.

        Where a schema spells an added token (`{"const": "<|im_end|>"}`), llguidance forces that
        token, but takes only the characters.
        """
        if not is_single(mask):
            return None
        token = next(_set(mask))
        return None if _fits(matcher, token) else self._forced(matcher)[0]

    def reuse(
        self, matcher: LLMatcher, old: Sequence[int], reach: int = _REACH
    ) -> list[int] | None:
        """Return the shortest end of `old` that leads from here to an end, if one does.

        Costs much less than `plan`: nothing is copied, and no mask is made.
        """
        for start in range(min(len(old), reach + 1) - 1, -1, -1):
            rest = [*old[start:], self._eos]
            if matcher.validate_tokens(rest) == len(rest):
                return rest[:-1]
        return None

    def _step(self, matcher: LLMatcher, walk: _Walk) -> list[int]:
        forced = self._forced(matcher)
        if forced:
            return forced
        mask = matcher.compute_bitmask()
        free = self.in_text(mask)
        walk.enter(free=free)
        for token in self._control:
            if is_set(mask, token) and walk.patient(token):
                return [token]
        if walk.lost:
            for phrase in walk.phrases:
                step = self._tokenizer.greedy_tokenize(phrase)
                if walk.patient(phrase) and matcher.validate_tokens(step) == len(step):
                    return step
        byte = self._text_byte(mask, walk) if free else self._closing_byte(mask, walk)
        return [byte] if byte is not None else [t for t in _set(mask) if _fits(matcher, t)][:1]

    def _text_byte(self, mask: bytes, walk: _Walk) -> int | None:
        return walk.least_used([t for t in self._text if is_set(mask, t)], b"")

    def _closing_byte(self, mask: bytes, walk: _Walk) -> int | None:
        allowed = [token for token in self._closing if is_set(mask, token)]
        closer = next((token for token in allowed if token in self._closers), None)
        return walk.least_used(allowed, mask) if closer is None else closer

    def _forced(self, matcher: LLMatcher) -> list[int]:
        """Return what must come next, spelled such that the matcher takes it."""
        forced = matcher.compute_ff_tokens()
        count = matcher.validate_tokens(forced) if forced else 0
        if forced and not count:
            text = matcher.compute_ff_bytes().decode(errors="ignore")
            forced = self._tokenizer.greedy_tokenize(text)
            count = matcher.validate_tokens(forced)
        return forced[:count]


class _Walk:
    """What one search has tried: what leads nowhere must not be tried for ever."""

    def __init__(self, phrases: Sequence[str]) -> None:
        self.phrases = phrases
        self._free = 0  # Steps since free text began.
        self._in_text: Counter[Any] = Counter()  # Since free text began.
        self._elsewhere: Counter[Any] = Counter()

    @property
    def lost(self) -> bool:
        """Whether this is free text that a quotation mark does not end."""
        return self._free > _LOST

    def enter(self, *, free: bool) -> None:
        """Note whether the next step is within free text."""
        self._free = self._free + 1 if free else 0
        if not free:
            self._in_text.clear()

    def patient(self, what: int | str) -> bool:
        """Count a use; False if there have been enough."""
        self._in_text[what] += 1
        return self._in_text[what] <= _PATIENCE

    def least_used(self, tokens: Sequence[int], where: bytes) -> int | None:
        """Return the first of the tokens that have been used the least, and count it."""
        if not tokens:
            return None
        used = self._elsewhere if where else self._in_text
        best = min(tokens, key=lambda token: used[where, token] // _PATIENCE)
        used[where, best] += 1
        return best


class NoPlanError(Exception):
    """There is no way to an end, or none that is short enough."""


def is_set(mask: bytes, token: int) -> bool:
    """Whether a token's bit is set."""
    return bool(mask[token >> 3] >> (token & 7) & 1)


def is_single(mask: bytes) -> bool:
    """Whether exactly one token's bit is set."""
    return mask.strip(b"\0") in _ONE_BIT


def _allowed(mask: bytes, token: int | None) -> bool:
    return token is not None and is_set(mask, token)


def _set(mask: bytes) -> Iterator[int]:
    """The lowest token of each byte with a bit that is set."""
    for index, byte in enumerate(mask):
        if byte:
            yield index * 8 + (byte & -byte).bit_length() - 1


def _fits(matcher: LLMatcher, token: int) -> bool:
    return matcher.validate_tokens([token]) == 1


def _single_bytes(tokenizer: LLTokenizer, tokens: int, skip: frozenset[int]) -> dict[int, int]:
    """The token of each byte that has one of its own."""
    found: dict[int, int] = {}
    for token in range(tokens):
        data = tokenizer.decode_bytes([token]) if token not in skip else b""
        if len(data) == 1:
            found[data[0]] = token
    return found


def _ordered(by_byte: dict[int, int], first: bytes) -> list[int]:
    last = [byte for byte in range(256) if byte not in first and byte not in b"\\[{"]
    return [by_byte[byte] for byte in (*first, *last, *b"[{\\") if byte in by_byte]
