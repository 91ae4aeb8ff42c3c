"""One engine per process and model, so that constructing an integration object is free."""

from __future__ import annotations

import threading

from ttt_core.engine import TTTEngine
from ttt_core.loading import default_model

_shared: dict[tuple[str, str | None, str, str], TTTEngine] = {}
_shared_lock = threading.Lock()


def shared_engine(
    model: str | None = None,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
) -> TTTEngine:
    """Return the process's one engine for a model; cheap, since weights load on first use.

    All integration objects share it, so that constructing one is free.
    """
    key = (model or default_model(), revision, dtype, device)
    with _shared_lock:
        engine = _shared.get(key)
        if engine is None or engine.closed:
            engine = TTTEngine.from_pretrained(
                key[0], revision=revision, dtype=dtype, device=device
            )
            _shared[key] = engine
        return engine
