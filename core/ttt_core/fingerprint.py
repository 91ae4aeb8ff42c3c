"""Hashes that tell models, tokenizers and templates apart."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_INCIDENTAL = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
"""Configuration entries that tell how a model was saved, not what it computes."""

_CHUNK = 1 << 22
_MULTIPLIER = 0x9E3779B97F4A7C15 - (1 << 64)  # Odd, as a signed 64-bit integer.


def vocabulary_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of all tokens and their ids."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(vocabulary.encode("utf-8", "replace")).hexdigest()


def text_fingerprint(text: str) -> str:
    """Return a hash of a text, such as a chat template."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


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
