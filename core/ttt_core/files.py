"""Files that are there whole or not at all, in folders that nobody else can look into.

Knows nothing of what the files hold. The directory is the truth: no index, no lock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ABANDONED = 3600.0
"""Seconds after which a temporary folder's writer must be dead: writing takes minutes at most."""


@dataclass(frozen=True)
class Usage:
    """How many files a folder holds, and their bytes."""

    files: int
    bytes: int


def make_private(*folders: Path) -> None:
    """Make folders that only their owner can enter, the outermost first."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)


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
    if os.name != "nt":  # Windows cannot open folders; its rename is durable enough.
        _sync(path.parent, os.O_RDONLY)


def sweep(folder: Path) -> None:
    """Remove what killed writers left below `folder`, two levels down."""
    oldest = time.time() - _ABANDONED
    for left in folder.glob("*/*/*.tmp"):
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < oldest:
                shutil.rmtree(left)


def entries(folder: Path, pattern: str) -> list[tuple[Path, os.stat_result]]:
    """List the files that match `pattern` with their sizes and times, without opening them.

    Files that another process removes meanwhile are left out; no folder holds no files.
    """
    found = []
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            found.append((path, path.stat()))
    return found


def usage(folder: Path, pattern: str) -> Usage:
    """Count the files that match `pattern`, and their bytes."""
    sizes = [stat.st_size for _, stat in entries(folder, pattern)]
    return Usage(files=len(sizes), bytes=sum(sizes))


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
