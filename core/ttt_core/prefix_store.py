"""Keys and values of documents on disk, so that yesterday's document is read and not computed.

Opt-in, because keys and values hold what the document said. One safetensors file a document,
written under a temporary name, synced and renamed; memory-mapped when read, its checksum and key
verified. Over the limit, the files used least recently go; the directory is the truth, and every
process that writes to it keeps the limit it was given. Nothing here can fail an answer: what
cannot be kept or found is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ttt_core.files import Usage, check_owned, entries, make_private, replacing, sweep, usage
from ttt_core.locks import OPEN_FLAGS
from ttt_core.prefix import FrozenPrefix

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 2

_LOG = logging.getLogger(__name__)
_NAMESPACE = re.compile(r"[0-9a-f]{32}")
_KEY = re.compile(r"([0-9a-f]{32})-([0-9a-f]{64})")
_VERSION = re.compile(r"v\d+")
_FILES = f"v{FORMAT_VERSION}/*/*/*"
_MAX_HEADER_BYTES = 2 << 20
_WHOLE, _DAMAGED, _TEMPORARY = ".safetensors", ".damaged", ".tmp"


def prefix_store_path(adapters: Path) -> Path:
    """Where keys and values are kept: inside the adapter store's folder, to share its privacy."""
    return adapters / "kv"


class PrefixStore:
    """A folder of frozen prefixes. Safe for several threads and processes.

    Args:
        path: The folder; made when it is first written to.
        max_bytes: Bytes of all files together.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self._told = False

    def get(self, key: str) -> FrozenPrefix | None:
        """Return the prefix of `key` as views on its file, on the CPU and not to be written to.

        None if there is none, or none that can be used; a damaged file is renamed to `*.damaged`.
        """
        from safetensors import SafetensorError

        path = self._file(key)
        try:
            self._check()
            prefix = _load(path, key)
        except FileNotFoundError:  # Or removed by another process just now.
            return None
        except OSError as error:
            self._tell(error)
            return None
        except RuntimeError as error:
            # The file is opened, then mapped by its name: another process may evict it between.
            if os.path.exists(path):  # Unlike the path's own method, which may raise.
                self._tell(error)
            return None
        except (SafetensorError, ValueError, KeyError, TypeError):
            with contextlib.suppress(OSError):
                path.replace(path.with_suffix(_DAMAGED))
            return None
        with contextlib.suppress(OSError):  # A folder that can only be read still serves.
            os.utime(path)  # The time of the last use is what eviction goes by.
        return prefix

    def put(self, key: str, prefix: FrozenPrefix) -> None:
        """Keep a prefix if it is not larger than the limit; what was used least recently goes.

        A folder that cannot be written to is told once, to the log.
        """
        from safetensors import SafetensorError

        path, size = self._file(key), _file_size(prefix)
        if not len(prefix) or size > self.max_bytes:
            return
        try:
            if path.exists():
                return
            self._check()
            make_private(self.path, *reversed(path.parents[:3]))
            sweep(self.path, pattern=_FILES + _TEMPORARY)
            self._make_room(size)
            _save(path, key, prefix)
        except (OSError, SafetensorError) as error:
            self._tell(error)

    def room(self) -> int:
        """Bytes that fit without letting anything go."""
        return max(self.max_bytes - self._usage(_FILES).bytes, 0)

    def usage(self, namespace: str = "*") -> Usage:
        """Number and bytes of the prefixes; reads no contents, and leaves out what is out of reach.

        Args:
            namespace: Digest that names one namespace's folder; all namespaces by default.
        """
        return self._usage(f"v{FORMAT_VERSION}/{namespace}/*/*{_WHOLE}")

    def other_versions(self) -> list[Path]:
        """Return the folders that other versions of this package keep here; they stay alone."""
        with contextlib.suppress(OSError):
            names = filter(_VERSION.fullmatch, os.listdir(self.path))
            return [self.path / name for name in sorted(names) if name != f"v{FORMAT_VERSION}"]
        return []

    def clear(self, namespace: str) -> Usage:
        """Remove all of a namespace: damaged files, and what killed writers left, too.

        Returns:
            What went, without what was never finished.

        Raises:
            OSError: Something cannot be removed.
            ValueError: `namespace` is not 32 hexadecimal digits.
        """
        if not _NAMESPACE.fullmatch(namespace):
            raise ValueError("a namespace's folder is named by 32 hexadecimal digits")
        sizes = []
        for shard in _listed(self.path / f"v{FORMAT_VERSION}" / namespace):
            for path in _listed(shard):
                with contextlib.suppress(FileNotFoundError):  # Another process was faster.
                    if path.suffix == _TEMPORARY:
                        shutil.rmtree(path)
                    elif path.suffix in (_WHOLE, _DAMAGED):
                        size = path.lstat().st_size
                        path.unlink()
                        sizes.append(size)
        return Usage(len(sizes), sum(sizes))

    def _usage(self, pattern: str) -> Usage:
        try:
            return usage(self.path, pattern)
        except OSError as error:
            self._tell(error)
            return Usage(0, 0)

    def _check(self) -> None:
        """Trust no folder that others can write to, nor one in a store of that kind."""
        for folder in (self.path.parent, self.path):
            check_owned(folder)

    def _make_room(self, size: int) -> None:
        found = entries(self.path, _FILES)
        files = [(path, about) for path, about in found if path.suffix in (_WHOLE, _DAMAGED)]
        files.sort(key=lambda entry: (entry[0].suffix == _WHOLE, entry[1].st_mtime_ns))
        total = size + sum(about.st_size for _, about in files)
        for path, about in files:
            if total <= self.max_bytes:
                break
            with contextlib.suppress(OSError):  # Windows keeps files that somebody has mapped.
                path.unlink(missing_ok=True)  # Whoever has it mapped keeps what it maps.
                total -= about.st_size

    def _tell(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            reason = getattr(error, "strerror", None) or type(error).__name__
            _LOG.warning("cannot keep keys and values in %s: %s", self.path, reason)

    def _file(self, key: str) -> Path:
        found = _KEY.fullmatch(key)
        if not found:
            raise ValueError("a key is 32 hexadecimal digits, a hyphen, and 64 more")
        namespace, digest = found.groups()
        return self.path / f"v{FORMAT_VERSION}" / namespace / digest[:2] / f"{digest}{_WHOLE}"


def _listed(folder: Path) -> list[Path]:
    """List a folder; what is none, or is none any more, holds nothing."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return [folder / name for name in os.listdir(folder)]
    return []


def _file_size(prefix: FrozenPrefix) -> int:
    """Bytes of a prefix's file; the header's are an upper bound."""
    tensors = 2 * len(prefix.keys) + 1
    return prefix.nbytes + 4 * len(prefix) + 256 * tensors + 1024


def _save(path: Path, key: str, prefix: FrozenPrefix) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"input_ids": torch.tensor(prefix.input_ids, dtype=torch.int32)}
    for layer, (keys, values) in enumerate(prefix.pairs):
        tensors[f"keys.{layer}"] = keys.detach().cpu().contiguous()
        tensors[f"values.{layer}"] = values.detach().cpu().contiguous()
    _unshare(tensors)
    metadata = {
        "format_version": str(FORMAT_VERSION),
        "key": key,
        "checksum": _checksum(tensors, key),
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata)


def _unshare(tensors: dict[str, torch.Tensor]) -> None:
    """Copy what shares its memory with another one: the format has no names for the same bytes."""
    seen = set()
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        if memory in seen:
            tensors[name] = tensor.clone()
        seen.add(memory)


def _load(path: Path, key: str) -> FrozenPrefix:
    from safetensors import safe_open

    _check_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata["key"] != key or metadata["checksum"] != _checksum(tensors, key):
        raise ValueError("the file is not what was written")
    layers = range((len(tensors) - 1) // 2)
    return FrozenPrefix(
        input_ids=tuple(tensors["input_ids"].tolist()),
        keys=tuple(tensors[f"keys.{layer}"] for layer in layers),
        values=tuple(tensors[f"values.{layer}"] for layer in layers),
    )


def _check_file(path: Path) -> None:
    """Refuse what is no file, and a header that no number of layers explains, before it is parsed.

    Raises:
        ValueError: It is one of these.
        OSError: It cannot be read.
    """
    with open(os.open(path, OPEN_FLAGS), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        if int.from_bytes(file.read(8), "little") > _MAX_HEADER_BYTES:
            raise ValueError("its header is too long")


def _checksum(tensors: dict[str, torch.Tensor], key: str) -> str:
    """Hash key, names, shapes and every byte, without a copy of the tensors."""
    import torch

    digest = hashlib.sha256(f"{key}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        # As bytes, since numpy knows no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
