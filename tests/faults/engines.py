"""Engines on a tiny model that train in a fraction of a second, for many processes at once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.conftest import CHATML, build_model, build_tokenizer
from ttt_core import AdaptationConfig, RuntimeConfig, TTTEngine

KEYS = ["key", "cup", "map", "pen", "hat", "box", "jar", "net", "rug", "fan", "bag", "pot"]
DOCUMENTS = [
    "\n".join(f"the {key} is in room {i * number}." for i, key in enumerate(KEYS))
    for number in (1, 2, 3)
]
QUICK = AdaptationConfig(steps=3, learning_rate=3e-3, gate=False, r=4, clozes_per_step=4)


@cache
def model_and_tokenizer() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    torch.set_num_threads(1)
    return build_model("qwen3"), build_tokenizer(CHATML)


def make_engine(store: Path, *, runtime: RuntimeConfig | None = None, **options: Any) -> TTTEngine:
    """An engine of this process on the model that all processes have."""
    model, tokenizer = model_and_tokenizer()
    config = options.pop("adaptation", QUICK)
    return TTTEngine(model, tokenizer, store=store, adaptation=config, runtime=runtime, **options)


def warm_up() -> None:
    """Import all that training needs, but start no thread of its own: a fork has only one."""
    import peft.tuners.lora  # noqa: F401
    import safetensors.torch  # noqa: F401

    model_and_tokenizer()
