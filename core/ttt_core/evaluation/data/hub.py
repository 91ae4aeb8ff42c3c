"""The rows of a data set on the Hugging Face Hub, streamed through `datasets`.

Only formats that hold data are read: nothing is unpickled, and no code of a repository is run
(`datasets` has not done that since its release 4).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ttt_core.errors import ConfigError, DocumentError
from ttt_core.evaluation.data.formats import Row
from ttt_core.extras import library

HUB = "hub:"
"""What a source on the Hub starts with: `hub:owner/name`, or `hub:owner/name@revision`."""

_FORMATS = frozenset({"arrow", "csv", "json", "parquet", "text"})
"""Formats of `datasets` that only hold data; others unpickle, or decode media."""


def read_hub(source: str, *, split: str | None = None, name: str | None = None) -> Iterator[Row]:
    """Stream the rows of `hub:owner/name[@revision]`; see `ttt_core.evaluation.data.read_rows`.

    Raises:
        ConfigError: That is no name on the Hub, or `datasets` is not installed.
        DocumentError: It cannot be reached or read, is no plain data, or has no such split.
    """
    owner = re.fullmatch(r"hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", source)
    if owner is None:
        raise ConfigError(f"expected {HUB}owner/name or {HUB}owner/name@revision, got {source!r}")
    datasets = library("datasets", "datasets", "reading from the Hub")
    try:
        builder = datasets.load_dataset_builder(owner[1], name=name, revision=owner[2])
    except Exception as error:
        raise _unreachable(source, name, error) from error
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in _FORMATS:
        raise DocumentError(
            f"{source} is made of {kind!r}, which is not read for safety's sake; expected one of "
            f"{', '.join(sorted(_FORMATS))}. Convert it, and give the local path"
        )
    return _streamed(builder, source, split)


def _unreachable(source: str, name: str | None, error: Exception) -> DocumentError:
    named = f" (name {name!r})" if name else ""
    return DocumentError(
        f"cannot open {source}{named}: {type(error).__name__}. Is the name right, is the Hub "
        f"reachable (HF_HUB_OFFLINE is not set), and is HF_TOKEN set where it is needed? Without "
        f"a network, download the files and give their path"
    )


def _streamed(builder: Any, source: str, split: str | None) -> Iterator[Row]:
    try:
        splits = builder.as_streaming_dataset()
        if split is None and len(splits) == 1:
            split = next(iter(splits))
        if split not in splits:
            known = ", ".join(sorted(splits))
            raise DocumentError(f"{source}: expected a split of {known}; found {split!r}")
        yield from splits[split]
    except DocumentError:
        raise
    except Exception as error:  # Its message could quote a row.
        raise DocumentError(f"cannot read {source}: {type(error).__name__}") from None
