"""The adapter store: what was learned, kept under the document's key.

Content-addressed safetensors files; the directory is the truth. A file is written under a
temporary name, synced and renamed, so that a reader sees all of it or nothing; its checksum and
key are verified on load, and a damaged file is set aside. No pickle, no path from a caller's
string, no document text.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ttt_core.errors import StoreError
from ttt_core.files import Usage, make_private, replacing, usage
from ttt_core.report import AdaptationReport

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 1

_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredAdapter:
    """One entry: the weights (none where the base was kept) and the report of their making."""

    weights: dict[str, torch.Tensor]
    report: AdaptationReport


def default_store_path() -> Path:
    """`$TTT_HOME/adapters`, or the platform's folder for application caches."""
    home = os.environ.get("TTT_HOME")
    if home:
        return Path(home).expanduser() / "adapters"
    from platformdirs import user_cache_path

    return user_cache_path("context-ttt", appauthor=False) / "adapters"


class AdapterStore:
    """A folder of adapters. Safe for several threads and processes: entries are never changed."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = default_store_path() if path is None else Path(path)

    def get(self, key: str) -> StoredAdapter | None:
        """Return the entry for `key`, or None. A damaged file is renamed to `*.damaged`.

        Raises:
            StoreError: The file is there but cannot be read.
        """
        from safetensors import SafetensorError

        path = self._file(key)
        try:
            return _load(path, key)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(
                f"cannot read the adapter store {self.path}: {error.strerror}"
            ) from None
        except (SafetensorError, ValueError, KeyError, TypeError):
            self.set_aside(key)
            return None

    def put(self, key: str, entry: StoredAdapter) -> None:
        """Write an entry; a second writer of the same key replaces it with the same content.

        Raises:
            StoreError: The folder cannot be written to.
        """
        from safetensors.torch import save

        metadata = {
            "format_version": str(FORMAT_VERSION),
            "key": key,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "report": entry.report.model_dump_json(),
            "checksum": _checksum(entry.weights, key, entry.report),
        }
        self.prepare(key)
        with self._writing(), replacing(self._file(key)) as temporary:
            temporary.write_bytes(save(entry.weights, metadata))

    def prepare(self, key: str) -> None:
        """Make sure that `key` can be written, before work is spent on it.

        Raises:
            StoreError: The folder cannot be made or written to.
        """
        folder = self._file(key).parent
        with self._writing():
            make_private(self.path, folder.parent, folder)
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def usage(self) -> Usage:
        """Number and bytes of the entries; reads no contents.

        Raises:
            StoreError: The folder cannot be listed.
        """
        try:
            return usage(self.path, f"v{FORMAT_VERSION}/*/*.safetensors")
        except OSError as error:
            raise StoreError(
                f"cannot read the adapter store {self.path}: {error.strerror}"
            ) from None

    def set_aside(self, key: str) -> None:
        """Rename the entry to `*.damaged`, so that it is made again and can still be looked at."""
        path = self._file(key)
        with contextlib.suppress(OSError):
            path.replace(path.with_suffix(".damaged"))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"cannot write to the adapter store {self.path}: {error.strerror}; "
                f"set TTT_HOME, or pass another store path"
            ) from error

    def _file(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError("a store key is 64 hexadecimal digits")
        return self.path / f"v{FORMAT_VERSION}" / key[:2] / f"{key}.safetensors"


def _load(path: Path, key: str) -> StoredAdapter:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    report = AdaptationReport.model_validate_json(metadata["report"])
    if metadata["key"] != key or metadata["checksum"] != _checksum(weights, key, report):
        raise ValueError("the file is not what was written")
    return StoredAdapter(weights, report)


def _checksum(weights: dict[str, torch.Tensor], key: str, report: AdaptationReport) -> str:
    digest = hashlib.sha256(f"{key}\n{report.model_dump_json()}\n".encode())
    for name in sorted(weights):
        tensor = weights[name].contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
