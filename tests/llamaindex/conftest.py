"""What all tests of the LlamaIndex integration need."""

from __future__ import annotations

import inspect

import pytest


@pytest.fixture(autouse=True)
def _no_event_loop_in_blocking_tests(request: pytest.FixtureRequest) -> None:
    if not inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("no_event_loop")
