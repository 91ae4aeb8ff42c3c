"""Names for adapters: a small file for each, in the folder of their namespace.

    <store>/v2/<namespace's digest>/names/<digest of the name>.json    {"name": ..., "key": ...}
    <store>/v2/<namespace's digest>/names/<key>.named                  kept for its names only:
                                                                       the checksum of its file

No name becomes a path. It is written down as it is, though, so that names can be listed: whoever
can read the store can read them. A file that is damaged, or not where its name belongs, is no
name. Knows nothing of adapters; that a name's adapter may be gone is its reader's business.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, ValidationError

from ttt_core import files
from ttt_core.config import Settings
from ttt_core.errors import ConfigError, StoreError
from ttt_core.locks import OPEN_FLAGS
from ttt_core.namespace import Namespace
from ttt_core.store.folder import KEY, StoreFolder

_NAME, _MARK = ".json", ".named"

_LONGEST = 8192
"""Bytes of a name; more is no name but a mistake."""

_MOST_BYTES = 64 << 10
"""Of a file: JSON may take six bytes for one."""

_CHECKSUM = re.compile(r"[0-9a-f]{64}")

_PATIENCE = 600.0
"""Seconds after which whoever changes names must have hung; uploading adapters takes minutes."""


class _Record(Settings):
    """What the file of a name says."""

    name: str
    key: str = Field(pattern=rf"\A{KEY.pattern}\z")


class Names:
    """The names of one namespace. Safe for several threads and processes.

    Args:
        root: The store.
        namespace: Whose names.
    """

    def __init__(self, root: Path, namespace: Namespace) -> None:
        self._folder = StoreFolder(root, namespace.folder)
        self._namespace = namespace
        self.path = self._folder.path / "names"

    def get(self, name: str) -> str | None:
        """Return the key that `name` stands for; None if it is no name.

        Raises:
            StoreError: Others can write to the store.
        """
        with self._reporting():
            self._folder.check()
        record = _read(self._file(name))
        return record.key if record and record.name == name else None

    def set(self, name: str, key: str) -> None:
        """Let `name` stand for `key`, whatever it stood for.

        Raises:
            ConfigError: `check_name` refuses the name.
            StoreError: It cannot be written.
        """
        check_name(name)
        text = json.dumps(_Record(name=name, key=key).model_dump())
        with self._reporting():
            self._folder.make(self.path)
            with files.replacing(self._file(name)) as temporary:
                temporary.write_text(text, encoding="ascii")

    def remove(self, name: str) -> str | None:
        """Forget a name; return the key that it stood for.

        Raises:
            StoreError: It cannot be removed.
        """
        key = self.get(name)
        with self._reporting():
            self._file(name).unlink(missing_ok=True)
        return key

    def all(self) -> dict[str, str]:
        """Return all names with their keys.

        Raises:
            StoreError: They cannot be listed, or others can write to the store.
        """
        with self._reporting():
            self._folder.check()
            paths = sorted(path for path, _ in files.entries(self.path, f"*{_NAME}"))
        records = ((path, _read(path)) for path in paths)
        return {r.name: r.key for path, r in records if r and self._file(r.name) == path}

    def marked(self, key: str) -> str | None:
        """Return the checksum of that file of `key` which is kept for its names only.

        None if there is none. The file may be gone, and another one have its place by now.
        """
        text = _read_bytes(self._mark(key), 64)
        found = _CHECKSUM.fullmatch(text.decode(errors="replace")) if text else None
        return found and found.group()

    def mark(self, key: str, checksum: str) -> None:
        """Note that the file of `key` with that checksum is kept for its names only.

        Raises:
            StoreError: It cannot be written.
        """
        with self._reporting():
            self._folder.make(self.path)
            # An earlier mark may have outlived its file.
            with files.replacing(self._mark(key)) as temporary:
                temporary.write_text(checksum, encoding="ascii")

    def unmark(self, key: str) -> None:
        """Note that the adapter of `key` is kept for itself.

        Raises:
            StoreError: It cannot be written.
        """
        with self._reporting():
            self._mark(key).unlink(missing_ok=True)

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Be the only one, in all processes of this machine, to change names and what they keep.

        Raises:
            StoreError: Another process does not come to an end, or the folder cannot be made.
        """
        with contextlib.ExitStack() as stack:
            with self._reporting():
                self._folder.make(self.path)
                if not stack.enter_context(self._folder.lock("names", timeout=_PATIENCE)):
                    raise TimeoutError(errno.ETIMEDOUT, "another process keeps them locked")
            yield

    def _file(self, name: str) -> Path:
        # What UTF-8 cannot encode was never stored, but may be asked for.
        digest = self._namespace.digest("name", name.encode(errors="surrogatepass"))
        return self.path / f"{digest}{_NAME}"

    def _mark(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise ValueError("a store key is 64 hexadecimal digits")
        return self.path / f"{key}{_MARK}"

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StoreError(
                f"cannot use the names in the adapter store {self._folder.root}: {reason}"
            ) from error


def check_name(name: str) -> None:
    """Refuse what cannot be a name: any text of a reasonable length can.

    Raises:
        ConfigError: It is too long, no Unicode, or an adapter's key.
    """
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise ConfigError("the name of an adapter has to be Unicode text") from None
    if length > _LONGEST:
        raise ConfigError(
            f"the name of an adapter has at most {_LONGEST:,} bytes, this one {length:,}"
        )
    if KEY.fullmatch(name):
        raise ConfigError("64 hexadecimal digits are an adapter's key, and no name for one")


def _read(path: Path) -> _Record | None:
    """Read the file of a name; None if it is not there, or none that was written here."""
    text = _read_bytes(path, _MOST_BYTES)
    with contextlib.suppress(ValidationError):
        return None if text is None else _Record.model_validate_json(text)
    return None


def _read_bytes(path: Path, most: int) -> bytes | None:
    """Read a regular file; None if it is not there, cannot be read, or is longer than that."""
    with contextlib.suppress(OSError), open(os.open(path, OPEN_FLAGS), "rb") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            data = file.read(most + 1)
            return data if len(data) <= most else None
    return None
