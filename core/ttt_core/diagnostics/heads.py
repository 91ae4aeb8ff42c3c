"""Which heads look at the needle, and what adaptation did to each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ttt_core.diagnostics.measure import Measurement


@dataclass(frozen=True)
class HeadSide:
    """One head at one query; see `LayerAttention`."""

    mass: float
    margin: float
    lead: float

    @property
    def like_best(self) -> float:
        """How many rivals like the best one would take as much mass as all rivals together.

        The margin is the lead less the logarithm of this: 1 where one rival takes all, and the
        number of rivals where all score alike, which is the worst case that `demanded_lead` is for.
        """
        return math.exp(self.lead - self.margin) if math.isfinite(self.margin) else math.nan


@dataclass(frozen=True)
class Head:
    """One head, before and after.

    Attributes:
        layer: Counted from 0; likewise `head`.
        head: Its number in the layer.
        before: With the base model.
        after: With the adapter; None: there is none.
    """

    layer: int
    head: int
    before: HeadSide
    after: HeadSide | None

    @property
    def most(self) -> float:
        """Its mass on the needle, before or after, whichever is more."""
        return max(self.before.mass, self.after.mass if self.after else 0.0)

    @property
    def gain(self) -> float:
        """Mass that adaptation added."""
        return self.after.mass - self.before.mass if self.after else 0.0


def all_heads(before: Measurement, after: Measurement | None, query: int) -> list[Head]:
    """Return every head at one query, those that look at the needle most first."""
    sides = [_sides(side, query) for side in (before, after) if side is not None]
    heads = [
        Head(layer, head, *(side[layer][head] for side in sides), *[None] * (2 - len(sides)))
        for layer in range(len(sides[0]))
        for head in range(len(sides[0][layer]))
    ]
    return sorted(heads, key=lambda head: -head.most)


def _sides(measurement: Measurement, query: int) -> list[list[HeadSide]]:
    masses = measurement.grid("mass", query).tolist()
    margins = measurement.grid("margin", query).tolist()
    leads = measurement.grid("lead", query).tolist()
    return [
        [HeadSide(*values) for values in zip(*rows, strict=True)]
        for rows in zip(masses, margins, leads, strict=True)
    ]
