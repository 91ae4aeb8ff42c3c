"""One engine per process and model, so that constructing an integration object is free."""

from __future__ import annotations

import os
import threading

from ttt_core.engine import TTTEngine
from ttt_core.loading import default_model, settled
from ttt_core.namespace import NamespaceLike

_shared: dict[tuple[str, str | None, str, str], TTTEngine] = {}
_shared_lock = threading.Lock()


def _forget_lock() -> None:
    """In a forked child, whoever held it is not there to give it back."""
    global _shared_lock
    _shared_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


def shared_engine(
    model: str | None = None,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    namespace: NamespaceLike = None,
) -> TTTEngine:
    """Return the process's one engine for a model; cheap, since weights load on first use.

    All integration objects share it, so that constructing one is free. One that was closed is
    replaced; a forked child has its own, which loads the model again.

    Args:
        model: See `TTTEngine.from_pretrained`; likewise `revision`, `dtype` and `device`.
        namespace: Whose documents; None: the default one. All share the model, and nothing else.
    """
    key = (settled(model or default_model()), revision, dtype, device)
    with _shared_lock:
        engine = _shared.get(key)
        if engine is None or engine.closed:
            engine = TTTEngine.from_pretrained(
                key[0], revision=revision, dtype=dtype, device=device
            )
            _shared[key] = engine
    return engine if namespace is None else engine.in_namespace(namespace)
