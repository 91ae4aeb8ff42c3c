"""AdapterByteStore: LangChain's key-value interface on an AdapterStore. Translates, only."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from langchain_core.stores import BaseStore

from ttt_core import AdapterStore
from ttt_core.namespace import NamespaceLike
from ttt_core.store.view import StoreView


class AdapterByteStore(BaseStore[str, bytes]):
    """Adapters as the bytes of their files, to be listed, copied and removed.

    Keys are the adapters' own, or any other text, which then is a name for the adapter that was
    put under it. `StoreView` says what that means for removing; names are stored as they are.

    Example:
        >>> here = AdapterByteStore()
        >>> # Without a limit of its own: what is copied later must not evict what was before.
        >>> there = AdapterByteStore(AdapterStore("/mnt/backup", max_bytes=None))
        >>> keys = list(here.yield_keys())
        >>> there.mset([(key, data) for key, data in zip(keys, here.mget(keys)) if data])

    Args:
        store: A store, a folder, or None for the default folder.
        namespace: Whose adapters: a `Namespace`, or a name; None: the store's.

    Raises:
        ConfigError: A namespace that cannot be.
    """

    def __init__(
        self,
        store: AdapterStore | str | os.PathLike[str] | None = None,
        *,
        namespace: NamespaceLike = None,
    ) -> None:
        self._view = StoreView(store, namespace=namespace)

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the adapters' files, in the order of the keys; None where there is none.

        Raises:
            StoreError: One is there but cannot be read.
        """
        return [self._view.get(key) for key in keys]

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Put adapters under names, or their own keys, one after another.

        Raises:
            ConfigError: A name of more than 8,192 bytes, or one that is no Unicode.
            StoreError: Bytes that are no adapter of this namespace, or not the one of that key; or
                the store cannot be written to.
        """
        self._view.put(key_value_pairs)

    def mdelete(self, keys: Sequence[str]) -> None:
        """Remove names, with adapters that were kept for them only, and adapters by their keys.

        Raises:
            StoreError: The store cannot be written to.
        """
        self._view.remove(keys)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """List the names, and the keys of those adapters that are not kept for a name only.

        Raises:
            StoreError: The store cannot be listed.
        """
        for key in self._view.list_keys():
            if key.startswith(prefix or ""):
                yield key
