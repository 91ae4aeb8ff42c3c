"""Callers: one engine's, with documents that are marked or with any."""

from __future__ import annotations

import pytest

from tests.integration.resolver.conversations import Caller


@pytest.fixture
def marked() -> Caller:
    return Caller()


@pytest.fixture
def auto() -> Caller:
    return Caller("auto")
