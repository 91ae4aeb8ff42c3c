"""Where real data are, for the tests that try loaders on them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def data() -> Path:
    """The folder of sample data, a sibling of the repository or TTT_DATA; skips without it."""
    beside = Path(__file__).parents[2] / ".." / "shared" / "data"
    folder = Path(os.environ.get("TTT_DATA") or beside)
    if not folder.is_dir():
        pytest.skip("the sample data are not here; TTT_DATA names their folder")
    return folder
