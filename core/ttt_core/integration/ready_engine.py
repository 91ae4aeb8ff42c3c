"""A ready engine in place of a model to load: what goes with it, and what it is called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

from ttt_core.errors import ConfigError
from ttt_core.loading import default_model

_OF_LOADING = {"revision": None, "dtype": "auto", "device": "auto"}
"""Options that say how a model is loaded, with what they are by default."""


def check_engine(engine: object | None, options: Mapping[str, Any]) -> None:
    """Refuse what is no engine, and what a ready one could only ignore.

    Raises:
        ValueError: It is none, or such an option is set.
    """
    if engine is None:
        return
    if isinstance(engine, type) or not (hasattr(engine, "adapt") and hasattr(engine, "stream")):
        found = "a class" if isinstance(engine, type) else type(engine).__name__
        raise ValueError(f"engine is a TTTEngine, not {found}")
    for name, default in _OF_LOADING.items():
        if options.get(name, default) != default:
            raise ValueError(
                f"{name} goes with a model to load, and engine= brings a loaded one; pass it to "
                f"TTTEngine.from_pretrained(model, {name}=...)"
            )


_IN_MEMORY = "in-memory:"
"""Begins the names of engines that have none: nothing can be loaded by it."""

_names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""Of engines. An address could be another one's tomorrow, a number another process's."""


def model_name(model: str | os.PathLike[str] | None, engine: object | None) -> str:
    """Name the model: the one given, the engine's, or the default."""
    if model is None and engine is not None:
        if (name := getattr(engine, "name", None)) is not None:
            return str(name)
        # In-memory weights have no name; cached and traced answers must still be told apart.
        return _names.setdefault(engine, f"{_IN_MEMORY}{type(engine).__name__}-{uuid4().hex[:12]}")
    return os.fspath(default_model() if model is None else model)


def check_loadable(model: str) -> None:
    """Refuse the made-up name of an engine that is not here.

    Raises:
        ConfigError: It is one: the object was serialised, or copied without its engine.
    """
    if model.startswith(_IN_MEMORY):
        raise ConfigError(
            "this object was made with engine=, around a model in memory, which no serialised form "
            "holds; pass engine= again"
        )
