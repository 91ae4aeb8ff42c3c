"""Deep copies of LLMs that go on telling the same handlers."""

from __future__ import annotations

from typing import Any

from llama_index.core.llms.llm import LLM
from typing_extensions import Self


class SharesCallbacks(LLM):
    """An LLM whose copies share its callback manager; to inherit before LlamaIndex's class.

    Handlers keep what they were told, streams that cannot be copied included
    (`LlamaDebugHandler` does), and a copy whose calls they do not see is of no use to them.
    """

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Copy everything but the callback manager."""
        known = {} if memo is None else memo
        known[id(self.callback_manager)] = self.callback_manager
        return super().__deepcopy__(known)
