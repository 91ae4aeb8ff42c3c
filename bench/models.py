"""Which model is measured? Random weights at real shapes: speed depends on nothing else.

The weights are drawn so that greedy tokens can be compared between peers: attention moves the
logits (another document gives other tokens), yet rounding does not (the residual branches are
damped, so errors are not amplified), and few tokens can win, far apart. Output heads are untied
for that: a tied random head repeats its input. It is as large and as often read as a tied one.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config

_BRANCH = 0.3  # Scale of what attention and MLP add to the residual stream.
_WINNERS = 64  # Tokens that the head can tell apart; the others' logits are zero.
_WINDOW = 65_536


class Shape(NamedTuple):
    """A Qwen3's sizes."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int


SHAPES = {
    "tiny": Shape(2, 64, 128, 4, 2, 16, 320),
    "small": Shape(8, 512, 1_536, 8, 4, 64, 8_192),
    "qwen3-0.6b": Shape(28, 1_024, 3_072, 16, 8, 128, 151_936),
    "qwen3-1.7b": Shape(28, 2_048, 6_144, 16, 8, 128, 151_936),
    "qwen3-4b": Shape(36, 2_560, 9_728, 32, 8, 128, 151_936),
}
"""`tiny` is for the tests; `small` is the CPU's; the others are the real ones."""


def build_model(
    shape: Shape, *, dtype: torch.dtype, device: torch.device, seed: int = 0
) -> PreTrainedModel:
    """Draw a model of `shape` on `device`."""
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=_WINDOW,
        initializer_range=shape.hidden**-0.5,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.random.fork_rng(), device:
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_(_BRANCH)
        model.get_output_embeddings().weight[_WINNERS:] = 0
    model.eval()
    return model


def random_tokens(shape: Shape, count: int, *, seed: int) -> list[int]:
    """Draw the tokens of a document or question."""
    rng = random.Random(seed)
    return [rng.randrange(shape.vocabulary) for _ in range(count)]


def kv_bytes(shape: Shape, tokens: int, dtype: torch.dtype) -> int:
    """Bytes that the keys and values of `tokens` tokens take, by arithmetic."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * tokens * dtype.itemsize


def weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of weights that a forward pass reads: all but the input embeddings."""
    total = sum(weight.nbytes for weight in model.parameters())
    embeddings = sum(weight.nbytes for weight in model.get_input_embeddings().parameters())
    return total - embeddings
