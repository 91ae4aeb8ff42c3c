"""Libraries that come with extras only, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ttt_core.errors import MissingLibraryError


def library(module: str, package: str, needed_for: str) -> Any:
    """Import what is installed only with the `eval` extra.

    Raises:
        MissingLibraryError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise MissingLibraryError(
            f"{needed_for} needs {package}: pip install 'context-ttt[eval]'"
        ) from None
