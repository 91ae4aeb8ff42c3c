"""Every test here gets a store of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from ttt_core import AdapterStore


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    """An empty store without limits worth mentioning."""
    return AdapterStore(tmp_path / "store")
