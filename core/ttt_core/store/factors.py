"""What was trained, as the two factors of a LoRA: PEFT and its servers know nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ttt_core.errors import ConfigError
from ttt_core.store.format import FormatError, QueryRows, StoredAdapter

if TYPE_CHECKING:
    import torch

DEFAULT_RANK = 64
"""Highest rank of a trained dense change, unless asked otherwise: 60 MB for a model of four
billion parameters, and a rank that vLLM can be told to serve (`--max-lora-rank`)."""

MODULE_PATH = r"base_model\.model\.(?P<module>\w+(?:\.\w+)*)"
"""How PEFT names a weight of a module."""

_DELTA = re.compile(MODULE_PATH + r"\.delta", re.ASCII)


@dataclass(frozen=True)
class Factors:
    """A LoRA, and how far it is from what was trained (nowhere, if there are no errors)."""

    weights: Mapping[str, torch.Tensor]
    rank: int
    alpha: int
    relative_error: float = 0.0
    relative_errors: Mapping[str, float] | None = None


def as_factors(entry: StoredAdapter, rank: int | None) -> Factors:
    """Return the LoRA of an entry: as it was trained, or the closest one to a dense change.

    Args:
        entry: What was trained.
        rank: Of the LoRA; None: the trained one, or `DEFAULT_RANK` for a dense change.

    Raises:
        ConfigError: A rank that cannot be, or another one than the LoRA's own.
        FormatError: The entry's weights are no change of query projections.
    """
    config = entry.identity.config
    if config.parametrization == "full":
        return _factorised(entry, rank)
    if rank not in (None, config.r):
        raise ConfigError(f"this adapter is a LoRA of rank {config.r}; it is exported as it is")
    return Factors(entry.weights, config.r, config.lora_alpha)


def _factorised(entry: StoredAdapter, rank: int | None) -> Factors:
    deltas = {}
    for name, delta in entry.weights.items():
        match = _DELTA.fullmatch(name)
        if match is None or delta.dim() != 2:
            raise FormatError("it holds a weight that is no change of a query projection")
        deltas[match["module"]] = delta, entry.query_rows.get(name)
    rank = _checked_rank(rank, max(min(delta.shape) for delta, _ in deltas.values()))
    weights, missed, norms = {}, {}, {}
    for module, (delta, rows) in deltas.items():
        up, down = _truncated(delta, rank)
        missed[module] = _norm(delta.double() - up.double() @ down.double())
        norms[module] = _norm(delta)
        weights[f"base_model.model.{module}.lora_A.weight"] = down
        weights[f"base_model.model.{module}.lora_B.weight"] = _scattered(up, rows)
    return Factors(
        weights,
        rank,
        alpha=rank,  # PEFT scales by lora_alpha / r.
        relative_error=_ratio(math.hypot(*missed.values()), math.hypot(*norms.values())),
        relative_errors={module: _ratio(missed[module], norms[module]) for module in deltas},
    )


def _checked_rank(rank: int | None, full: int) -> int:
    rank = min(DEFAULT_RANK, full) if rank is None else rank
    if not 1 <= rank <= full:
        raise ConfigError(f"the rank of this adapter's export is from 1 to {full}, not {rank}")
    return rank


def _truncated(delta: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return factors of the closest matrix of a rank (Eckart and Young, 1936), of equal size.

    Args:
        delta: Shape (n_rows, in_features).
        rank: If the matrix is of less, the rest of the factors is zero.

    Returns:
        Shapes (n_rows, rank) and (rank, in_features).
    """
    import torch

    left, values, right = torch.linalg.svd(delta, full_matrices=False)
    roots = values[:rank].sqrt()
    more = rank - len(roots)
    up, down = left[:, :rank] * roots, roots[:, None] * right[:rank]
    pad = torch.nn.functional.pad
    return pad(up, (0, more)), pad(down, (0, 0, 0, more))


def _scattered(up: torch.Tensor, rows: QueryRows | None) -> torch.Tensor:
    """Put the rows of queries to where a fused projection has them; the others stay zero.

    Args:
        up: Shape (n_query_rows, rank).
        rows: Where they belong; None: they are all.

    Returns:
        Shape (out_features, rank).
    """
    import torch

    if rows is None:
        return up
    count = sum(end - begin for begin, end in rows.ranges)
    if count != len(up) or rows.ranges[-1][1] > rows.out_features:
        raise FormatError("its query rows do not fit its weights")
    out = up.new_zeros(rows.out_features, up.shape[1])
    out[torch.cat([torch.arange(begin, end) for begin, end in rows.ranges])] = up
    return out


def _norm(matrix: torch.Tensor) -> float:
    return float(matrix.double().norm())


def _ratio(missed: float, norm: float) -> float:
    return missed / norm if norm else 0.0
