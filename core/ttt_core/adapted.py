"""A document that was read, and what was learned on it: what `TTTEngine.adapt` returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from ttt_core.errors import ReleasedError

if TYPE_CHECKING:
    from ttt_core.adapter import QueryAdapter
    from ttt_core.chat import PromptPrefix
    from ttt_core.prefill import FrozenPrefix
    from ttt_core.report import AdaptationReport

Source = Literal["trained", "store", "memory", "read"]


class AdaptedDocument:
    """A document that was read, and what was learned on it. Also a context manager: `release()`s.

    Attributes:
        key: Identity of the adapter: model, tokenizer, prefix tokens and recipe; empty if the
            document was only read.
        document_hash: SHA-256 of the normalised text.
        report: How the adapter was made; None if the document was only read.
        source: `trained` now, fetched from the `store` or from `memory`, or only `read`.
        seconds: Wall-clock seconds of `prefill` and `adaptation` in this call.
        dropped_tokens: Document tokens cut off because `on_overflow` said so.
    """

    def __init__(
        self,
        *,
        key: str,
        document_hash: str,
        prompt: PromptPrefix,
        prefix: FrozenPrefix,
        adapter: QueryAdapter | None,
        report: AdaptationReport | None,
        source: Source,
        seconds: dict[str, float],
        dropped_tokens: int = 0,
        on_release: Callable[[], None] | None = None,
    ) -> None:
        self.key = key
        self.document_hash = document_hash
        self.report = report
        self.source = source
        self.seconds = seconds
        self.dropped_tokens = dropped_tokens
        self._prompt = prompt
        self._adapter = adapter
        self._prefix: FrozenPrefix | None = prefix
        self._on_release = on_release

    @property
    def prompt(self) -> PromptPrefix:
        """System prompt and document as tokens."""
        return self._prompt

    @property
    def prefix(self) -> FrozenPrefix:
        """The document's keys and values.

        Raises:
            ReleasedError: The document was released.
        """
        if self._prefix is None:
            raise ReleasedError("this document was released; adapt it again to go on asking")
        return self._prefix

    @property
    def adapter(self) -> QueryAdapter | None:
        """What was learned; None where the base is kept."""
        return self._adapter

    def without_adapter(self) -> AdaptedDocument:
        """The same document, answered in-context by the base model."""
        return self.replace(adapter=None)

    def release(self) -> None:
        """Give the memory of keys and values back; the store keeps what was learned."""
        self._prefix = None
        if self._on_release is not None:
            self._on_release()

    def __enter__(self) -> AdaptedDocument:
        """Return the document itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Release it."""
        self.release()

    def replace(self, **changes: Any) -> AdaptedDocument:
        """Return another view of the same document, with some attributes changed."""
        own: dict[str, Any] = {
            "key": self.key,
            "document_hash": self.document_hash,
            "prompt": self._prompt,
            "prefix": self.prefix,
            "adapter": self._adapter,
            "report": self.report,
            "source": self.source,
            "seconds": self.seconds,
            "dropped_tokens": self.dropped_tokens,
            "on_release": self._on_release,
        }
        return AdaptedDocument(**{**own, **changes})
