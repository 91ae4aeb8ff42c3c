"""A remote behind the local folder: read through, written through or behind, healed if damaged.

What is to be uploaded is marked before it is published locally, and the mark stays until the
remote has it: a crash or a remote that is down puts off the upload, and loses nothing.
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from ttt_core.errors import ConfigError, StoreError
from ttt_core.store.format import FormatError
from ttt_core.store.outbox import Outbox
from ttt_core.store.remote import RemoteFolder

Mode: TypeAlias = Literal["write-through", "write-behind"]

_LOG = logging.getLogger(__name__)
_ABANDONED = 3600.0
"""Seconds after which whoever marked an entry must have published it, or be dead."""


def _ignore(key: str) -> None:
    pass


class SecondLevel:
    """What a store asks when its folder lacks an entry, and tells of new ones.

    Safe for several threads and processes, and in a forked child. There is a thread only while
    something waits to be uploaded behind the scenes; it ends when all is, or with the process.

    Args:
        remote: Where to upload to.
        outbox: Remembers what to upload to this remote; shared by all processes that use the
            folder and have the same remote.
        mode: `write-through` uploads while `publish` waits, `write-behind` after it returned.
        read: Returns all bytes of a local entry, given folder and key, if they are what was
            written; None if there is none, or a damaged one.

    Raises:
        ConfigError: There is no such mode.
    """

    def __init__(
        self,
        remote: RemoteFolder,
        outbox: Outbox,
        *,
        mode: Mode = "write-through",
        read: Callable[[str, str], bytes | None],
    ) -> None:
        if mode not in get_args(Mode):
            raise ConfigError(f"a remote store's mode is one of {get_args(Mode)}, not {mode!r}")
        self._remote = remote
        self._outbox = outbox
        self._mode = mode
        self._read = read
        self._damaged: set[tuple[str, str]] = set()
        self._unmarked: set[tuple[str, str]] = set()
        self._told = self._told_of_outbox = False
        self._processes: dict[int, _Background] = {}

    def fetch(
        self, folder: str, key: str, check: Callable[[bytes], None], *, max_bytes: int
    ) -> bytes | None:
        """Return an entry's bytes from the remote, if they pass `check`; else None.

        An object that does not pass is replaced when the entry is published the next time.

        Args:
            folder: A namespace's digest: 32 hexadecimal digits.
            key: 64 hexadecimal digits.
            check: Raises `FormatError` for what is damaged, or is another entry.
            max_bytes: Larger objects are not read.

        Raises:
            ConfigError: See `RemoteFolder`.
        """
        data = self._remote.get(folder, key, max_bytes=max_bytes)
        if data is None:
            return None
        try:
            check(data)
        except FormatError as error:
            self._damaged.add((folder, key))
            if not self._told:
                self._told = True
                _LOG.warning("the object of %s in %r is not used: %s", key, self._remote, error)
            return None
        return data

    def prepare(self) -> None:
        """Make sure that entries can be marked for upload, before work is spent on one.

        Raises:
            StoreError: They cannot.
        """
        try:
            self._outbox.prepare()
        except OSError as error:
            raise StoreError(f"cannot write to {self._outbox.path}: {_reason(error)}") from error

    def announce(self, folder: str, key: str) -> None:
        """Mark an entry for upload. Do this before publishing it locally: a crash may follow.

        If that fails, what was learned is not lost for it: it is uploaded by this process, or not
        at all, and the log says so once.
        """
        entry = (folder, key)
        try:
            self._outbox.add(folder, key, replaces=entry in self._damaged)
            self._unmarked.discard(entry)
        except OSError as error:
            self._unmarked.add(entry)
            if not self._told_of_outbox:
                self._told_of_outbox = True
                _LOG.warning(
                    "cannot write to %s: %s; what the remote store does not take while this "
                    "process runs, it will not get",
                    self._outbox.path,
                    _reason(error),
                )

    def withdraw(self, folder: str, key: str) -> None:
        """Take back that an entry was announced: it is not there, and will not be."""
        self._unmarked.discard((folder, key))
        self._outbox.discard(folder, key)

    def publish(self, folder: str, key: str) -> None:
        """Upload an entry that is now there locally: at once, or behind the scenes.

        Raises:
            ConfigError: See `RemoteFolder`.
        """
        if (folder, key) not in self._outbox:
            self.announce(folder, key)  # Another writer failed, and took its mark back: the same.
        if self._mode == "write-behind" or not self._upload(folder, key):
            self._background.wake(self._upload_pending, self._remote.retry_after)
        else:
            self.resume()

    def drain(
        self, *, timeout: float | None = None, on_upload: Callable[[str], None] = _ignore
    ) -> int:
        """Upload what is marked, by whomever, even if the remote was down just now.

        Args:
            timeout: Seconds after which no further upload is begun.
            on_upload: Called with the key of each entry that the remote has now.

        Returns:
            How many entries the remote still lacks.

        Raises:
            ConfigError: See `RemoteFolder`.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        # What fails behind the scenes just now would keep this from trying at all.
        with self._background.paused(timeout):
            self._remote.try_again()
            return self._upload_pending(lambda: time.monotonic() < until, on_upload)

    def resume(self) -> None:
        """Upload behind the scenes what other processes left.

        Only a process's first call does, and the first one after `close`.
        """
        if self._background.is_first() and self._outbox.pending():
            self._background.wake(self._upload_pending, self._remote.retry_after)

    def close(self, timeout: float = 10.0) -> None:
        """Give uploads behind the scenes `timeout` seconds; what is left goes the next time.

        That may be in this process: whoever goes on to use it begins anew.
        """
        self._background.close(timeout)

    def _upload_pending(
        self, may_go_on: Callable[[], bool], on_upload: Callable[[str], None] = _ignore
    ) -> int:
        """Upload what is marked, as long as that is allowed; return how many are left."""
        pending = list(self._unmarked.union(self._outbox.pending()))
        # In any order: several processes should not do the same work, nor should an entry that
        # the remote never takes keep it from getting all others.
        random.shuffle(pending)
        left = 0
        for entry in pending:
            if self._remote.is_down or not may_go_on() or not self._upload(*entry, on_upload):
                left += 1
        return left

    def _upload(self, folder: str, key: str, on_upload: Callable[[str], None] = _ignore) -> bool:
        """Upload one entry; return whether nothing is left to be done for it."""
        try:
            data = self._read(folder, key)
        except OSError:
            return False
        if data is None:
            # Gone, or not yet there: the one who marked it may be just about to publish it.
            self._outbox.discard(folder, key, older_than=_ABANDONED)
            return True
        entry = (folder, key)
        heals = self._outbox.replaces(folder, key) or (
            entry in self._unmarked and entry in self._damaged
        )
        write = self._remote.replace if heals else self._remote.put
        if not write(folder, key, data):
            return False
        self._damaged.discard(entry)
        self.withdraw(folder, key)
        on_upload(key)
        return True

    @property
    def _background(self) -> _Background:
        pid = os.getpid()
        return self._processes.get(pid) or self._processes.setdefault(pid, _Background())


@dataclass
class _Background:
    """The thread that uploads, if there is one; a forked child has none, and a new lock."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    uploading: threading.Lock = field(default_factory=threading.Lock)
    thread: threading.Thread | None = None
    wanted: bool = False
    until: float = math.inf
    used: bool = False

    def is_first(self) -> bool:
        """Return whether this is the first call."""
        with self.changed:
            used, self.used = self.used, True
        return not used

    def wake(self, upload: Callable[[Callable[[], bool]], int], pause: float) -> None:
        """See to it that `upload` is called, again and again until nothing is left.

        Args:
            upload: Is told whether it may go on, returns how much is left.
            pause: Seconds between two calls.
        """
        with self.changed:
            self.wanted, self.until = True, math.inf
            self.changed.notify_all()
            if self.thread is None:
                self.thread = threading.Thread(
                    target=self._work, args=(upload, pause), name="ttt-remote-upload", daemon=True
                )
                self.thread.start()

    @contextmanager
    def paused(self, timeout: float | None) -> Iterator[None]:
        """Keep the thread from uploading, once it ended what it began; wait at most `timeout`."""
        held = self.uploading.acquire(timeout=-1 if timeout is None else max(timeout, 0.0))
        try:
            yield
        finally:
            if held:
                self.uploading.release()

    def close(self, timeout: float) -> None:
        """Wait at most `timeout` seconds; after that the thread begins nothing new."""
        with self.changed:
            thread, self.until = self.thread, time.monotonic() + timeout
            self.changed.notify_all()
        if thread is not None:
            thread.join(timeout)
        with self.changed:
            self.used = False

    def _work(self, upload: Callable[[Callable[[], bool]], int], pause: float) -> None:
        try:
            while self._is_wanted():
                with self.uploading:
                    left = upload(lambda: time.monotonic() < self.until)
                if left:
                    self._rest(pause)
        except ConfigError:  # Whoever uses the store in the foreground is told.
            pass
        finally:
            with self.changed:
                if self.thread is threading.current_thread():
                    self.thread = None

    def _is_wanted(self) -> bool:
        """Take note of what is wanted; if nothing is, then of the end, under the same lock."""
        with self.changed:
            wanted, self.wanted = self.wanted, False
            if not wanted:
                self.thread = None
            return wanted

    def _rest(self, pause: float) -> None:
        """Wait before what is left is tried again; closing ends that, and gives up."""
        with self.changed:
            self.changed.wait_for(lambda: self.wanted or self.until < math.inf, pause)
            self.wanted = self.wanted or self.until == math.inf


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
