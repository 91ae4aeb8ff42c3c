"""A store as other people's code expects one: a mapping from text to bytes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from io import BytesIO

from ttt_core.errors import StoreError
from ttt_core.namespace import NamespaceLike
from ttt_core.store.adapter_store import AdapterStore
from ttt_core.store.folder import KEY, StoreFolder
from ttt_core.store.format import FormatError, Header, read_header
from ttt_core.store.inventory import reason
from ttt_core.store.names import Names, check_name


class StoreView:
    """The adapters of one namespace, by key or by name, as the bytes of their files.

    It does what a dictionary does, with these differences:

    - A value is the file of an adapter of this namespace; all others are refused.
    - 64 hexadecimal digits are an adapter's own key, under which no other one can be put. An
      adapter that was only put under names can be read by its key, too, but is not listed by it.
    - Putting an adapter under a name that had another one, or removing a name, removes the adapter
      that has no name any more, unless it was trained here or put under its own key.
    - Removing an adapter's own key removes it, and all names for it.
    - What the store evicts is gone for this view. What is trained anew is no longer kept for its
      names only.

    Args:
        store: A store, a folder, or None for the default folder.
        namespace: Whose adapters; None: the store's.

    Raises:
        ConfigError: A namespace that cannot be.
    """

    def __init__(
        self,
        store: AdapterStore | str | os.PathLike[str] | None = None,
        *,
        namespace: NamespaceLike = None,
    ) -> None:
        opened = store if isinstance(store, AdapterStore) else AdapterStore(store)
        self.store = opened if namespace is None else opened.in_namespace(namespace)
        self._names = Names(self.store.path, self.store.namespace)

    def get(self, name: str) -> bytes | None:
        """Return the file of the adapter with that key or name; None if there is none.

        Raises:
            StoreError: It is there but cannot be read.
        """
        key = self._resolve(name)
        return None if key is None else self.store.read_bytes(key)

    def put(self, pairs: Iterable[tuple[str, bytes]]) -> None:
        """Put adapters under names, or their own keys; those before one that is refused are put.

        Raises:
            ConfigError: A name that cannot be.
            StoreError: Bytes that are no adapter's, one of another namespace, or another one than
                the key says; or the store cannot be written to.
        """
        replaced: set[str] = set()
        with self._names.changing():
            try:
                for name, data in pairs:
                    replaced |= self._put(name, data)
            finally:
                self._release(replaced)

    def remove(self, names: Iterable[str]) -> None:
        """Remove names, and adapters by their own keys; see the class. What is not there is fine.

        Raises:
            StoreError: The store cannot be written to.
        """
        wanted = set(names)
        keys = {name for name in wanted if KEY.fullmatch(name)}
        named = {name for name in wanted - keys if self._names.get(name) is not None}
        keys = keys and keys & self._stored()
        if not keys and not named:  # Then nothing is written, not even a lock.
            return
        with self._names.changing():
            self._remove(keys, named)

    def clear(self) -> None:
        """Remove all adapters and names, and what killed writers left of either.

        Raises:
            StoreError: The store cannot be written to.
        """
        folder = StoreFolder(self.store.path, self.store.namespace.folder)
        if not folder.path.is_dir():  # Then nothing is written, not even a lock.
            return
        with self._names.changing():
            self._remove(self._stored(), set(self._names.all()))
            try:
                folder.sweep(older_than=0.0)
            except OSError as error:
                raise StoreError(
                    f"cannot write to the adapter store {self.store.path}: {reason(error)}"
                ) from error

    def list_keys(self) -> Iterator[str]:
        """List the names of all adapters, and the keys of those that are kept for themselves.

        Raises:
            StoreError: The store cannot be listed.
        """
        names, stored = self._names.all(), self._stored()
        yield from (name for name, key in names.items() if key in stored)
        unnamed = stored - set(names.values())
        yield from (key for key in stored if key in unnamed or not self._is_marked(key))

    def _put(self, name: str, data: bytes) -> set[str]:
        """Put one adapter; return the key, if any, that `name` stood for before."""
        claim, is_key = _claim(data), KEY.fullmatch(name) is not None
        if not is_key:
            check_name(name)
        elif claim is not None and claim.metadata.key != name:
            raise StoreError("these bytes are an adapter's, but not the one of that key")
        # Reading sets a damaged file aside, in whose place nothing could be written.
        is_new = claim is not None and self.store.read_bytes(claim.metadata.key) is None
        key = self.store.write_bytes(data)  # Refuses all that is not right.
        if is_key:
            self._names.unmark(key)
            return set()
        # Somebody may have trained it meanwhile: then that one was written, and is no name's.
        if is_new and claim is not None and self._checksum(key) == claim.checksum:
            self._names.mark(key, claim.checksum)
        before = self._names.get(name)
        self._names.set(name, key)
        return set() if before is None or before == key else {before}

    def _remove(self, keys: set[str], named: set[str]) -> None:
        """Remove adapters, all names for them, and other names."""
        if keys:
            named = named | {name for name, key in self._names.all().items() if key in keys}
        freed = {self._names.remove(name) for name in named}
        for key in keys:
            self._drop(key)
        self._release({key for key in freed if key is not None})

    def _release(self, keys: Iterable[str]) -> None:
        """Remove those adapters that were kept for their names and have none any more."""
        marked = {key for key in keys if self._names.marked(key) is not None}
        if marked:
            for key in marked - set(self._names.all().values()):
                if self._is_marked(key):
                    self.store.remove(key)
                self._names.unmark(key)

    def _drop(self, key: str) -> None:
        self.store.remove(key)
        self._names.unmark(key)

    def _is_marked(self, key: str) -> bool:
        """Whether the adapter of `key` is kept for its names only, and goes with the last one.

        A mark outlives its adapter, which others evict and remove. What was trained since then
        has another checksum, since that covers when and how long it was trained.
        """
        checksum = self._names.marked(key)
        return checksum is not None and checksum == self._checksum(key)

    def _checksum(self, key: str) -> str | None:
        with contextlib.suppress(StoreError):  # What cannot be read is not removed.
            header = self.store.header(key)
            return header.checksum if header else None
        return None

    def _resolve(self, name: str) -> str | None:
        return name if KEY.fullmatch(name) else self._names.get(name)

    def _stored(self) -> set[str]:
        return {entry.key for entry in self.store.entries() if not entry.damaged}


def _claim(data: bytes) -> Header | None:
    """Read what an adapter says that it is; None if it has no key that can be one."""
    with contextlib.suppress(FormatError):
        header = read_header(BytesIO(data), len(data))
        return header if KEY.fullmatch(header.metadata.key) else None
    return None
