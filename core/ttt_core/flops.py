"""What adaptation costs, in the paper's terms (Bansal et al., arXiv 2512.13898, 3.3 and App. C).

With L layers, width d, MLP ratio r and T document tokens:

    C_quad = 2 L d          C_tok = (4 + 2r) L d^2
    prefill(T)    = C_quad T^2 + C_tok T
    train(k; T)   = 2 (C_quad k T + (2 + 2r) L k d^2)       for k positions, forward and backward
    generate(n; T)= C_quad (n T + n (n - 1) / 2) + C_tok n  for n decoded tokens

For T >> d one trained position is worth about two thinking tokens: N steps of k positions make
2 N k. (The paper's prose says 8K tokens for N = 16, k = 128, which is half of what its own formula
gives; its experiments use N = 32.)
"""

from __future__ import annotations

import math

from ttt_core.queries import Architecture


def prefill_flops(architecture: Architecture, tokens: int) -> float:
    """Cost of reading `tokens` document tokens."""
    quad, tok = _coefficients(architecture)
    return quad * tokens**2 + tok * tokens


def training_flops(architecture: Architecture, positions: int, document_tokens: int) -> float:
    """Cost of forward and backward at `positions` tokens in all, over all steps."""
    quad, _ = _coefficients(architecture)
    dense = (2 + 2 * architecture.mlp_ratio) * architecture.n_layers * architecture.hidden_size**2
    return 2 * (quad * positions * document_tokens + dense * positions)


def forward_flops(architecture: Architecture, positions: int, document_tokens: int) -> float:
    """Cost of a forward pass at `positions` tokens behind the document."""
    quad, tok = _coefficients(architecture)
    return quad * positions * document_tokens + tok * positions


def answer_flops(architecture: Architecture, tokens: int, document_tokens: int) -> float:
    """Cost of `tokens` tokens behind the document, each of which sees those before it.

    That is the paper's generate(n; T), for the tokens of question and answer together.
    """
    quad, tok = _coefficients(architecture)
    return quad * (tokens * document_tokens + tokens * (tokens - 1) / 2) + tok * tokens


def thinking_tokens(architecture: Architecture, flops: float, document_tokens: int) -> int:
    """How many tokens the model could have thought for `flops`: generate(n; T) = flops."""
    quad, tok = _coefficients(architecture)
    linear = quad * document_tokens + tok - quad / 2
    return int((-linear + math.sqrt(linear**2 + 2 * quad * flops)) / quad)


def _coefficients(architecture: Architecture) -> tuple[float, float]:
    layers, width = architecture.n_layers, architecture.hidden_size
    return 2.0 * layers * width, (4 + 2 * architecture.mlp_ratio) * layers * width**2
