"""Files that are there whole or not at all, in folders that nobody else can look into.

Knows nothing of what the files hold. The directory is the truth: no index.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ABANDONED = 3600.0
"""Seconds after which a temporary file's writer must be dead: writing takes minutes at most."""

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""How file systems without hard links refuse one."""


@dataclass(frozen=True)
class Usage:
    """How many files a folder holds, and their bytes."""

    files: int
    bytes: int


def make_private(*folders: Path) -> None:
    """Make folders that only their owner can enter, the outermost first; they survive a power cut.

    Raises:
        OSError: One cannot be made.
    """
    for folder in folders:
        missing = [one for one in (folder, *folder.parents) if not one.is_dir()]
        if missing:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for made in reversed(missing):
                sync_folder(made.parent)


def check_owned(folder: Path) -> None:
    """Refuse a folder whose contents somebody else could exchange; one that is not there is fine.

    Raises:
        PermissionError: Group or others can write to it, or it belongs to another user.
    """
    if os.name == "nt":  # Access there is no matter of mode bits.
        return
    try:
        found = folder.stat()
    except FileNotFoundError:
        return
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(
            errno.EPERM, f"other users can write to {folder}; chmod go-w would end that"
        )
    if found.st_uid not in (os.geteuid(), 0):
        raise PermissionError(errno.EPERM, f"{folder} belongs to another user, who can change it")


def create(path: Path, data: bytes) -> bool:
    """Write a file if there is none of that name; whole and for good, or not at all.

    A reader sees nothing or all of it, even after a power cut. Of several writers the first wins.

    Args:
        path: In a folder that exists.
        data: All of the contents.

    Returns:
        Whether it was written; False: there is one already.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    for last_try in (False, True):
        try:
            return _create(path, data)
        except FileNotFoundError:
            # Somebody whose clock is ahead took the temporary file for a dead writer's.
            if last_try:
                raise
    raise AssertionError("unreachable")


def write_synced(path: Path, data: bytes) -> None:
    """Write a new private file; its contents are on the disk when this returns, maybe not its name.

    Raises:
        OSError: There is one of that name, or it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    if os.name != "nt":  # Windows cannot open folders; its renames are durable enough.
        _sync(folder, os.O_RDONLY)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lend a temporary path to write to; when the block ends, its file takes the place of `path`.

    A reader sees the old file or the new one, whole, even after a power cut. The temporary file
    has a folder of its own, since some writers make further temporary files beside theirs.
    """
    folder = Path(tempfile.mkdtemp(dir=path.parent, suffix=".tmp"))  # mode 0700
    try:
        temporary = folder / path.name
        yield temporary
        temporary.chmod(0o600)
        _sync(temporary, os.O_RDWR)  # Windows syncs only what can be written to.
        temporary.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_folder(path.parent)


def sweep(folder: Path, *, pattern: str = "*/*/*.tmp", older_than: float = _ABANDONED) -> int:
    """Remove what killed writers left below `folder`; return how many there were.

    Args:
        folder: Where to look.
        pattern: What temporary files and folders are called.
        older_than: Seconds; younger ones may still be written to. A time in the future says that
            a clock was set back, and counts by how far it is off.
    """
    now, removed = time.time(), 0
    for left in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if abs(now - left.stat().st_mtime) < older_than:
                continue
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
            removed += 1
    return removed


def entries(folder: Path, pattern: str) -> list[tuple[Path, os.stat_result]]:
    """List the files that match `pattern` with their sizes and times, without opening them.

    Files that another process removes meanwhile, or that are out of reach, are left out; no folder
    holds no files.
    """
    found = []
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            found.append((path, path.stat()))
    return found


def usage(folder: Path, pattern: str) -> Usage:
    """Count the files that match `pattern`, and their bytes."""
    sizes = [stat.st_size for _, stat in entries(folder, pattern)]
    return Usage(files=len(sizes), bytes=sum(sizes))


def _create(path: Path, data: bytes) -> bool:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        write_synced(temporary, data)
        created = _publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)  # Also for another writer's file: it is here when this returns.
    return created


def _publish(temporary: Path, path: Path) -> bool:
    """Give a finished file its name, unless that is taken."""
    try:
        if os.name == "nt":
            temporary.rename(path)  # Refuses to replace, there.
        else:
            os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Two writers may both believe to be the first: entries of one key say the same anyway.
        if path.exists():
            return False
        temporary.rename(path)
    return True


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
