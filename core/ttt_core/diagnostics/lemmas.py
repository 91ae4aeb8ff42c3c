"""What attention theory says about one query and one needle: masses, margins, one gradient.

From Bansal et al., "Let's (not) just put things in Context" (arXiv 2512.13898), sections 2 and 3.
The query q scores key j with z_j = scale * q . k_j, the attention mass is alpha = softmax(z), and
the needle is the one key that the answer needs. All is in nats; tests check it numerically.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ttt_core.errors import ConfigError

if TYPE_CHECKING:
    import torch


def margin_for(mass: float) -> float:
    """Return the margin over the log-sum-exp of all rivals that means `mass` (Definition 2.1).

    The needle has at least this mass exactly if z_needle - logsumexp(rivals) is at least this.

    Raises:
        ConfigError: `mass` is not between 0 and 1.
    """
    if not 0 < mass < 1:
        raise ConfigError(f"an attention mass is between 0 and 1, not {mass}")
    return math.log(mass / (1 - mass))


def mass_of(margin: float) -> float:
    """Return the mass that a margin over the log-sum-exp of all rivals means; see `margin_for`."""
    if margin >= 0:
        return 1 / (1 + math.exp(-margin))
    return math.exp(margin) / (1 + math.exp(margin))


def most_mass(rivals: int, gap: float) -> float:
    """Return the most mass a needle can have if rivals come close (Lemma 2.2, score dilution).

    Args:
        rivals: Keys whose score is at most `gap` below the needle's.
        gap: In nats.
    """
    return mass_of(gap - math.log(rivals)) if rivals else 1.0


def demanded_lead(rivals: int, epsilon: float) -> float:
    """Return the lead over the best rival that is enough for mass 1 - epsilon (Lemma 2.3).

    Enough in the worst case, where all rivals score alike: log(rivals * (1 - epsilon) / epsilon).
    The paper's T - 1 are the rivals of one needle key among T keys. It is a lead over the *best*
    rival: the margin over the log-sum-exp of all has the number of rivals in it already, and
    needs `margin_for(1 - epsilon)` at any length.

    Args:
        rivals: Keys that are not the needle.
        epsilon: Mass that the rivals may keep.

    Raises:
        ConfigError: `epsilon` is not between 0 and 1.
    """
    return margin_for(1 - epsilon) + (math.log(rivals) if rivals else -math.inf)


def query_gradient(
    query: torch.Tensor, keys: torch.Tensor, needle: int, scale: float
) -> torch.Tensor:
    """Return the gradient of -log alpha_needle by the query (Proposition 3.1).

    scale * (mean key under attention - needle key): descent turns the query towards the needle and
    away from what it attends to on average. The paper's scale is 1/sqrt(head_dim).

    Args:
        query: Shape (head_dim,).
        keys: Shape (n_keys, head_dim).
        needle: Index of the needle's key.
        scale: Factor of the scores.

    Returns:
        Shape (head_dim,).
    """
    mass = (scale * keys @ query).softmax(0)
    return scale * (mass @ keys - keys[needle])


def log_mass_gain(
    query: torch.Tensor, keys: torch.Tensor, needle: int, scale: float, rate: float
) -> float:
    """Return what one step of gradient descent adds to log alpha_needle, to first order.

    Lemma 3.2: rate * |gradient|^2 = rate * scale^2 * |needle key - mean key|^2.

    Args:
        query: As in `query_gradient`; likewise keys, needle and scale.
        keys: See query.
        needle: See query.
        scale: See query.
        rate: Learning rate.
    """
    gradient = query_gradient(query, keys, needle, scale)
    return rate * float(gradient.square().sum())


def margin_gain(
    query: torch.Tensor, keys: torch.Tensor, needle: int, scale: float, rate: float
) -> float:
    """Return what the same step adds to the margin over all rivals, to first order.

    The margin is log(alpha / (1 - alpha)), which grows 1 / (1 - alpha) times as fast as log alpha:
    the gain of Lemma 3.2 is a lower bound of it, near while the needle has little mass.
    """
    mass = (scale * keys @ query).softmax(0)[needle]
    return log_mass_gain(query, keys, needle, scale, rate) / (1 - float(mass))
