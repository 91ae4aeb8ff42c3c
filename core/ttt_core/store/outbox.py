"""What the remote has not got yet: one small file for each entry, so that a crash forgets nothing.

    <store>/outbox/<namespace's digest>-<key>

Empty, or one byte if what the remote has is damaged and is to be replaced. All processes share it.
Knows nothing of how entries get to the remote.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

from ttt_core.files import make_private, sync_folder

_NAME = re.compile(r"([0-9a-f]{32})-([0-9a-f]{64})")


class Outbox:
    """A folder of markers, which is made when the first one is set.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

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
        make_private(self.path.parent, self.path)
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
        return self._marker(*entry).exists()

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
        try:
            names = os.listdir(self.path)
        except OSError:
            return []
        return [(found[1], found[2]) for found in map(_NAME.fullmatch, names) if found]

    def _marker(self, folder: str, key: str) -> Path:
        name = f"{folder}-{key}"
        if not _NAME.fullmatch(name):
            raise ValueError("an entry is named by 32 and 64 hexadecimal digits")
        return self.path / name
