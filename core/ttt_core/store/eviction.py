"""Limits of a store: by bytes and by age, who has to go, and who may stay."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ttt_core.locks import in_use
from ttt_core.store.folder import FileEntry, StoreFolder


@dataclass(frozen=True)
class Limits:
    """How much one namespace may keep; None: as much as there is.

    Attributes:
        max_bytes: Bytes of all its files.
        max_age: Seconds since a file was last used.
    """

    max_bytes: int | None = None
    max_age: float | None = None


@dataclass(frozen=True)
class Pruned:
    """What went, or would go; and what should have gone, but is in use or not yet uploaded."""

    removed: tuple[FileEntry, ...] = ()
    kept_in_use: tuple[FileEntry, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes that are free now."""
        return sum(entry.bytes for entry in self.removed)


def _never(key: str) -> bool:
    return False


def prune(
    folder: StoreFolder,
    limits: Limits,
    *,
    keep: Collection[str] = (),
    is_needed: Callable[[str], bool] = _never,
    dry_run: bool = False,
    timeout: float = 0.0,
) -> Pruned:
    """Remove what is over the limits: damaged files first, then those used least recently.

    What a process has in use stays, be the limit as it may.

    Args:
        folder: Of one namespace.
        limits: Its limits.
        keep: Keys that stay, whatever a clock says: the one that was just written.
        is_needed: Whether an entry has to stay for another reason.
        dry_run: Only tell.
        timeout: Seconds to wait for whoever maintains the folder; 0: if there is somebody, leave
            it to them.

    Raises:
        OSError: The folder cannot be listed or locked, or not in time.
    """
    if not folder.path.is_dir():
        return Pruned()

    def may_go(entry: FileEntry) -> bool:
        return entry.damaged or not is_needed(entry.key)

    if dry_run:
        return _prune(folder, limits, keep, lambda one: may_go(one) and not in_use(one.path))
    with folder.maintenance(timeout) as mine:
        if mine:
            remove = folder.remove_unused
            pruned = _prune(folder, limits, keep, lambda one: may_go(one) and remove(one))
    if not mine:
        if timeout:
            raise TimeoutError(errno.ETIMEDOUT, "another process keeps the store locked")
        return Pruned()  # Somebody else is at it.
    folder.sweep()
    return pruned


def _prune(
    folder: StoreFolder,
    limits: Limits,
    keep: Collection[str],
    remove: Callable[[FileEntry], bool],
) -> Pruned:
    """Go from the first in line to the last; what cannot go leaves its bytes to the next one."""
    entries = sorted(folder.scan(), key=lambda entry: (not entry.damaged, entry.used))
    total, now = sum(entry.bytes for entry in entries), time.time()
    removed, kept = [], []
    for entry in entries:
        # A time in the future, from before a clock was set back, is no age: such a file stays
        # until it is used, and then gets a time like all others.
        too_old = limits.max_age is not None and now - entry.used > limits.max_age
        too_much = limits.max_bytes is not None and total > limits.max_bytes
        if (not too_old and not too_much) or (entry.key in keep and not entry.damaged):
            continue
        if remove(entry):
            removed.append(entry)
            total -= entry.bytes
        else:
            kept.append(entry)
    return Pruned(tuple(removed), tuple(kept))
