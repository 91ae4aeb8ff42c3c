"""Where the rows of data sets come from: a file, a folder of files, or the Hugging Face Hub.

Rows come one at a time, so that a file may be larger than memory, and nothing in a file is ever
run or unpickled. Errors say which line is bad, never what stands in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from ttt_core.errors import DocumentError
from ttt_core.evaluation.data.formats import READERS, Row, read_file
from ttt_core.evaluation.data.hub import HUB, read_hub

Source: TypeAlias = str | Path


def read_rows(
    source: Source, *, split: str | None = None, name: str | None = None
) -> Iterator[Row]:
    """Yield the rows of a data set in their order.

    Takes .jsonl and .ndjson (an object a line), .json (an array of objects, or objects one after
    another), .csv (RFC 4180, quoted), .tsv (never quoted), .parquet, UTF-8 with or without a
    byte-order mark, any line ends; a folder with such files; or `hub:owner/name[@revision]`.

    Args:
        source: A path or a name on the Hub. As in `datasets` itself, a local folder called
            `owner/name` goes before the Hub.
        split: Such as `test`. Of a folder: only files with that word in their name. A file is
            one split: it is read whatever this says.
        name: Which configuration of several. Of a folder: the sub-folders or files that are
            called so, or whose names begin so (`qasper_test.csv`) if none is. Not for files.

    Raises:
        ConfigError: What is needed to read this format is not installed, or the Hub's name is
            not one.
        DocumentError: Not there, not readable, or a row is not as it should be.
    """
    if isinstance(source, str) and source.startswith(HUB):
        return read_hub(source, split=split, name=name)
    files = data_files(source, split=split, name=name)
    return (row for file in files for row in read_file(file))


def data_files(
    source: Source, *, split: str | None = None, name: str | None = None
) -> tuple[Path, ...]:
    """List the data files at `source`, a file or a folder, sorted by their paths.

    Hidden files and descriptions (dataset_info.json, README.md) do not count.

    Raises:
        DocumentError: There is none, or none for that split and name.
    """
    return _listed(Path(source).expanduser(), tuple(READERS), split, name)


def text_files(source: Source) -> tuple[Path, ...]:
    """List the texts at `source`, a .txt or .md file or a folder of them, sorted by their paths.

    Raises:
        DocumentError: There is none.
    """
    return _listed(Path(source).expanduser(), (".txt", ".md"), None, None)


def _listed(
    path: Path, kinds: tuple[str, ...], split: str | None, name: str | None
) -> tuple[Path, ...]:
    expected = f"expected {', '.join(kinds)}"
    if path.is_file():
        if path.suffix.lower() not in kinds:
            raise DocumentError(f"cannot read {path}: {expected}, not {path.suffix!r}")
        return (path,)
    if not path.is_dir():
        raise DocumentError(f"no file or folder {path}; {expected}, or a folder with such files")
    files = [file for file in sorted(path.rglob("*")) if _is_data(file.relative_to(path), kinds)]
    found = _named([file for file in files if _of_split(file.relative_to(path), split)], path, name)
    if not found:
        wanted = " and ".join(f"{k} {v!r}" for k, v in (("split", split), ("name", name)) if v)
        raise DocumentError(
            f"no data files{' for ' + wanted if wanted else ''} in {path}, which holds "
            f"{len(files)} in all; {expected}"
        )
    return found


def _is_data(path: Path, kinds: tuple[str, ...]) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    described = path.name in ("dataset_info.json", "dataset_infos.json", "state.json", "README.md")
    return path.suffix.lower() in kinds and not hidden and not described


def _of_split(path: Path, split: str | None) -> bool:
    """Tell whether a file holds a split: `qmsum/test-00000.parquet`, `test/qmsum.jsonl`."""
    return split is None or split in (*re.split(r"[-_.\s]+", path.stem), *path.parent.parts)


def _named(files: list[Path], root: Path, name: str | None) -> tuple[Path, ...]:
    """Keep the files of a configuration; `qasper_e` is none of `qasper` if there is a `qasper`."""
    if name is None:
        return tuple(files)
    parts = [(*file.relative_to(root).parts[:-1], file.stem) for file in files]
    exact = tuple(file for file, own in zip(files, parts, strict=True) if name in own)
    begins = re.compile(rf"{re.escape(name)}[-_.]")
    return exact or tuple(
        file for file, own in zip(files, parts, strict=True) if any(map(begins.match, own))
    )
