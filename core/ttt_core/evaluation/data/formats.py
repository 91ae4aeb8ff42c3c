"""The rows of one file, whichever way they are written.

Rows come one at a time, so that a file may be larger than memory. Errors say which line is bad,
never what stands in it.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from ttt_core.errors import DocumentError
from ttt_core.extras import library

Row: TypeAlias = dict[str, Any]

_CHUNK = 1 << 20
_FIELD = 2**31 - 1  # A C long holds it on every system; csv's own limit is shorter than documents.
_SPACE = re.compile(r"[\s,]*")


def read_file(path: Path) -> Iterator[Row]:
    """Yield a file's rows; its suffix, one of `READERS`, says how they are written.

    Raises:
        ConfigError: What reads this format is not installed.
        DocumentError: Not readable, or a row is not as it should be; names the file and the line.
    """
    try:
        yield from READERS[path.suffix.lower()](path)
    except UnicodeDecodeError:
        raise DocumentError(f"{path} is not UTF-8 text; convert it to UTF-8") from None
    except OSError as error:
        raise DocumentError(
            f"cannot read {path}: {error.strerror or type(error).__name__}"
        ) from None


def _open(path: Path) -> IO[str]:
    return path.open(encoding="utf-8-sig", newline="")


def _json_lines(path: Path) -> Iterator[Row]:
    # Bytes, so that a line that is no UTF-8 has a number.
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.removeprefix(codecs.BOM_UTF8).strip():
                yield _checked(_parsed(line, path, number), path, f"line {number:,}")


def _parsed(line: bytes, path: Path, number: int) -> Any:
    where = f"{path}, line {number:,}"
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise DocumentError(f"{where}: not UTF-8 text; convert it to UTF-8") from None
    except json.JSONDecodeError as error:
        raise DocumentError(f"{where}, column {error.colno:,}: not JSON") from None
    except (ValueError, RecursionError):  # Numbers of thousands of digits; nesting as deep.
        raise DocumentError(f"{where}: JSON that cannot be held") from None


def _checked(value: Any, path: Path, where: str) -> Row:
    if not isinstance(value, dict):
        raise DocumentError(f"{path}, {where}: expected an object, found {type(value).__name__}")
    return value


def _json(path: Path) -> Iterator[Row]:
    """Yield the objects of an array, or of a sequence, without holding all of them."""
    with _open(path) as file:
        rows = _values(file, path)
        for number, value in enumerate(rows, 1):
            yield _checked(value, path, f"row {number:,}")


def _values(file: IO[str], path: Path) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    text, number = file.read(_CHUNK).lstrip(), 1
    array = text.startswith("[")
    text = text[array:]
    while True:
        text = text[_SPACE.match(text).end() :]  # type: ignore[union-attr]  # It always matches.
        try:
            value, end = decoder.raw_decode(text)
        except (ValueError, RecursionError):
            # As much again as there is: reading a row anew each time stays linear in all.
            more = file.read(max(_CHUNK, len(text)))
            if more:
                text += more
                continue
            if text.strip() not in ("]" if array else "",):
                raise DocumentError(f"{path}, row {number:,}: not JSON, or cut off") from None
            return
        yield value
        text, number = text[end:], number + 1


def _table(path: Path, quoting: Literal[0, 3], delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD))
    with _open(path) as file:
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            header = next(reader, [])
            if not all(header) or len(set(header)) < len(header):
                raise DocumentError(f"{path}, line 1: expected the names of the columns, each once")
            for cells in reader:
                if cells:
                    yield _record(header, cells, f"{path}, line {reader.line_num:,}")
        except csv.Error:
            where = f"{path}, line {reader.line_num:,}"
            raise DocumentError(f"{where}: quotes that do not match, or NUL") from None


def _record(header: list[str], cells: list[str], where: str) -> Row:
    if len(cells) != len(header):
        raise DocumentError(f"{where}: expected {len(header)} columns, found {len(cells)}")
    return dict(zip(header, cells, strict=True))


def _csv(path: Path) -> Iterator[Row]:
    return _table(path, csv.QUOTE_MINIMAL, ",")


def _tsv(path: Path) -> Iterator[Row]:
    return _table(path, csv.QUOTE_NONE, "\t")


def _parquet(path: Path) -> Iterator[Row]:
    parquet = library("pyarrow.parquet", "pyarrow", "reading Parquet")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64):  # Documents are long.
                yield from batch.to_pylist()
    except ValueError:  # Arrow's own errors are.
        raise DocumentError(f"{path} is not a Parquet file, or a damaged one") from None


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
"""What reads a file, by its suffix in lower case."""
