"""The longest test comes last."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever runs everything should hear of all else first."""
    items.sort(key=lambda item: item.path.name == "test_together.py")
