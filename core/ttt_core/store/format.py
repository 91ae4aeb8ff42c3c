"""The file of one adapter: a safetensors file whose metadata says what it is and where it belongs.

    8 bytes    length of the header
    header     JSON: for each tensor dtype, shape and place; in `__metadata__` all of `Metadata`,
               and the checksum (SHA-256 of everything else that the file says)
    data       the tensors, fp32, little-endian

Whatever is read is taken for hostile: sizes are checked against the file's before anything of
that size is allocated, and nothing is used before the checksum is. Loads no torch to read headers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import Field, ValidationError, field_validator

from ttt_core.config import Settings
from ttt_core.identity import AdapterIdentity
from ttt_core.namespace import DEFAULT_NAME
from ttt_core.report import AdaptationReport

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 2

MAX_HEADER_BYTES = 2 << 20
"""Ours have some dozen kilobytes, and twenty bytes for each step of training. A larger one is not
parsed: what JSON says in a few bytes may take a hundred in memory."""

MAX_BYTES = 64 << 30
"""All of W_Q of a model of 70 billion weights is less."""

_FORMAT = "context-ttt adapter"
_LENGTH_BYTES = 8
_ITEM_BYTES = 4  # fp32
_ALIGNMENT = 8
_BLOCK_BYTES = 1 << 20


_OTHER_LENGTH = "its length is not the one that its header was checked against"


class FormatError(ValueError):
    """The bytes are no adapter of this format, or no longer the ones that were written."""


class QueryRows(Settings):
    """Where the queries are among the output rows of a fused projection.

    Attributes:
        out_features: All rows of the projection.
        ranges: Half-open ranges of those that make queries.
    """

    out_features: int = Field(ge=1)
    ranges: tuple[tuple[int, int], ...]

    @field_validator("ranges")
    @classmethod
    def _check_ranges(cls, ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        ends = [end for pair in ranges for end in pair]
        if not ends or ends[0] < 0 or any(a > b for a, b in pairwise(ends)):
            raise ValueError("ranges of rows have to be ascending")
        return ranges


class Metadata(Settings):
    """What a file says about its adapter; of the document it holds hashes and counts only."""

    key: str
    """Under which it is stored: 64 hexadecimal digits."""
    namespace: str = DEFAULT_NAME
    base_model: str = ""
    """Hub id or path of the base model, as it was loaded; for people, not part of the key."""
    created: datetime
    identity: AdapterIdentity
    report: AdaptationReport
    query_rows: dict[str, QueryRows] = Field(default_factory=dict)
    """By the names of those projections that make keys and values, too."""


@dataclass(frozen=True)
class StoredAdapter:
    """One entry: what was learned (no weights where the base was kept), and on what.

    Attributes:
        identity: What decided the outcome; gives the key.
        report: How the adapter was made.
        weights: fp32 on the CPU, LoRA's under PEFT's names; not to be written to.
        base_model: See `Metadata`; likewise `query_rows`.
        created: When it was stored.
    """

    identity: AdapterIdentity
    report: AdaptationReport
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    base_model: str = ""
    query_rows: Mapping[str, QueryRows] = field(default_factory=dict)
    created: datetime | None = None


@dataclass(frozen=True)
class Header:
    """A file's header, checked by itself and against the file's size.

    Attributes:
        metadata: What the file is.
        shapes: Of all tensors.
        checksum: What the whole file should hash to.
        size: Bytes of the whole file.
    """

    metadata: Metadata
    shapes: dict[str, tuple[int, ...]]
    checksum: str
    size: int
    _described: dict[str, Any] = field(repr=False)
    """The header without the checksum."""
    _start: int = field(repr=False)
    """Where the tensors' data begins."""


def _accept(header: Header) -> None:
    """Accept any."""


def encode(entry: StoredAdapter, key: str, *, namespace: str = DEFAULT_NAME) -> bytes:
    """Return the bytes of the file that holds `entry` under `key`."""
    from safetensors.torch import save

    metadata = Metadata(
        key=key,
        namespace=namespace,
        base_model=entry.base_model,
        created=entry.created or datetime.now(timezone.utc).replace(microsecond=0),
        identity=entry.identity,
        report=entry.report,
        query_rows=dict(entry.query_rows),
    )
    plain = save({name: weight.contiguous() for name, weight in entry.weights.items()})
    start = _LENGTH_BYTES + int.from_bytes(plain[:_LENGTH_BYTES], "little")
    tensors = json.loads(plain[_LENGTH_BYTES:start])
    data = memoryview(plain)[start:]
    described = {
        **{name: value for name, value in tensors.items() if name != "__metadata__"},
        "__metadata__": {
            "format": _FORMAT,
            "format_version": str(FORMAT_VERSION),
            "adapter": metadata.model_dump_json(),
        },
    }
    checksum = _checksum(described, [data])
    described["__metadata__"]["checksum"] = checksum
    header = json.dumps(described, ensure_ascii=True).encode()
    header += b" " * (-(_LENGTH_BYTES + len(header)) % _ALIGNMENT)
    if len(header) > MAX_HEADER_BYTES:
        raise ValueError(f"an adapter's report takes {len(header):,} bytes; too many to be read")
    return len(header).to_bytes(_LENGTH_BYTES, "little") + header + data


def read_header(file: BinaryIO, size: int) -> Header:
    """Read and check the header of a file that is `size` bytes long; reads nothing else.

    Raises:
        FormatError: It is none of ours, or does not fit the file.
        OSError: It cannot be read.
    """
    text, start = _header_text(file, size)
    return _parse(text, start, size)


def check_shapes(file: BinaryIO, size: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes in any safetensors file of fp32 matrices; reads its header only.

    Args:
        file: Anybody's; its metadata may say anything.
        size: Its bytes.

    Raises:
        FormatError: It is no such file, or its tensors do not fill it.
        OSError: It cannot be read.
    """
    text, start = _header_text(file, size)
    try:
        return dict(_shapes(json.loads(text, object_pairs_hook=_without_duplicates), size - start))
    except FormatError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise FormatError("its header cannot be read") from None


def read_file(
    file: BinaryIO, size: int, accept: Callable[[Header], None] = _accept
) -> tuple[Header, bytes]:
    """Read a whole file and check that it is what was written.

    Args:
        file: At its beginning.
        size: Its bytes.
        accept: Looks at the header before the rest is read; refuses by raising `FormatError`.

    Raises:
        FormatError: It is none of ours, not what was written, or not accepted.
        OSError: It cannot be read.
    """
    header = read_header(file, size)
    accept(header)
    file.seek(0)
    data = file.read(size)
    check(header, data)
    return header, data


def check_file(file: BinaryIO, size: int, accept: Callable[[Header], None] = _accept) -> Header:
    """Check a whole file as `read_file` does, but hold little of it at a time; see there."""
    header = read_header(file, size)
    accept(header)
    file.seek(header._start)
    _compare(header, _blocks(file, size - header._start))
    return header


def check_bytes(data: bytes, accept: Callable[[Header], None] = _accept) -> Header:
    """Check the bytes of a whole file and return its header; see `read_file`."""
    return read_file(BytesIO(data), len(data), accept)[0]


def read_weights(data: bytes) -> dict[str, torch.Tensor]:
    """Return the tensors in the bytes of a file that `read_file` found right."""
    from safetensors.torch import load

    weights: dict[str, torch.Tensor] = load(data)
    return weights


def check(header: Header, data: bytes) -> None:
    """Compare all bytes of a file with its checksum.

    Raises:
        FormatError: The bytes are not what was written.
    """
    if len(data) != header.size:
        raise FormatError(_OTHER_LENGTH)
    _compare(header, [memoryview(data)[header._start :]])


def _header_text(file: BinaryIO, size: int) -> tuple[bytes, int]:
    """Read a header, if it has a plausible length; return also where the data begins."""
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    start = _LENGTH_BYTES + length
    if not 0 < length <= MAX_HEADER_BYTES or not start <= size <= MAX_BYTES:
        raise FormatError("it has no header of an adapter")
    return file.read(length), start


def _parse(text: bytes, start: int, size: int) -> Header:
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
        _check_spelling(header, text)
        metadata = header["__metadata__"]
        found = metadata["format"], metadata["format_version"]
        if found != (_FORMAT, str(FORMAT_VERSION)):
            raise FormatError("it is no adapter of this version of the format")
        checksum = metadata.pop("checksum")
        shapes = dict(_shapes(header, size - start))
        about = Metadata.model_validate_json(metadata["adapter"])
    except FormatError:
        raise
    # A header is a small program for whoever parses it: deep nesting, wrong types, huge numbers.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ValidationError) as e:
        raise FormatError(f"its header cannot be read ({type(e).__name__})") from None
    return Header(about, shapes, str(checksum), size, header, start)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse names that come twice: two readers could then disagree on what the file says."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise FormatError("its header has the same name twice")
    return found


def _check_spelling(header: Mapping[str, Any], text: bytes) -> None:
    """Refuse what `encode` would have written otherwise: another reader may not understand it."""
    if text.rstrip(b" ") != json.dumps(header).encode():
        raise FormatError("its header is not spelt as ours are")
    json.dumps(header, ensure_ascii=False).encode()  # Fails for half of a surrogate pair.
    if not all(type(value) is str for value in header["__metadata__"].values()):
        raise FormatError("its metadata holds more than text")


def _shapes(header: Mapping[str, Any], n_bytes: int) -> list[tuple[str, tuple[int, ...]]]:
    """Return names and shapes, if the tensors fill the file's data exactly, one after another."""
    places = []
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        shape, (begin, end) = tuple(tensor["shape"]), tensor["data_offsets"]
        if len(tensor) > 3:
            raise FormatError("it says more about a tensor than there is to say")
        numbers = (*shape, begin, end)
        # All are matrices; the product of a million sizes would be computed for minutes.
        if len(shape) > 2 or tensor["dtype"] != "F32":
            raise FormatError("it holds a tensor that no adapter has")
        if not all(type(n) is int and n >= 0 for n in numbers):
            raise FormatError("it holds a tensor that no adapter has")
        if end > n_bytes or end - begin != _ITEM_BYTES * math.prod(shape):
            raise FormatError("a tensor does not fit the file")
        places.append((begin, end, name, shape))
    ends = [0, *(end for place in sorted(places) for end in place[:2]), n_bytes]
    if any(end != begin for end, begin in zip(ends[::2], ends[1::2], strict=True)):
        raise FormatError("its tensors do not fill the file")
    return [(name, shape) for _, _, name, shape in sorted(places)]


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Read the next `size` bytes, a block at a time."""
    while size:
        block = file.read(min(size, _BLOCK_BYTES))
        if not block:
            raise FormatError(_OTHER_LENGTH)
        size -= len(block)
        yield block


def _compare(header: Header, data: Iterable[bytes | memoryview]) -> None:
    if _checksum(header._described, data) != header.checksum:
        raise FormatError("its checksum is wrong")


def _checksum(described: Mapping[str, Any], data: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    digest.update(b"\0")
    for block in data:
        digest.update(block)
    return digest.hexdigest()
