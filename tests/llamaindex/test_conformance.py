"""TTTLLM through the conformance suite; see tests/llamaindex/conformance/__init__.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

from llamaindex_ttt import TTTLLM
from tests.llamaindex.conformance import Hooks, classes
from ttt_core import TTTEngine


class TTTHooks(Hooks):
    """How a TTTLLM is made."""

    thinking: ClassVar[Mapping[str, Any]] = {"enable_thinking": True}
    secrets: ClassVar[Mapping[str, Any]] = {"namespace_secret": "a secret of enough bytes"}

    def build(self, model: Any, tokenizer: Any, folder: Path, **options: Any) -> TTTLLM:
        if "namespace_secret" in options:
            options["namespace"] = "legal"
        return TTTLLM(engine=TTTEngine(model, tokenizer, store=folder / "store"), **options)

    def load(self, folder: Path, **options: Any) -> TTTLLM:
        return TTTLLM(model=str(folder), **options)

    def dispose(self, llm: Any) -> None:
        if llm.engine is not None:
            cast("TTTEngine", llm.engine).close()


globals().update(classes("TTTLLM", TTTHooks))
