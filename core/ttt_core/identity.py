"""What adapters and frozen prefixes belong to: base weights, tokens and, if trained, the recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ttt_core.config import AdaptationConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ALGORITHM_VERSION = 1
"""Raised when the same recipe would train other weights than before."""

PREFIX_VERSION = 1
"""Raised when the same tokens would be kept as other keys and values than before."""

_INCIDENTAL = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
"""Configuration entries that tell how a model was saved, not what it computes."""

_CHUNK = 1 << 22
_MULTIPLIER = 0x9E3779B97F4A7C15 - (1 << 64)  # Odd, as a signed 64-bit integer.


def adapter_key(
    *, base: str, tokenizer: str, prefix_ids: Sequence[int], config: AdaptationConfig
) -> str:
    """Return the key under which an adapter is stored: 64 hexadecimal digits.

    Args:
        base: `weights_fingerprint` of the model.
        tokenizer: `tokenizer_fingerprint`.
        prefix_ids: All tokens of system prompt and document.
        config: The recipe.
    """
    return _hash(
        {
            "algorithm": ALGORITHM_VERSION,
            "base": base,
            "tokenizer": tokenizer,
            "prefix": _hash_ids(prefix_ids),
            "config": config.model_dump(mode="json"),
        }
    )


def prefix_key(*, base: str, dtype: str, library: str, prefix_ids: Sequence[int]) -> str:
    """Return the key under which keys and values are kept: 64 hexadecimal digits.

    Chunk size and attention kernel do not count: they change keys and values by rounding only.

    Args:
        base: `weights_fingerprint` of the model; empty for a key that does not leave the engine.
        dtype: The model's.
        library: Version of transformers, which decides in what shape a layer caches them.
        prefix_ids: All tokens of system prompt and document.
    """
    return _hash(
        {
            "version": PREFIX_VERSION,
            "base": base,
            "dtype": dtype,
            "library": library,
            "prefix": _hash_ids(prefix_ids),
        }
    )


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """Return a hash of vocabulary and chat template."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(f"{vocabulary}\n{template}".encode("utf-8", "replace")).hexdigest()


def weights_fingerprint(model: PreTrainedModel) -> str:
    """Return a hash to which every bit of every weight contributes.

    Each tensor is reduced on its own device by a position-dependent sum modulo 2^64 (fast, not
    cryptographic: it tells models apart, it does not withstand an attacker who makes them), and
    the sums are hashed together with the configuration.
    """
    config = {k: v for k, v in model.config.to_dict().items() if k not in _INCIDENTAL}
    architecture = json.dumps([type(model).__name__, config], sort_keys=True, default=str)
    digest = hashlib.sha256(architecture.encode())
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            header = json.dumps([name, str(tensor.dtype), list(tensor.shape)])
            digest.update(f"{header}:{_checksum(tensor)}\n".encode())
    return digest.hexdigest()


def _hash(identity: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _hash_ids(ids: Sequence[int]) -> str:
    return hashlib.sha256(torch.tensor(list(ids), dtype=torch.int64).numpy().tobytes()).hexdigest()


def _checksum(tensor: torch.Tensor) -> int:
    flat = tensor.detach().contiguous().view(-1)
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    flat = flat.view(words[flat.element_size()])
    total = 0
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK].to(torch.int64)
        weights = torch.arange(start, start + len(part), device=part.device) * 2 + 1
        mixed = (part + 1) * (weights * _MULTIPLIER)
        mixed ^= mixed >> 29
        total = (total + int((mixed * weights).sum())) % (1 << 64)
    return total
