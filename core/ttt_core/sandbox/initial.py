"""Initial weights that begin with an induction circuit.

To copy "what followed the same words before", a transformer needs heads in one layer that look a
few tokens back and heads in the next that match what those found. Gradient descent alone had not
found both after 1,500 steps; here the first two layers start with a rough version, written into
random orthogonal directions of the residual stream. It is only a start: training changes all of it.
"""

import math

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

LOCAL_PAIRS = 8
"""How many rotary pairs, the fastest first, tell a looking-back head how far away a token is. With
two of them the pattern came back every 44 tokens, and long documents diluted it."""

LOCAL_GAIN = 3.0
CONTENT_PAIRS = 10
"""How many rotary pairs, the slowest, match contents: what turns fast can't be matched far away."""

CONTENT_GAIN = 2.0
"""Initial gains of the query and key norms: sharp enough to single out one token."""


@torch.no_grad()
def add_induction_circuit(model: Qwen3ForCausalLM, *, generator: torch.Generator) -> None:
    """Overwrite the first three heads of layers 0 and 1.

    Layer 0 copies the tokens one, two and three places back, each into a subspace of its own. Layer
    1 attends to where the token before was the current one (head 0), where the same holds one place
    earlier (head 1), and where two earlier tokens agree at once (head 2), and copies the token
    found there towards the logits.
    """
    own, *back = _subspaces(model, generator)[:4]
    _write_constant(model)
    for head, target in enumerate(back):
        _look_back(model, head=head, distance=head + 1, source=own, target=target)
    one, two, three = back
    for head, (query, key) in enumerate(
        [(own, one), (one, two), (_interleave(one, two), _interleave(two, three))]
    ):
        _match(model, head=head, query=query, key=key, copied=own)


def _subspaces(model: Qwen3ForCausalLM, generator: torch.Generator) -> list[Tensor]:
    """Draw orthonormal bases (head_dim, hidden_size), orthogonal to the constant direction.

    The last one is a dimension short, as the constant takes one; that row is zero.
    """
    width, size = model.config.hidden_size, model.config.head_dim
    drawn = torch.randn(width, width, generator=generator)
    drawn[:, 0] = 1.0
    basis = torch.linalg.qr(drawn).Q.T[1:]
    padded = torch.cat([basis, torch.zeros(1, width)])
    return list(padded.split(size))


def _write_constant(model: Qwen3ForCausalLM) -> None:
    """Give every embedding the same constant part, for heads that ignore what the token is.

    The logits start as similarity to the embeddings without it, so that a copied token is a
    predicted one.
    """
    embedding = model.model.embed_tokens.weight
    model.lm_head.weight.copy_(3 * (embedding - embedding.mean(1, keepdim=True)))
    embedding += model.config.initializer_range


def _rope_theta(model: Qwen3ForCausalLM) -> float:
    """Return the base of the rotary frequencies."""
    parameters = model.config.rope_parameters
    theta = parameters.get("rope_theta") if parameters else None
    assert isinstance(theta, float)
    return theta


def _look_back(
    model: Qwen3ForCausalLM, *, head: int, distance: int, source: Tensor, target: Tensor
) -> None:
    """Make a head of layer 0 copy `source` from `distance` tokens back into `target`.

    Queries and keys read the constant only; the key is turned as if it stood `distance` tokens
    further on.
    """
    config, attention = model.config, model.model.layers[0].self_attn
    size, half = config.head_dim, config.head_dim // 2
    query, key = torch.zeros(size), torch.zeros(size)
    for pair in range(LOCAL_PAIRS):
        angle = distance * _rope_theta(model) ** (-2 * pair / size)
        query[pair] = 1.0
        key[pair], key[pair + half] = math.cos(angle), math.sin(angle)
        for dimension in (pair, pair + half):
            attention.q_norm.weight[dimension] = attention.k_norm.weight[dimension] = LOCAL_GAIN
    constant = torch.full((config.hidden_size,), config.hidden_size**-0.5)
    rows = slice(head * size, (head + 1) * size)
    attention.q_proj.weight[rows] = torch.outer(query, constant)
    attention.k_proj.weight[rows] = torch.outer(key, constant)
    attention.v_proj.weight[rows] = source
    attention.o_proj.weight[:, rows] = 0.075 * target.T


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    """Take the even rows of one basis and the odd rows of another."""
    return torch.where(torch.arange(len(even))[:, None] % 2 == 0, even, odd)


def _match(
    model: Qwen3ForCausalLM, *, head: int, query: Tensor, key: Tensor, copied: Tensor
) -> None:
    """Make a head of layer 1 attend where `key` holds what `query` holds here, and copy it."""
    size = model.config.head_dim
    attention = model.model.layers[1].self_attn
    rows = slice(head * size, (head + 1) * size)
    slow = (torch.arange(size) % (size // 2) >= size // 2 - CONTENT_PAIRS)[:, None]
    attention.q_proj.weight[rows] = query * slow
    attention.k_proj.weight[rows] = key * slow
    attention.q_norm.weight.fill_(CONTENT_GAIN)
    attention.k_norm.weight.fill_(CONTENT_GAIN)
    attention.v_proj.weight[rows] = copied
    attention.o_proj.weight[:, rows] = 0.15 * copied.T
