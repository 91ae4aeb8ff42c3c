"""Answer tokens to answer text: split characters and stop strings that span tokens.

Text is handed out only once it can no longer change or turn out to be the beginning of a stop
string, so that a streamed answer and a returned one are the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_INCOMPLETE = "\ufffd"


class TextStream:
    """Incremental detokeniser with stop strings.

    Attributes:
        stopped: Whether a stop string was met; what follows it is dropped.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: Sequence[str] = (),
        *,
        behind: str | None = None,
    ) -> None:
        """Begin an answer.

        Args:
            decode: Tokens to text.
            stop: Strings that end the answer.
            behind: Only behind this text, where it ends the model's thinking.
        """
        self.stopped = False
        self._behind = behind if stop else None
        self._decode = decode
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._context = 0  # Tokens before this one no longer influence decoding.
        self._read = 0  # Tokens before this one are in the text already.
        self._held = ""

    def push(self, token: int) -> str:
        """Add a token; return the text that is now certain, which may be empty."""
        self._ids.append(token)
        return self._release(self._new_text(final=False))

    def flush(self) -> str:
        """End the answer; return what was held back."""
        text = self._release(self._new_text(final=True))
        text, self._held = text + self._held, ""
        return text

    def _new_text(self, *, final: bool) -> str:
        known = self._decode(self._ids[self._context : self._read])
        text = self._decode(self._ids[self._context :])
        # A character whose bytes are not all there yet decodes to U+FFFD: wait for the rest.
        if text.endswith(_INCOMPLETE) and not final:
            return ""
        # Tokens without text stay in the context: without it, a space before them would be lost.
        if len(text) > len(known):
            self._context, self._read = self._read, len(self._ids)
        return text[len(known) :]

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        if self._behind is not None:
            return self._release_thought(self._behind)
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            out, self._held = self._held[: min(found)], ""
            return out
        keep = max((overlap(self._held, stop) for stop in self._stop), default=0)
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        return out

    def _release_thought(self, end: str) -> str:
        thought, found, rest = self._held.partition(end)
        if found:
            self._behind, self._held = None, ""
            return thought + found + self._release(rest)
        cut = len(self._held) - overlap(self._held, end)
        out, self._held = self._held[:cut], self._held[cut:]
        return out


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
