"""How `TTTEngine.from_pretrained` was called: what it takes to make the engine again elsewhere."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ttt_core.loading import load, peek_window

if TYPE_CHECKING:
    from pydantic import BaseModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ttt_core.config import AdaptationConfig, RuntimeConfig


@dataclass(frozen=True)
class Origin:
    """Arguments of `TTTEngine.from_pretrained`, which has their meanings."""

    model: str
    revision: str | None
    dtype: str
    device: str
    adaptation: AdaptationConfig | None
    runtime: RuntimeConfig | None
    template_kwargs: dict[str, Any] | None

    def load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load model and tokenizer; errors as for `ttt_core.loading.load`."""
        return load(self.model, revision=self.revision, dtype=self.dtype, device=self.device)

    def peek_window(self) -> int | None:
        """Return the model's window if its config.json is on this machine."""
        return peek_window(self.model, self.revision)

    @property
    def variant(self) -> str:
        """12 hexadecimal digits of what may change answers and is not the default; else empty."""
        said = {
            "revision": self.revision,
            "dtype": None if self.dtype == "auto" else self.dtype,
            "adaptation": _changed(self.adaptation),
            "runtime": _changed(self.runtime),
            "template_kwargs": self.template_kwargs,
        }
        changed = {name: value for name, value in said.items() if value}
        data = json.dumps(changed, sort_keys=True, default=repr).encode()
        return hashlib.sha256(data).hexdigest()[:12] if changed else ""


def _changed(settings: BaseModel | None) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude_defaults=True) if settings else {}
