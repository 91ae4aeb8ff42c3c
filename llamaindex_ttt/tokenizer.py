"""The model's tokenizer, for `Settings.tokenizer`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_index.core.utils import get_tokenizer
from typing_extensions import Self


class ModelTokenizer:
    """Tokenises as a model does.

    Memories hold it and are pickled with workflows' contexts. In a pickle stands that it is the one
    of the settings, as LlamaIndex itself restores memories: an LLM would bring its documents along,
    and load another model where it came with a ready engine.

    Args:
        token_ids: From a text to its token ids.
    """

    def __init__(self, token_ids: Callable[[str], list[int]]) -> None:
        self._token_ids = token_ids

    def __call__(self, text: str) -> list[int]:
        """Return the token ids of a text, without those that templates write."""
        return self._token_ids(text)

    def __copy__(self) -> Self:
        """Return the object itself: a copy would be made by way of a pickle."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the object itself, likewise."""
        return self

    def __reduce__(self) -> tuple[Callable[[], Callable[[str], list[Any]]], tuple[()]]:
        """Pickle as what LlamaIndex counts with where it is unpickled."""
        return get_tokenizer, ()
