"""Files as a forger would write them: any header around any data, with lengths that fit."""

from __future__ import annotations

import hashlib
import json
from typing import Any

LENGTH = 8


def header_of(data: bytes) -> dict[str, Any]:
    """The header of a file's bytes."""
    return json.loads(data[LENGTH : _start(data)])


def data_of(data: bytes) -> bytes:
    """What follows the header."""
    return data[_start(data) :]


def spell(header: Any, data: bytes) -> bytes:
    """A file with this header; its length is right, its checksum is whatever the header says."""
    return spell_text(json.dumps(header).encode(), data)


def spell_text(text: bytes, data: bytes) -> bytes:
    text += b" " * (-(LENGTH + len(text)) % 8)
    return len(text).to_bytes(LENGTH, "little") + text + data


def seal(header: dict[str, Any], data: bytes) -> dict[str, Any]:
    """The same header with the checksum that fits it: SHA-256, as the format's docstring says."""
    metadata = {k: v for k, v in header["__metadata__"].items() if k != "checksum"}
    header = {**header, "__metadata__": metadata}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode() + b"\0" + data)
    return {**header, "__metadata__": {**metadata, "checksum": digest.hexdigest()}}


def forge(data: bytes, **changes: Any) -> bytes:
    """The same file, with some of what it says about its adapter changed, and a right checksum."""
    header = header_of(data)
    about = {**json.loads(header["__metadata__"]["adapter"]), **changes}
    header["__metadata__"]["adapter"] = json.dumps(about)
    return spell(seal(header, data_of(data)), data_of(data))


def _start(data: bytes) -> int:
    return LENGTH + int.from_bytes(data[:LENGTH], "little")
