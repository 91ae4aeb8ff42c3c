"""A remote store: bytes as objects below an fsspec URL, asked with patience but not for ever.

    <url>/v2/<namespace's digest>/<key[:2]>/<key>.safetensors

Knows nothing of adapters. A remote may hang, fail, or be gone: an attempt is bounded in time, is
made again if that may help, and after that the remote is left alone for a while. Whoever asks
then gets what they would get from an empty remote, at once.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import inspect
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from ttt_core import files
from ttt_core.errors import ConfigError
from ttt_core.store.folder import ENTRY, KEY, TEMPORARY
from ttt_core.store.format import FORMAT_VERSION
from ttt_core.store.patience import BoundedCalls, Breaker, DownError, may_pass

_LOG = logging.getLogger(__name__)
_FOLDER = re.compile(r"[0-9a-f]{32}")
_ABSOLUTE = re.compile(r"\w+://(/|[A-Za-z]:[/\\])")
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(::|://).")

_BACK_OFF, _LONGEST_BACK_OFF = 0.2, 5.0
"""Seconds before the second attempt, doubled for each further one, up to the longest."""

_NO_CONDITIONS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""How servers without conditional writes refuse one."""

_WHERE = ("endpoint_url", "account_name", "host", "port")
"""Options of file systems that say, as the URL does, where the objects are."""

T = TypeVar("T")


class RemoteFolder:
    """Objects below an URL. Safe for several threads, and in a forked child.

    Constructing one is free. What the remote does never raises: one warning goes to the log for
    each time that it is down. With `file://`, files are private to their owner, and only the last
    folder of the URL is made: a share that is not mounted is a remote that is down.

    Args:
        url: What fsspec can write to: `s3://bucket/prefix`, `gs://...`, `file:///folder`.
            Credentials in it are never shown; they are better kept out of it.
        storage_options: fsspec's, for the file system of the URL.
        timeout: Seconds that one attempt may take.
        attempts: How often something is tried. When the remote was down, one attempt decides.
        retry_after: Seconds for which a remote that is down is not asked again.

    Raises:
        ConfigError: It is no URL, or a number that cannot be. On first use: fsspec does not know
            the protocol, or lacks a package for it.
    """

    def __init__(
        self,
        url: str,
        *,
        storage_options: Mapping[str, Any] | None = None,
        timeout: float = 30.0,
        attempts: int = 3,
        retry_after: float = 60.0,
    ) -> None:
        protocol = _PROTOCOL.match(url)
        if protocol is None:
            raise ConfigError("a remote store is an URL, such as s3://bucket/prefix")
        if protocol[1] in ("file", "local") and not _ABSOLUTE.match(url):
            raise ConfigError("a remote folder is named from its root: file:///folder")
        if timeout <= 0 or attempts < 1 or retry_after <= 0:
            raise ConfigError("a remote store has timeout > 0, attempts >= 1 and retry_after > 0")
        self.timeout = timeout
        self.attempts = attempts
        self.retry_after = retry_after
        self._url = url
        self._protocol = protocol[1]
        self._options = dict(storage_options or {})
        self._processes: dict[int, _Process] = {}

    def __repr__(self) -> str:
        """Show where it is, but no credentials."""
        return f"{type(self).__name__}({_shown(self._url)!r})"

    @property
    def digest(self) -> str:
        """Names the remote, as 32 hexadecimal digits: where it is, but no credentials.

        Passwords and tokens change, and then it is the same remote all the same. User names count:
        some protocols say with them where it is.
        """
        where = [_without_password(self._url)]
        for options in (self._options, self._options.get("client_kwargs") or {}):
            where += [f"{name}={options[name]}" for name in _WHERE if options.get(name)]
        return hashlib.sha256("\n".join(where).encode()).hexdigest()[:32]

    @property
    def is_down(self) -> bool:
        """Whether writing failed so recently that it would not be tried."""
        return self._process.writing.is_open

    def get(self, folder: str, key: str, *, max_bytes: int) -> bytes | None:
        """Return an object; None if there is none, or a larger one, or the remote is down.

        Args:
            folder: A namespace's digest: 32 hexadecimal digits.
            key: 64 hexadecimal digits.
            max_bytes: Larger objects are not read.

        Raises:
            ConfigError: See above.
            ValueError: `folder` or `key` is no digest.
        """
        name = _object_name(folder, key)
        try:
            return self._call(lambda place: _read(place, name, max_bytes), writing=False)
        except DownError:
            return None

    def put(self, folder: str, key: str, data: bytes) -> bool:
        """Write an object unless there is one; of several writers, the first wins.

        Returns:
            Whether the remote has one now, whoever wrote it.

        Raises:
            See `get`.
        """
        name = _object_name(folder, key)
        return self._write(lambda place: _create(place, name, data))

    def replace(self, folder: str, key: str, data: bytes) -> bool:
        """Write an object, whatever there is; see `put`."""
        name = _object_name(folder, key)
        return self._write(lambda place: _replace(place, name, data))

    def try_again(self) -> None:
        """Let the next call ask a remote that was down, without waiting for `retry_after`."""
        for breaker in self._process.breakers:
            breaker.expire()

    def _write(self, work: Callable[[_Place], None]) -> bool:
        try:
            self._call(work, writing=True)
        except DownError:
            return False
        return True

    def _call(self, work: Callable[[_Place], T], *, writing: bool) -> T:
        """Do `work` in bounded time; again, if that may help.

        Raises:
            DownError: It was not done.
            ConfigError: It cannot be done.
        """
        _require(self._protocol)
        from tenacity import (
            Retrying,
            retry_if_exception,
            stop_after_attempt,
            wait_exponential,
            wait_random,
        )

        process = self._process
        breaker = process.writing if writing else process.reading
        retrying = Retrying(
            stop=stop_after_attempt(breaker.admit(self.attempts, self.retry_after)),
            wait=wait_exponential(_BACK_OFF, _LONGEST_BACK_OFF) + wait_random(0, _BACK_OFF),
            retry=retry_if_exception(may_pass),
            reraise=True,
        )
        try:
            result: T = retrying(self._attempt, process, work)
        except Exception as error:
            self._failed(process, breaker, error)
            raise DownError from None
        if breaker.reset():
            process.is_back(breaker)
            _LOG.info("the remote store %s is back", _shown(self._url))
        return result

    def _attempt(self, process: _Process, work: Callable[[_Place], T]) -> T:
        def call() -> T:
            place = process.place
            if place is None:
                process.place = place = _open(self._url, self._options)
            return work(place)

        return process.bounded(call, self.timeout)

    def _failed(self, process: _Process, breaker: Breaker, error: Exception) -> None:
        # One may be allowed to read but not to write; what is no refusal concerns both.
        concerned = process.breakers if may_pass(error) else (breaker,)
        for each in concerned:
            each.trip(self.retry_after)
        process.place = None  # What is broken may be our side of the connection.
        if process.is_news(breaker, concerned):
            _LOG.warning(
                "cannot %s the remote store %s; going on with the local one: %s",
                "write to" if breaker is process.writing else "read from",
                _shown(self._url),
                _described(error),
            )

    @property
    def _process(self) -> _Process:
        pid = os.getpid()
        return self._processes.get(pid) or self._processes.setdefault(pid, _Process())


class _Place(NamedTuple):
    """Where the objects are: one of fsspec's file systems, and a path in it."""

    files: Any
    root: str

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"


@dataclass
class _Process:
    """What one process knows of the remote. A forked child has its own: locks, threads and
    connections do not survive a fork."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    reading: Breaker = field(default_factory=Breaker)
    writing: Breaker = field(default_factory=Breaker)
    place: _Place | None = None
    told: set[Breaker] = field(default_factory=set)
    bounded: BoundedCalls = field(default_factory=BoundedCalls)

    @property
    def breakers(self) -> tuple[Breaker, Breaker]:
        return self.reading, self.writing

    def is_news(self, breaker: Breaker, concerned: Iterable[Breaker]) -> bool:
        """Return whether nothing was told of `breaker` since it was closed; note it for all."""
        with self.lock:
            is_news = breaker not in self.told
            if is_news:
                self.told.update(concerned)
        return is_news

    def is_back(self, breaker: Breaker) -> None:
        """Let the next failure be told of. The other one may still be refused: it stays told."""
        with self.lock:
            self.told.discard(breaker)


def _object_name(folder: str, key: str) -> str:
    """Return the path of an object below the URL: digits only, whatever the caller passes."""
    if not _FOLDER.fullmatch(folder) or not KEY.fullmatch(key):
        raise ValueError("an object is named by 32 and 64 hexadecimal digits")
    return f"v{FORMAT_VERSION}/{folder}/{key[:2]}/{key}{ENTRY}"


def _require(protocol: str) -> None:
    """Make sure that all packages are there, before anything is said to be down."""
    try:
        import tenacity  # noqa: F401
        from fsspec import get_filesystem_class  # type: ignore[import-untyped]

        get_filesystem_class(protocol)
    except ImportError as error:
        raise ConfigError(
            f"a remote store needs a package that is not installed ({error}); "
            f"pip install 'context-ttt[remote]' brings what s3:// and file:// need"
        ) from None
    except ValueError:
        raise ConfigError(f"fsspec knows no protocol {protocol!r} for a remote store") from None


def _open(url: str, options: Mapping[str, Any]) -> _Place:
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    if url.startswith(("s3:", "s3a:")):
        config = {"retries": {"total_max_attempts": 1}, **options.get("config_kwargs", {})}
        options = {**options, "config_kwargs": config}
    # An instance of our own: it is changed below, and given up when it fails.
    remote, root = url_to_fs(url, **{**options, "skip_instance_cache": True})
    # botocore (above), s3fs and gcsfs would multiply our attempts by theirs.
    if hasattr(remote, "retries"):
        remote.retries = 1
    return _Place(remote, root.rstrip("/"))


def _read(place: _Place, name: str, max_bytes: int) -> bytes | None:
    path = place.path(name)
    try:
        size = place.files.info(path).get("size")
        data = None if size is not None and size > max_bytes else place.files.cat_file(path)
    except FileNotFoundError:
        return None
    if data is None or len(data) > max_bytes:
        _LOG.info("an object of the remote store is larger than %d bytes: not used", max_bytes)
        return None
    return bytes(data)


def _create(place: _Place, name: str, data: bytes) -> None:
    """Write an object unless there is one."""
    path = place.path(name)
    if _is_local(place):
        files.create(_local_file(place, name), data)
    elif not _create_at_once(place, path, data) and not _exists(place, path):
        _pipe(place, path, data)


def _replace(place: _Place, name: str, data: bytes) -> None:
    if _is_local(place):
        with files.replacing(_local_file(place, name)) as temporary:
            temporary.write_bytes(data)
    else:
        _pipe(place, place.path(name), data)


def _create_at_once(place: _Place, path: str, data: bytes) -> bool:
    """Write an object if the remote itself checks that there is none.

    Returns:
        Whether there is one now; False: the remote knows no such condition.
    """
    if "mode" not in inspect.signature(place.files.pipe_file).parameters:
        return False  # It may take the argument, and ignore it.
    try:
        _pipe(place, path, data, mode="create")
    except FileExistsError:
        return True
    except (TypeError, ValueError, NotImplementedError):
        return False
    except OSError as error:
        if error.errno in _NO_CONDITIONS:
            return False
        if _status(error) != 412:  # "Precondition Failed"; not all servers say which one.
            raise
    return True


def _pipe(place: _Place, path: str, data: bytes, **options: str) -> None:
    try:
        place.files.pipe_file(path, data, **options)
    except FileNotFoundError:
        # Some protocols have folders, to be made first. A bucket is not ours to make.
        if not place.files.isdir(place.root):
            raise
        place.files.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
        place.files.pipe_file(path, data, **options)


def _exists(place: _Place, path: str) -> bool:
    try:
        place.files.info(path)  # fsspec's `exists` takes every error for a no.
    except FileNotFoundError:
        return False
    return True


def _is_local(place: _Place) -> bool:
    from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

    return isinstance(place.files, LocalFileSystem)


def _local_file(place: _Place, name: str) -> Path:
    """Return the path of an object in a folder of this machine, with the folders it needs.

    fsspec would write in place, where a reader could see half of it. What killed writers left
    beside it goes: nobody else looks after that folder.
    """
    root, path = Path(place.root), Path(place.root, name)
    if not root.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    files.make_private(root, path.parents[2], path.parents[1], path.parent)
    with contextlib.suppress(OSError):
        files.sweep(path.parent, pattern=f"*{TEMPORARY}")
    return path


def _status(error: OSError) -> int | None:
    """Return the HTTP status behind an error of s3fs."""
    response = getattr(error.__cause__, "response", None)
    if not isinstance(response, Mapping):
        return None
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return int(status) if status is not None else None


def _described(error: Exception) -> str:
    """Name an error by its class: messages of servers and libraries may hold credentials."""
    code = errno.errorcode.get(getattr(error, "errno", None) or 0)
    return f"{type(error).__name__} ({code})" if code else type(error).__name__


def _shown(url: str) -> str:
    """Return an URL without user names, passwords and tokens."""
    return re.sub(r"(?<=://).*@", "***@", url).partition("?")[0]


def _without_password(url: str) -> str:
    """Return an URL without its password and query, to tell it from others; not to be shown."""
    return re.sub(r"(://[^/:@]*):[^/]*@", r"\1@", url).partition("?")[0].rstrip("/")
