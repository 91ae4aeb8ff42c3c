"""The files of one namespace on the local disk.

    <store>/v2/<namespace's digest>/<key[:2]>/<key>.safetensors
    <store>/v2/<namespace's digest>/<key[:2]>/<key>.damaged     set aside, to be looked at
    <store>/locks/                                              held or waited for, else gone

The directory is the truth. Files appear whole, never change, and lose their names (by eviction,
removal, or being set aside) only under the maintenance lock. Knows nothing of what they hold.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ttt_core import files
from ttt_core.locks import LOCK_SUFFIX, OPEN_FLAGS, locked, remove_unused, sweep_locks
from ttt_core.store.format import FORMAT_VERSION

ENTRY, DAMAGED, TEMPORARY = ".safetensors", ".damaged", ".tmp"

KEY = re.compile(r"[0-9a-f]{64}")

_FOLDER = re.compile(r"[0-9a-f]{32}")
_SHARD = re.compile(r"[0-9a-f]{2}")
_MAINTENANCE = 30.0
"""Seconds after which whoever maintains the folder must have hung: it takes less than one."""


class FileEntry(NamedTuple):
    """One file of the folder; light, since there may be a hundred thousand.

    Attributes:
        key: The key it is stored under.
        location: Where it is; see `path`.
        bytes: Its size.
        used: When it was last used, or written; seconds since the epoch.
        damaged: Whether it was set aside.
    """

    key: str
    location: str
    bytes: int
    used: float
    damaged: bool = False

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.location)


@dataclass(frozen=True)
class OpenFile:
    """A file that is open for reading, with its size and what tells it from others."""

    file: BinaryIO
    size: int
    inode: tuple[int, int]
    used: float


class StoreFolder:
    """One namespace's folder. Safe for several threads and processes.

    Args:
        root: The store.
        namespace: Digest that names the folder: 32 hexadecimal digits.
    """

    def __init__(self, root: Path, namespace: str) -> None:
        if not _FOLDER.fullmatch(namespace):
            raise ValueError("a namespace's folder is named by 32 hexadecimal digits")
        self.root = root
        self.namespace = namespace
        self.path = root / f"v{FORMAT_VERSION}" / namespace

    def file(self, key: str) -> Path:
        """Return where the entry of `key` is, or would be.

        Raises:
            ValueError: The key is not 64 hexadecimal digits.
        """
        if not KEY.fullmatch(key):
            raise ValueError("a store key is 64 hexadecimal digits")
        return self.path / key[:2] / f"{key}{ENTRY}"

    def check(self) -> None:
        """Refuse a store that somebody else can write to.

        Raises:
            PermissionError: Others could exchange what is in it.
            NotADirectoryError: It is a file.
        """
        if self.root.exists() and not self.root.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        for folder in (self.root, self.path.parent, self.path):
            files.check_owned(folder)

    def prepare(self, key: str) -> None:
        """Make the folders that writing `key` needs.

        Raises:
            OSError: They cannot be made, or not be written to, or others can write to them.
        """
        self.make(self.file(key).parent)

    def make(self, folder: Path) -> None:
        """Make one of this namespace's folders, and those around it; errors as for `prepare`."""
        self.check()
        files.make_private(self.root, self.path.parent, self.path, folder, self._locks)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    @contextlib.contextmanager
    def open(self, key: str) -> Iterator[OpenFile | None]:
        """Open the entry of `key`; None if there is none.

        What is no regular file is opened as an empty one, which no reader takes for an entry.

        Raises:
            OSError: It is there, but cannot be read.
        """
        self.check()
        try:
            opened = _open(self.file(key))
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        with opened.file:
            yield opened

    def create(self, key: str, data: bytes) -> bool:
        """Write the entry of `key`, whole, unless there is one; see `files.create`."""
        self.prepare(key)
        return files.create(self.file(key), data)

    def set_aside(self, key: str, inode: tuple[int, int] | None = None) -> bool:
        """Rename the entry to `*.damaged`, so that it is made again and can still be looked at.

        Args:
            key: Its key.
            inode: What was found damaged; another file that took its place since then stays.

        Returns:
            Whether it was renamed; False also where the folder cannot be written to.
        """
        path = self.file(key)
        if not os.path.lexists(path):
            return False
        with contextlib.suppress(OSError), self.maintenance() as mine:
            found = path.lstat()
            if mine and inode in (None, (found.st_dev, found.st_ino)):
                path.replace(path.with_suffix(DAMAGED))
                return True
        return False

    def remove(self, key: str) -> bool:
        """Remove an entry, in use or not; whoever has it loaded keeps it. Returns if it was there.

        Raises:
            OSError: It cannot be removed.
        """
        if not self.file(key).exists():
            return False
        with self.maintenance() as mine:
            if not mine:
                raise TimeoutError(errno.ETIMEDOUT, "another process keeps the store locked")
            self.file(key).unlink(missing_ok=True)
        return True

    def remove_unused(self, entry: FileEntry) -> bool:
        """Remove a file that nobody uses, under the maintenance lock; return whether it is gone."""
        try:
            return remove_unused(entry.path)
        except OSError:
            return False

    def scan(self) -> Iterator[FileEntry]:
        """List all files by their names and sizes, without opening them, in no order.

        Files that another process removes meanwhile are left out; no folder holds no files.

        Raises:
            OSError: The folder cannot be listed.
        """
        self.check()
        for shard in _listed(self.path):
            if _SHARD.fullmatch(shard.name):
                for item in _listed(shard.path):
                    if entry := _file_entry(item):
                        yield entry

    def maintenance(self, timeout: float = _MAINTENANCE) -> AbstractContextManager[bool]:
        """Hold the one lock under which files lose their names; yields whether it is held."""
        return self.lock("maintenance", timeout=timeout)

    def lock(
        self, name: str, *, timeout: float, on_wait: Callable[[float], None] | None = None
    ) -> AbstractContextManager[bool]:
        """Hold a lock of this namespace; see `locks.locked`."""
        self.check()
        files.make_private(self.root, self._locks)
        path = self._locks / f"{self.namespace}-{name}{LOCK_SUFFIX}"
        if on_wait is None:
            return locked(path, timeout=timeout)
        return locked(path, timeout=timeout, on_wait=on_wait)

    def sweep(self, **options: float) -> int:
        """Remove temporary files and locks whose owners were killed; return how many."""
        return files.sweep(self.path, pattern=f"*/*{TEMPORARY}", **options) + sweep_locks(
            self._locks
        )

    @property
    def _locks(self) -> Path:
        return self.root / "locks"


def namespace_folders(root: Path) -> list[str]:
    """Return the digests of all namespaces that have a folder in a store."""
    names = (item.name for item in _listed(root / f"v{FORMAT_VERSION}"))
    return sorted(name for name in names if _FOLDER.fullmatch(name))


def other_versions(root: Path) -> list[Path]:
    """Return the folders that other versions of this package keep in a store; they stay alone."""
    items = (Path(item.path) for item in _listed(root) if re.fullmatch(r"v\d+", item.name))
    return sorted(path for path in items if path.name != f"v{FORMAT_VERSION}")


def _open(path: Path) -> OpenFile:
    try:
        descriptor = os.open(path, OPEN_FLAGS)
    except OSError:
        found = path.lstat()
        if stat.S_ISREG(found.st_mode):
            raise
        return _describe(BytesIO(), found)  # Links and sockets are not opened.
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        return _describe(BytesIO(), found)
    return _describe(open(descriptor, "rb"), found)


def _describe(file: BinaryIO, found: os.stat_result) -> OpenFile:
    size = found.st_size if stat.S_ISREG(found.st_mode) else 0
    return OpenFile(file, size, (found.st_dev, found.st_ino), found.st_mtime)


def _listed(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            yield from items
    except (FileNotFoundError, NotADirectoryError):
        return


def _file_entry(item: os.DirEntry[str]) -> FileEntry | None:
    key, suffix = os.path.splitext(item.name)
    if suffix not in (ENTRY, DAMAGED) or not KEY.fullmatch(key):
        return None
    try:
        found = item.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    damaged = suffix == DAMAGED
    return FileEntry(key, item.path, found.st_size, found.st_mtime, damaged)
