"""LangChain's list of the classes that may be loaded, with ours on it."""

from __future__ import annotations

import importlib

import pytest

from langchain_ttt import ChatTTT


def put_on_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `load(allowed_objects="all")` mean ChatTTT, too.

    The list names classes of LangChain's own packages alone, so that test_serdes cannot pass for
    anybody else's; users pass `allowed_objects=[ChatTTT]`, as test_chat_models.py does.
    """
    module = importlib.import_module("langchain_core.load.load")
    path = tuple(ChatTTT.lc_id())
    listed = {**module.ALL_SERIALIZABLE_MAPPINGS, path: path}
    monkeypatch.setattr(module, "ALL_SERIALIZABLE_MAPPINGS", listed)
    monkeypatch.setattr(module, "_default_class_paths_cache", {})
