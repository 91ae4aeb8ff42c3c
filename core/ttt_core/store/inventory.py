"""What is in a store: listed, described and verified. Changes nothing, and loads no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ttt_core.errors import StoreError
from ttt_core.files import Usage
from ttt_core.namespace import NAME, Namespace
from ttt_core.store.folder import FileEntry, StoreFolder, namespace_folders
from ttt_core.store.format import FormatError, Header, check_file, read_header

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Verdict:
    """What `verify` found about one file.

    Attributes:
        entry: The file.
        problem: What is wrong with it; None: it is what was written.
        sealed: Its namespace has a secret that was not given: all bytes are right, but whether
            the key is theirs cannot be told.
        unreadable: It could not be read to its end, which says nothing about what it holds.
        inode: Tells the file that was read from one that takes its place later; None: none was.
    """

    entry: FileEntry
    problem: str | None = None
    sealed: bool = False
    unreadable: bool = False
    inode: tuple[int, int] | None = None


@dataclass(frozen=True)
class Tenant:
    """A namespace that has a folder in a store, as far as that can be told without its secret.

    Attributes:
        folder: The digest that names the folder.
        name: What its files say; None: none of them can be read.
        sealed: Its keys cannot be recomputed: it has a secret that was not given, or no name.
    """

    folder: str
    name: str | None
    sealed: bool


class Inventory:
    """The entries of one namespace, and a look at those of others.

    Args:
        path: The store.
        namespace: Whose entries.
    """

    def __init__(self, path: Path, namespace: Namespace) -> None:
        self.path = path
        self.namespace = namespace
        self._folder = StoreFolder(path, namespace.folder)

    def entries(self, *, folder: str | None = None) -> list[FileEntry]:
        """List what this namespace keeps, used last first; reads no file.

        Args:
            folder: Digest of another namespace to look at, one of `namespaces()`; None: this one.

        Raises:
            StoreError: The folder cannot be listed.
        """
        with self._reading():
            return sorted(self._part(folder).scan(), key=lambda entry: -entry.used)

    def header(self, key: str, *, folder: str | None = None) -> Header | None:
        """Read what an entry says about itself; None if there is none, or none that can be read.

        What it says is checked against the file's size only, not against its checksum.

        Args:
            key: Its key.
            folder: See `entries`.

        Raises:
            StoreError: The file is there but cannot be read.
        """
        with self._reading(), self._part(folder).open(key) as opened:
            if opened is None:
                return None
            try:
                return read_header(opened.file, opened.size)
            except FormatError:
                return None

    def usage(self) -> Usage:
        """Number and bytes of this namespace's entries; reads no file.

        Raises:
            StoreError: The folder cannot be listed.
        """
        sizes = [entry.bytes for entry in self.entries() if not entry.damaged]
        return Usage(files=len(sizes), bytes=sum(sizes))

    def verify(self, *, folder: str | None = None) -> Iterator[Verdict]:
        """Read every file of this namespace and compare it with what it should be. Changes nothing.

        Args:
            folder: See `entries`. Without the secret of that namespace its keys are not compared.

        Raises:
            StoreError: The folder cannot be listed, or others can write to it.
        """
        self.check(folder=folder)
        part = self._part(folder)
        namespace = self._namespace_of(part.namespace)
        for entry in self.entries(folder=folder):
            if not entry.damaged:
                yield _read(part, Verdict(entry, sealed=namespace is None), namespace)

    def check(self, *, folder: str | None = None) -> None:
        """Refuse a store that somebody else can write to.

        Args:
            folder: See `entries`.

        Raises:
            StoreError: Others could exchange what is in it.
        """
        with self._reading():
            self._part(folder).check()

    def namespaces(self) -> list[str]:
        """Return the digests that name the folders of all namespaces in this store."""
        with self._reading():
            self._folder.check()
            return namespace_folders(self.path)

    def tenant(self, folder: str) -> Tenant:
        """Tell whose a folder is; reads the header of one of its files.

        Args:
            folder: One of `namespaces()`.

        Raises:
            StoreError: The folder cannot be listed.
        """
        if folder == self.namespace.folder:
            return Tenant(folder, self.namespace.name, sealed=False)
        keys = (entry.key for entry in self.entries(folder=folder) if not entry.damaged)
        name = next(filter(None, (self._said_name(key, folder) for key in keys)), None)
        sealed = name is None or Namespace(name).folder != folder
        return Tenant(folder, name, sealed)

    def _part(self, folder: str | None) -> StoreFolder:
        return self._folder if folder is None else StoreFolder(self.path, folder)

    def _said_name(self, key: str, folder: str) -> str | None:
        """Return the name of the namespace that a file says it is of, if it says one."""
        with contextlib.suppress(StoreError):
            header = self.header(key, folder=folder)
            if header is not None and NAME.fullmatch(header.metadata.namespace):
                return header.metadata.namespace
        return None

    def _namespace_of(self, folder: str) -> Namespace | None:
        """Return the namespace whose folder this is; None if that takes a secret."""
        tenant = self.tenant(folder)
        if tenant.sealed or tenant.name is None:
            return None
        return self.namespace if folder == self.namespace.folder else Namespace(tenant.name)

    def _reading(self) -> AbstractContextManager[None]:
        return self._telling("read")

    @contextlib.contextmanager
    def _telling(self, doing: str, advice: str = "") -> Iterator[None]:
        """Tell what the system refuses as what could not be done to the store."""
        try:
            yield
        except StoreError:  # Says it all already.
            raise
        except OSError as error:
            raise StoreError(
                f"cannot {doing} the adapter store {self.path}: {reason(error)}{advice}"
            ) from error


def accept(key: str, namespace: Namespace | None, shapes: Shapes | None, header: Header) -> None:
    """Refuse what is not the entry of `key`, or does not fit the model."""
    if header.metadata.key != key:
        raise FormatError("it belongs to another key")
    belongs(namespace, header)
    if shapes is not None and header.shapes and header.shapes != dict(shapes):
        raise FormatError("its weights do not fit the model")


def belongs(namespace: Namespace | None, header: Header) -> None:
    """Refuse what contradicts itself, or is another namespace's; None: that cannot be told."""
    about = header.metadata
    if namespace is not None and about.identity.key(namespace) != about.key:
        raise FormatError("it is another namespace's, or its key is not that of what it says it is")
    if (about.report.decision == "adapted") != bool(header.shapes):
        raise FormatError("its weights contradict its report")


def _read(folder: StoreFolder, verdict: Verdict, namespace: Namespace | None) -> Verdict:
    """Read a file to its end; return the verdict, with what is wrong with it."""
    key = verdict.entry.key
    try:
        with folder.open(key) as opened:
            if opened is not None:  # Or removed meanwhile.
                verdict = replace(verdict, inode=opened.inode)
                check_file(opened.file, opened.size, partial(accept, key, namespace, None))
    except FormatError as error:
        return replace(verdict, problem=str(error))
    except OSError as error:
        return replace(verdict, problem=f"it cannot be read: {reason(error)}", unreadable=True)
    return verdict


def reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
