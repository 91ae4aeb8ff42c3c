"""How large the model is, what it is shown, and how long and fast it is trained. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from ttt_core.config import unknown_name
from ttt_core.errors import ConfigError

SizeName = Literal["base", "small", "tiny"]
SIZES: tuple[SizeName, ...] = get_args(SizeName)


@dataclass(frozen=True)
class DataConfig:
    """What training rows look like.

    Attributes:
        seed: Rows are a function of this and of their batch's number.
        batch_tokens: Tokens of a training step, padding not counted.
        part_tokens: Tokens of one forward pass, padding counted, unless a single row has more.
        max_position: One more than the largest position id.
        growing_batches: Over how many batches documents grow from a tenth to their full length.
        max_lines: Lines of the longest registry.
        max_operations: Operations of the longest transaction log.
        max_words: Words of the longest retrieval or tracking document.
        max_text_lines: Lines of the longest passage of source code.
        text_weight: How much the loss counts at a token of source code.
        document_weight: The same for generated documents.
        source_chars: At most so many characters of the standard library are used.
    """

    seed: int = 0
    batch_tokens: int = 65_536
    part_tokens: int = 32_768
    max_position: int = 32_768
    growing_batches: int = 2_000
    max_lines: int = 64
    max_operations: int = 25
    max_words: int = 400
    max_text_lines: int = 60
    text_weight: float = 0.2
    document_weight: float = 0.01
    source_chars: int = 20_000_000


@dataclass(frozen=True)
class LargerConfig:
    """The whole recipe.

    Attributes:
        width: Of the residual stream; the heads fill it.
        inner: Width of the feed-forward layers.
        layers: How many.
        heads: At least four.
        vocabulary: Tokens, at most.
        learning_rate: The highest.
        warmup_steps: Steps until the rate is reached.
        decay_share: The rate falls (cosine) over this last share of the steps or of the time.
        steps: At most so many in all; time may end training earlier.
        periodic_steps: Of them, at most so many on periodic sequences alone.
        periodic_rows: Rows of a periodic batch, of 64 tokens each.
        data: The rows of the second phase.
    """

    width: int = 512
    inner: int = 1408
    layers: int = 8
    heads: int = 8
    vocabulary: int = 8192
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    decay_share: float = 0.3
    steps: int = 40_000
    periodic_steps: int = 3_000
    periodic_rows: int = 512
    data: DataConfig = DataConfig()


_BASE = LargerConfig()
_SMALL = LargerConfig(
    width=256,
    inner=704,
    layers=4,
    heads=4,
    vocabulary=2048,
    learning_rate=2e-3,
    warmup_steps=100,
    periodic_steps=600,
    periodic_rows=48,
    data=DataConfig(
        batch_tokens=4096,
        part_tokens=8192,
        growing_batches=300,
        max_lines=32,
        max_words=200,
        max_text_lines=25,
        source_chars=4_000_000,
    ),
)
_TINY = LargerConfig(
    width=64,
    inner=48,
    layers=2,
    heads=4,
    vocabulary=2048,
    learning_rate=2e-3,
    warmup_steps=4,
    steps=8,
    periodic_steps=3,
    periodic_rows=4,
    data=DataConfig(
        batch_tokens=512,
        part_tokens=1024,
        growing_batches=4,
        max_lines=8,
        max_words=60,
        max_text_lines=8,
        source_chars=100_000,
    ),
)


def sized(size: SizeName, *, seed: int = 0) -> LargerConfig:
    """Return the settings of a size: `base` has some 34M parameters, `small` 4M; `tiny` is a test.

    Raises:
        ConfigError: There is no such size.
    """
    known = {"base": _BASE, "small": _SMALL, "tiny": _TINY}
    if size not in known:
        raise ConfigError(unknown_name("size", size, known, "sizes"))
    config = known[size]
    return replace(config, data=replace(config.data, seed=seed))
