"""The adapter store: what was learned, kept under the document's key.

Content-addressed files in a folder that is the truth; limits, a lock for each key, so that a
document is adapted to once, and a remote behind it all, if there is one. No pickle, no path from
a caller's string, no document text.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttt_core.errors import ConfigError, StoreError
from ttt_core.locks import Pin, pin
from ttt_core.namespace import Namespace, NamespaceLike
from ttt_core.store.eviction import Limits, prune
from ttt_core.store.folder import ENTRY, OpenFile, StoreFolder
from ttt_core.store.format import (
    MAX_BYTES,
    MAX_HEADER_BYTES,
    FormatError,
    Header,
    StoredAdapter,
    check_bytes,
    encode,
    read_file,
    read_weights,
)
from ttt_core.store.inventory import Shapes, accept, belongs
from ttt_core.store.upkeep import Upkeep, outboxes

if TYPE_CHECKING:
    from ttt_core.store.peft_export import ExportReport
    from ttt_core.store.remote import RemoteFolder
    from ttt_core.store.second_level import Mode, SecondLevel

DEFAULT_MAX_BYTES = 20 << 30

_LOG = logging.getLogger(__name__)
_RARELY = 100
"""One part in so many of the limit is written before a process looks at it again."""
_OFTEN = 10
"""Likewise, times in the longest age that such a look is worth while."""
_TOUCH = 60.0
"""Seconds for which one note of a use is enough."""


def default_store_path() -> Path:
    """`$TTT_HOME/adapters`, or the platform's folder for application caches."""
    home = os.environ.get("TTT_HOME")
    if home:
        return Path(home).expanduser() / "adapters"
    from platformdirs import user_cache_path

    return user_cache_path("context-ttt", appauthor=False) / "adapters"


class AdapterStore(Upkeep):
    """A folder of adapters. Safe for several threads and processes: entries are never changed.

    Constructing one is free; the folder is made when something is first written. Copies are the
    store itself; a pickled one opens the same folder again.

    Args:
        path: The folder; None: `default_store_path()`.
        namespace: Whose adapters: a `Namespace`, or a name; see there.
        max_bytes: Bytes that each namespace may keep, least recently used first out; None: all
            that there is room for.
        max_age: Seconds after its last use at which an adapter goes, when something is written;
            None: never. One that is asked for before it went is used, and so young again.
        remote: A second level behind the folder: an fsspec URL (`s3://bucket/prefix`, `gs://...`,
            `file://...`) or a `RemoteFolder`. Whoever can read it learns what the documents say.
        remote_mode: `write-through` uploads before `put` returns, `write-behind` after it.
        remote_options: For the URL's file system: fsspec's `storage_options`.

    Raises:
        ConfigError: A path, namespace, limit or URL that cannot be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        namespace: NamespaceLike = None,
        max_bytes: int | None = DEFAULT_MAX_BYTES,
        max_age: float | None = None,
        remote: str | RemoteFolder | None = None,
        remote_mode: Mode = "write-through",
        remote_options: Mapping[str, Any] | None = None,
    ) -> None:
        # Absolute: this process may change its directory, and so may those it is pickled for.
        folder = _settled(path)
        level = _second_level(folder, remote, remote_mode, remote_options)
        super().__init__(folder, Namespace.of(namespace), level)
        self.limits = _checked_limits(max_bytes, max_age)
        self._remote_arguments = (remote, remote_mode, bool(remote_options))

    _unlisted = 0
    """Bytes written since the folder was listed."""
    _listed = -math.inf
    """When that was, on the monotonic clock; the first writing lists it in any case."""

    _closes_remote = True
    """Whether the remote is this store's own: others would be cut off when a view is closed."""

    def in_namespace(self, namespace: NamespaceLike) -> AdapterStore:
        """Return the same store for another namespace.

        They share the remote; `close` waits for its uploads only where it was made.
        """
        other = AdapterStore.__new__(AdapterStore)
        Upkeep.__init__(other, self.path, Namespace.of(namespace), self._remote)
        other.limits, other._remote_arguments = self.limits, self._remote_arguments
        other._closes_remote = False
        return other

    def get(self, key: str, *, shapes: Shapes | None = None) -> StoredAdapter | None:
        """Return the entry for `key`, from the folder or else from the remote; None if neither has.

        A file that is not what was written, or that does not fit, is set aside as `*.damaged`.

        Args:
            key: 64 hexadecimal digits.
            shapes: The weights that the model needs; other ones are refused before they are read.

        Raises:
            StoreError: The file is there but cannot be read, or others can write to the store.
        """
        if self._remote:  # Also where nothing has to be fetched, or what waits might wait for ever.
            self._remote.resume()
        entry = self._get(key, shapes)
        if entry is None and self._fetch(key, shapes):
            entry = self._get(key, shapes)
        return entry

    def put(self, key: str, entry: StoredAdapter) -> bool:
        """Write an entry, unless there is one: of several writers, the first wins.

        Returns:
            Whether it was written.

        Raises:
            StoreError: The folder cannot be written to.
            ValueError: The key is not the entry's.
        """
        if entry.identity.key(self.namespace) != key:
            raise ValueError("this key is not the one of the entry's identity")
        return self._create(key, encode(entry, key, namespace=self.namespace.name))

    def prepare(self, key: str) -> None:
        """Make sure that `key` can be written, before work is spent on it.

        Raises:
            StoreError: The folder, or the one for what a remote has not got yet, cannot be made or
                written to, or others can write to it.
        """
        with self._writing():
            self._folder.prepare(key)
        if self._remote:
            self._remote.prepare()

    @contextlib.contextmanager
    def alone(
        self, key: str, *, timeout: float, on_wait: Callable[[float], None] | None = None
    ) -> Iterator[bool]:
        """Be the only one, in all processes of this machine, to make the entry of `key`.

        Args:
            key: The key; `prepare` it first.
            timeout: Seconds to wait for another process that makes it.
            on_wait: Called several times a second meanwhile, with the seconds so far; may raise.

        Yields:
            False if the other process took longer than that.
        """
        self._folder.file(key)  # Checks the key.
        carried = None if on_wait is None else _carrying(on_wait)
        with contextlib.ExitStack() as stack:
            try:
                with self._writing():
                    lock = self._folder.lock(key, timeout=timeout, on_wait=carried)
                    held = stack.enter_context(lock)
            except _CarriedError as carrier:
                raise carrier.error from None
            yield held

    def pin(self, key: str) -> Pin | None:
        """Keep the entry from being evicted, by any process, while the returned object lives."""
        return pin(self._folder.file(key))

    def export(
        self,
        key: str,
        folder: str | os.PathLike[str],
        *,
        rank: int | None = None,
        alora_invocation_tokens: Sequence[int] | None = None,
        overwrite: bool = False,
    ) -> ExportReport:
        """Write an entry to a folder that PEFT loads; see `peft_export.export_adapter`.

        Raises:
            ConfigError: There are no weights, or the rank or the tokens cannot be.
            StoreError: There is no such entry, or the folder cannot be written.
        """
        from ttt_core.store.peft_export import export_adapter

        entry = self.get(key)
        if entry is None:
            raise StoreError(f"there is nothing to export under {key}")
        return export_adapter(
            entry,
            Path(folder),
            namespace=self.namespace,
            rank=rank,
            alora_invocation_tokens=alora_invocation_tokens,
            overwrite=overwrite,
        )

    def import_(self, folder: str | os.PathLike[str]) -> tuple[str, bool]:
        """Put what was exported to a folder into this namespace.

        Returns:
            Its key here, and whether it was written: False if it is here already.

        Raises:
            StoreError: The folder is damaged, or comes from a namespace with another secret.
        """
        from ttt_core.store.peft_import import import_adapter

        entry, about = import_adapter(Path(folder))
        key = entry.identity.key(self.namespace)
        if about.sealed and key != about.key:
            raise StoreError(
                f"cannot import {folder}: its namespace has a secret; only the same namespace with "
                f"the same secret can tell which document it is of"
            )
        if self.namespace.secret is not None and not about.sealed:
            raise StoreError(
                f"cannot import {folder}: its namespace has no secret, but this one has, and so "
                f"other hashes of the same document"
            )
        return key, self.put(key, entry)

    def read_bytes(self, key: str) -> bytes | None:
        """Return the whole file of `key`, checked, from the folder or else from the remote.

        None if there is none, or none to be used.

        Raises:
            StoreError: The file is there but cannot be read.
        """
        found = self._read(key, None)
        if found is None and self._fetch(key, None):
            found = self._read(key, None)
        return None if found is None else found[1]

    def write_bytes(self, data: bytes) -> str:
        """Check the bytes of a file, write it unless it is there, and return its key.

        Raises:
            StoreError: They are no adapter's, or one of another namespace; or the folder cannot
                be written to.
        """
        try:
            header = check_bytes(data, partial(belongs, self.namespace))
        except FormatError as error:
            raise StoreError(f"these bytes are no adapter of this store: {error}") from None
        self._create(header.metadata.key, data)
        return header.metadata.key

    def close(self) -> None:
        """Wait, but not for long, for uploads behind the scenes; those left over go next time.

        Does nothing for what `in_namespace` returned. The store can be used further.
        """
        if self._remote and self._closes_remote:
            self._remote.close()

    def __copy__(self) -> AdapterStore:
        """Return the store itself: what it is made of never changes."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> AdapterStore:
        """Return the store itself, as `__copy__` does."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle how it was made, unless that may hold a secret: pickles end up in files.

        Raises:
            TypeError: Its namespace has a secret, or its remote may have credentials.
        """
        remote, mode, has_options = self._remote_arguments
        is_plain = remote is None or (isinstance(remote, str) and not set(remote) & set("@?"))
        if has_options or not is_plain:
            raise TypeError(
                "a store is not pickled if its remote has options, is an object, or has an '@' or "
                "'?' in its URL: there may be credentials in it; make the store in the other "
                "process, where the environment can hold them"
            )
        reopen = partial(
            AdapterStore,
            namespace=self.namespace,
            max_bytes=self.limits.max_bytes,
            max_age=self.limits.max_age,
            remote=remote,
            remote_mode=mode,
        )
        return reopen, (self.path,)

    def _get(self, key: str, shapes: Shapes | None) -> StoredAdapter | None:
        found = self._read(key, shapes)
        if found is None:
            return None
        header, data = found
        about = header.metadata
        return StoredAdapter(
            identity=about.identity,
            report=about.report,
            weights=read_weights(data),
            base_model=about.base_model,
            query_rows=about.query_rows,
            created=about.created,
        )

    def _read(self, key: str, shapes: Shapes | None) -> tuple[Header, bytes] | None:
        """Read a file if it is what was written under `key`; else set it aside."""
        with self._reading(), self._folder.open(key) as opened:
            if opened is None:
                return None
            try:
                found = read_file(
                    opened.file, opened.size, partial(accept, key, self.namespace, shapes)
                )
            except FormatError as error:
                if self._folder.set_aside(key, opened.inode):
                    _LOG.warning("set %s%s aside as damaged: %s", key, ENTRY, error)
                return None
            self._touch(key, opened)
            return found

    def _create(self, key: str, data: bytes) -> bool:
        if self._remote:
            self._remote.announce(self._folder.namespace, key)
        try:
            with self._writing():
                created = self._folder.create(key, data)
                if not created and self._sets_aside(key):
                    created = self._folder.create(key, data)
        except BaseException:
            self._take_back(key)
            raise
        self._keep_limits(key, len(data))
        if self._remote:
            self._remote.publish(self._folder.namespace, key)
        return created

    def _take_back(self, key: str) -> None:
        """Mark what could not be written as nothing to upload, unless it is there all the same."""
        if self._remote is None:
            return
        try:
            self._folder.file(key).lstat()
        except (FileNotFoundError, NotADirectoryError):
            self._remote.withdraw(self._folder.namespace, key)
        except OSError:  # It cannot be told: a mark too many does less harm than one too few.
            pass

    def _sets_aside(self, key: str) -> bool:
        """Whether what was there under `key` is damaged, and now out of the way."""
        try:
            return self._read(key, None) is None
        except StoreError:  # Neither can be told.
            return False

    def _keep_limits(self, key: str, n_bytes: int) -> None:
        """Evict what is too much; if that fails, what was written is still written.

        A full store is long to list, so a writer looks at its first writing, and then when what
        it wrote, or the time that passed, could make a difference.
        """
        self._unlisted += n_bytes
        max_bytes, max_age = self.limits.max_bytes, self.limits.max_age
        too_much = max_bytes is not None and self._unlisted * _RARELY >= max_bytes
        too_old = max_age is not None and (time.monotonic() - self._listed) * _OFTEN >= max_age
        if too_much or too_old or self._listed == -math.inf:
            self._unlisted, self._listed = 0, time.monotonic()
            with contextlib.suppress(OSError):
                prune(self._folder, self.limits, keep={key}, is_needed=self._is_pending)

    def _fetch(self, key: str, shapes: Shapes | None) -> bool:
        """Copy an entry from the remote to the folder, if it has a good one."""
        if self._remote is None:
            return False

        def right(data: bytes) -> None:
            check_bytes(data, partial(accept, key, self.namespace, shapes))

        namespace, most = self._folder.namespace, _most_bytes(shapes)
        data = self._remote.fetch(namespace, key, right, max_bytes=most)
        if data is None:
            return False
        with self._writing():
            self._folder.create(key, data)
        self._keep_limits(key, len(data))
        return True

    def _touch(self, key: str, opened: OpenFile) -> None:
        if abs(time.time() - opened.used) > _TOUCH:
            with contextlib.suppress(OSError):  # A folder that can only be read still serves.
                os.utime(self._folder.file(key))


def _second_level(
    path: Path,
    remote: str | RemoteFolder | None,
    mode: Mode,
    options: Mapping[str, Any] | None,
) -> SecondLevel | None:
    if remote is None:
        return None
    from ttt_core.store.remote import RemoteFolder
    from ttt_core.store.second_level import SecondLevel

    if isinstance(remote, str):
        remote = RemoteFolder(remote, storage_options=options)
    elif not isinstance(remote, RemoteFolder):
        raise ConfigError("a remote store is an URL, such as s3://bucket/prefix")
    outbox = outboxes(path).of(remote.digest)
    return SecondLevel(remote, outbox, mode=mode, read=partial(_read_any, path))


def _read_any(path: Path, folder: str, key: str) -> bytes | None:
    """Read a file of any namespace, for upload; only bytes that pass their own checksum."""
    with StoreFolder(path, folder).open(key) as opened:
        if opened is None:
            return None
        with contextlib.suppress(FormatError):
            return read_file(opened.file, opened.size)[1]
    return None


def _settled(path: str | os.PathLike[str] | None) -> Path:
    if path is None:
        return default_store_path().absolute()
    if not isinstance(path, str | os.PathLike) or not os.fspath(path) or "\0" in str(path):
        raise ConfigError("a store's path names a folder; None means the default one")
    return Path(path).expanduser().absolute()


def _checked_limits(max_bytes: int | None, max_age: float | None) -> Limits:
    """Check now what would otherwise fail after the first training."""
    if max_bytes is not None and (type(max_bytes) is not int or max_bytes < 0):
        raise ConfigError(f"max_bytes is a number of bytes, or None, not {max_bytes!r}")
    if max_age is not None and (type(max_age) not in (int, float) or not max_age > 0):
        raise ConfigError(f"max_age is a number of seconds, or None, not {max_age!r}")
    return Limits(max_bytes, max_age)


class _CarriedError(Exception):
    """Brings what a caller's function raised past those who translate the store's own errors."""

    def __init__(self, error: OSError) -> None:
        self.error = error


def _carrying(on_wait: Callable[[float], None]) -> Callable[[float], None]:
    def carried(seconds: float) -> None:
        try:
            on_wait(seconds)
        except OSError as error:
            raise _CarriedError(error) from None

    return carried


def _most_bytes(shapes: Shapes | None) -> int:
    """How large a file can be that holds these weights; fp32."""
    if shapes is None:
        return MAX_BYTES
    return MAX_HEADER_BYTES + sum(4 * math.prod(shape) for shape in shapes.values())
