"""Looking after a store: what goes, what is set aside, and what a remote still has to get."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ttt_core.namespace import Namespace
from ttt_core.store.eviction import Limits, Pruned, prune
from ttt_core.store.folder import FileEntry
from ttt_core.store.inventory import Inventory
from ttt_core.store.outbox import Outboxes

if TYPE_CHECKING:
    from ttt_core.store.second_level import SecondLevel


class Upkeep(Inventory):
    """What is done to the entries of one namespace beside using them.

    Args:
        path: The store.
        namespace: Whose entries.
        remote: Where they are uploaded to, if anywhere.
    """

    def __init__(self, path: Path, namespace: Namespace, remote: SecondLevel | None) -> None:
        super().__init__(path, namespace)
        self._remote = remote

    def remove(self, key: str) -> bool:
        """Remove an entry from the folder, in use or not; return whether it was there.

        A remote that has it keeps it; one that has not got it yet does not get it any more.

        Raises:
            StoreError: It cannot be removed.
        """
        with self._writing():
            removed = self._folder.remove(key)
        self._outboxes.discard(self._folder.namespace, key)
        return removed

    def remove_damaged(self, *, dry_run: bool = False) -> list[FileEntry]:
        """Remove the files that were set aside; return those that went, or would go.

        Raises:
            StoreError: The folder cannot be listed or written to.
        """
        found = [entry for entry in self.entries() if entry.damaged]
        if dry_run or not found:
            return found
        with self._writing(), self._folder.maintenance() as mine:
            if not mine:
                raise TimeoutError(errno.ETIMEDOUT, "another process keeps the store locked")
            return [entry for entry in found if self._folder.remove_unused(entry)]

    def set_aside(
        self, key: str, *, folder: str | None = None, inode: tuple[int, int] | None = None
    ) -> bool:
        """Rename the entry to `*.damaged`, so that it is made again and can still be looked at.

        Args:
            key: Its key.
            folder: See `entries`.
            inode: What was found damaged; another file that took its place since then stays.
        """
        return self._part(folder).set_aside(key, inode)

    def prune(
        self,
        *,
        max_bytes: int | None = None,
        max_age: float | None = None,
        dry_run: bool = False,
    ) -> Pruned:
        """Remove what is over the limits given, and what killed processes left; see `eviction`.

        Raises:
            StoreError: The folder cannot be listed or written to.
        """
        with self._writing():
            return prune(
                self._folder,
                Limits(max_bytes, max_age),
                is_needed=self._is_pending,
                dry_run=dry_run,
                timeout=30.0,
            )

    def announce_all(self) -> int:
        """Mark all of this namespace for upload, also what was there before the remote was.

        Returns:
            How many entries; `drain` uploads those that the remote lacks.

        Raises:
            StoreError: The folder cannot be listed.
        """
        if self._remote is None:
            return 0
        whole = [entry.key for entry in self.entries() if not entry.damaged]
        for key in whole:
            self._remote.announce(self._folder.namespace, key)
        return len(whole)

    def drain(
        self, *, timeout: float | None = None, on_upload: Callable[[str], None] | None = None
    ) -> int:
        """Upload what this store's remote has not got yet, of all namespaces.

        What waits for another remote is left to those who use that one.

        Args:
            timeout: Seconds after which no further upload is begun.
            on_upload: Called with the key of each entry that the remote has now.

        Returns:
            How many entries it still lacks.
        """
        if self._remote is None:
            return 0
        return self._remote.drain(timeout=timeout, on_upload=on_upload or (lambda key: None))

    def pending_uploads(self) -> int:
        """Number of uploads, of all namespaces and to any remote, that have not been done yet."""
        return len(self._outboxes.pending())

    def forget_uploads(self) -> int:
        """Give up what this namespace has to upload, to any remote; return how much that was.

        For when a remote is not used any more, or refuses something for good: until it has an
        entry, that is not evicted. The entries stay, and go by the limits from now on.

        Raises:
            StoreError: The folder cannot be listed or written to.
        """
        with self._writing():
            return self._outboxes.forget(self._folder.namespace)

    def _is_pending(self, key: str) -> bool:
        # Whoever marked it for upload relies on it, be there a remote here or not.
        return (self._folder.namespace, key) in self._outboxes

    @property
    def _outboxes(self) -> Outboxes:
        return outboxes(self.path)

    def _writing(self) -> AbstractContextManager[None]:
        return self._telling("write to", "; set TTT_HOME, or pass another store path")


def outboxes(path: Path) -> Outboxes:
    """Return what remotes still have to get of a store."""
    return Outboxes(path / "outbox")
