"""A document that was read, and what was learned on it: what `TTTEngine.adapt` returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from ttt_core.errors import ReleasedError

if TYPE_CHECKING:
    from ttt_core.adapter import QueryAdapter
    from ttt_core.chat import PromptPrefix
    from ttt_core.memory import PrefixSource
    from ttt_core.namespace import Namespace
    from ttt_core.prefix import FrozenPrefix
    from ttt_core.report import AdaptationReport

Source = Literal["trained", "store", "memory", "read"]


class AdaptedDocument:
    """A document that was read, and what was learned on it. Also a context manager: `release()`s.

    A light handle: keys, values and adapter live in the engine's memory, within its limits, and
    are fetched, or made again, when they are used. A request that runs keeps hold of them.

    Attributes:
        key: Identity of the adapter: model, tokenizer, prefix tokens and recipe; empty if the
            document was only read.
        document_hash: SHA-256 of the normalised text.
        namespace: Whose document it is; engines for other namespaces refuse it.
        report: How the adapter was made; None if the document was only read.
        source: `trained` now, fetched from the `store` or from `memory`, or only `read`.
        prefix_source: Where keys and values came from: `computed` now, kept on the `device`, in
            `host` memory or on `disk`; None if they wait for the first question (`adapt_many`).
        seconds: Wall-clock seconds of `prefill` (or of fetching what it once computed) and
            `adaptation` in this call.
        dropped_tokens: Document tokens cut off because `on_overflow` said so.
    """

    def __init__(
        self,
        *,
        key: str,
        document_hash: str,
        namespace: Namespace,
        prompt: PromptPrefix,
        prefix: Callable[[], tuple[FrozenPrefix, PrefixSource]],
        adapter: Callable[[], QueryAdapter | None],
        report: AdaptationReport | None,
        source: Source,
        prefix_source: PrefixSource | None,
        seconds: dict[str, float],
        dropped_tokens: int = 0,
        on_release: Callable[[], None] | None = None,
    ) -> None:
        self.key = key
        self.document_hash = document_hash
        self.namespace = namespace
        self.report = report
        self.source = source
        self.prefix_source = prefix_source
        self.seconds = seconds
        self.dropped_tokens = dropped_tokens
        self._prompt = prompt
        self._prefix = prefix
        self._adapter = adapter
        self._on_release = on_release
        self._released = False

    @property
    def id(self) -> str:
        """Names the document in traces and calls: 16 hexadecimal digits, nothing of its text.

        The same in every process; in a namespace with a secret, nobody else can compute it.
        """
        return self.namespace.digest("document", self.document_hash.encode())[:16]

    @property
    def prompt(self) -> PromptPrefix:
        """System prompt and document as tokens."""
        return self._prompt

    @property
    def n_tokens(self) -> int:
        """Tokens of system prompt and document; needs no keys and values."""
        return len(self._prompt.input_ids)

    @property
    def prefix(self) -> FrozenPrefix:
        """The document's keys and values; on the device for as long as the caller holds them.

        Raises:
            ReleasedError: The document was released, or its engine closed.
        """
        return self.fetch()[0]

    def fetch(self) -> tuple[FrozenPrefix, PrefixSource]:
        """Return keys and values, and where they came from; see `prefix`."""
        self._check()
        return self._prefix()

    @property
    def adapter(self) -> QueryAdapter | None:
        """What was learned; None where the base is kept.

        Raises:
            ReleasedError: As for `prefix`.
        """
        self._check()
        return self._adapter()

    def without_adapter(self) -> AdaptedDocument:
        """The same document, answered in-context by the base model."""
        return self.replace(adapter=no_adapter)

    def release(self) -> None:
        """Give the memory of keys and values back; the store keeps what was learned.

        On disk, keys and values stay, if they were kept there. Other handles of the same document
        can be used further: they fetch what they need again.
        """
        self._released = True
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
        self._check()
        own: dict[str, Any] = {
            "key": self.key,
            "document_hash": self.document_hash,
            "namespace": self.namespace,
            "prompt": self._prompt,
            "prefix": self._prefix,
            "adapter": self._adapter,
            "report": self.report,
            "source": self.source,
            "prefix_source": self.prefix_source,
            "seconds": self.seconds,
            "dropped_tokens": self.dropped_tokens,
            "on_release": self._on_release,
        }
        return AdaptedDocument(**{**own, **changes})

    def __repr__(self) -> str:
        """Say what it is, and nothing of the text."""
        decision = self.report.decision if self.report else "read"
        return f"AdaptedDocument(id={self.id!r}, n_tokens={self.n_tokens}, {decision})"

    def _check(self) -> None:
        if self._released:
            raise ReleasedError("this document was released; adapt it again to go on asking")


def no_adapter() -> None:
    """Return the adapter of a document that is answered by the base model."""
