"""What a remote has not got yet: one small file for each entry, so that a crash forgets nothing.

    <store>/outbox/<remote's digest>/<namespace's digest>-<key>

Empty, or one byte if what the remote has is damaged and is to be replaced. All processes share it.
Each remote has marks of its own: what one owner wrote is not for the bucket of another, who may
use the same folder. Knows nothing of how entries get to a remote.
"""

from __future__ import annotations

import errno
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from ttt_core.files import check_owned, make_private, sync_folder

_REMOTE = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"([0-9a-f]{32})-([0-9a-f]{64})")


class Outbox:
    """A folder of markers for one remote, which is made when it is prepared, or one is set.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make sure that entries can be marked, before work is spent on them.

        Raises:
            OSError: The folder cannot be made or written to, or others can write to it.
        """
        self._make()
        check_owned(self.path)
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def add(self, folder: str, key: str, *, replaces: bool = False) -> None:
        """Mark an entry; this is on the disk when it returns.

        Args:
            folder: A namespace's digest: 32 hexadecimal digits.
            key: 64 hexadecimal digits.
            replaces: What the remote has is to be replaced; stays so until the mark is taken away.

        Raises:
            OSError: The marker cannot be written.
            ValueError: `folder` or `key` is no digest.
        """
        marker = self._marker(folder, key)
        self._make()
        descriptor = os.open(marker, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            if replaces:
                os.write(descriptor, b"!")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # If it was there, what is about to be written is not abandoned; but another process that
        # uploaded it just now may have taken it away, and then the remote has what it needs.
        with suppress(FileNotFoundError):
            os.utime(marker)
        sync_folder(self.path)

    def discard(self, folder: str, key: str, *, older_than: float = 0.0) -> None:
        """Take a mark away, if there is one that was set `older_than` seconds ago, or before."""
        marker = self._marker(folder, key)
        # A mark too many only costs a look at the remote.
        with suppress(OSError):
            # The clock may have been set back since: a time in the future counts as well.
            if not older_than or abs(time.time() - marker.stat().st_mtime) >= older_than:
                marker.unlink()

    def __contains__(self, entry: tuple[str, str]) -> bool:
        """Whether an entry, a folder and a key, is marked."""
        return os.path.lexists(self._marker(*entry))

    def replaces(self, folder: str, key: str) -> bool:
        """Whether an entry is marked, and to replace what the remote has."""
        try:
            return self._marker(folder, key).stat().st_size > 0
        except OSError:
            return False

    def pending(self) -> list[tuple[str, str]]:
        """Return folder and key of all entries that are marked, in no order.

        What else may lie there is not looked at; a folder that cannot be read has no marks.
        """
        with suppress(OSError):
            return self._marked()
        return []

    def forget(self, folder: str) -> int:
        """Take all marks of a namespace away; return how many there were.

        Raises:
            OSError: One cannot be taken away, or they cannot be listed.
        """
        keys = [key for marked, key in self._marked() if marked == folder]
        for key in keys:
            self._marker(folder, key).unlink(missing_ok=True)
        return len(keys)

    def _make(self) -> None:
        # With the folders around it, which may be as new: the one for all remotes, and the store.
        make_private(*self.path.parents[1::-1], self.path)

    def _marked(self) -> list[tuple[str, str]]:
        names = map(_NAME.fullmatch, _listed(self.path))
        return [(found[1], found[2]) for found in names if found]

    def _marker(self, folder: str, key: str) -> Path:
        name = f"{folder}-{key}"
        if not _NAME.fullmatch(name):
            raise ValueError("an entry is named by 32 and 64 hexadecimal digits")
        return self.path / name


class Outboxes:
    """The marks for all remotes, those included that are no longer in use.

    Args:
        path: The folder in which each remote has one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def of(self, remote: str) -> Outbox:
        """Return the marks for one remote.

        Raises:
            ValueError: `remote` is no digest: 32 hexadecimal digits.
        """
        if not _REMOTE.fullmatch(remote):
            raise ValueError("a remote is named by 32 hexadecimal digits")
        return Outbox(self.path / remote)

    def __contains__(self, entry: tuple[str, str]) -> bool:
        """Whether an entry, a folder and a key, is marked for any remote.

        Raises:
            OSError: That cannot be told, so that the entry had better stay.
        """
        return any(entry in outbox for outbox in self._each())

    def pending(self) -> list[tuple[str, str]]:
        """Return folder and key of all entries that are marked, once for each remote; see there."""
        with suppress(OSError):
            return [entry for outbox in self._each() for entry in outbox.pending()]
        return []

    def discard(self, folder: str, key: str) -> None:
        """Take the marks of an entry away, for all remotes."""
        with suppress(OSError):
            for outbox in self._each():
                outbox.discard(folder, key)

    def forget(self, folder: str) -> int:
        """Take all marks of a namespace away, for all remotes; see `Outbox.forget`."""
        return sum(outbox.forget(folder) for outbox in self._each())

    def _each(self) -> list[Outbox]:
        return [self.of(name) for name in _listed(self.path) if _REMOTE.fullmatch(name)]


def _listed(folder: Path) -> list[str]:
    """Return the names in a folder; one that is not there has none.

    Raises:
        OSError: It is there, but cannot be listed.
    """
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
